"""A picture of the outputs of a stage, drawn from its files."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.data.labelled import LabelledSample, read_labelled_samples
from diffground.data.shards import read_samples
from diffground.data.voc import VocDataset
from diffground.report.gallery import Picture, Row, draw_gallery, mask_overlay, overlay
from diffground.reproduction import paths
from diffground.reproduction.config import load_params
from diffground.reproduction.metrics import read_metrics

_NUM_COLUMNS = 8
_WIDEST_PX = 1200
_PAIRS = {
    masks: images
    for of_images, of_masks in ((paths.GENERATED, paths.ORACLE), (paths.INVERTED, paths.INVERTED_ORACLE))
    for images, masks in ((of_images[name], of_masks[name]) for name in of_masks)
}
"""Shards of masks -> shards of their images."""
_CHARTS = {
    "train_grounding": "loss.png",
    "train_maskformer": "loss.png",
    "evaluate_baselines": "protocol1.png",
    "evaluate_grounding": "protocol1.png",
    "evaluate_zs3": "zs3.png",
}
_FIGURES = {"report": paths.FIGURES / "masks.png", "evaluate": Path("models/mini/samples.png")}


def picture_uri(stage: str, outputs: tuple[Path, ...]) -> str | None:
    """A JPEG as data: URI, at most 1200 px wide: images of the stage's shards, a chart of its metrics, or a figure that
    it wrote; None without any. `outputs`: files and folders that the stage writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = _draw(stage, outputs, Path(folder))
        return None if path is None else _data_uri(path)


def _draw(stage: str, outputs: tuple[Path, ...], folder: Path) -> Path | None:
    if stage in _FIGURES:
        return _FIGURES[stage] if _FIGURES[stage].is_file() else None
    if stage in _CHARTS:
        _write_chart(stage, folder)
        return folder / _CHARTS[stage]
    rows = [row for out in outputs for row in _rows(out)]
    if not rows:
        return None
    draw_gallery(folder / "gallery.png", rows)
    return folder / "gallery.png"


def _rows(out: Path) -> Iterator[Row]:
    if out == paths.REAL:
        params = load_params(paths.PARAMS)
        num_categories = len(params.vocabulary.load().categories)
        real = VocDataset(paths.REAL, params.data.train_list, num_categories=num_categories, may_be_empty=True)
        if not len(real):
            real = VocDataset(paths.REAL, params.data.val_list, num_categories=num_categories, may_be_empty=True)
        shown = [real[i] for i in range(min(_NUM_COLUMNS, len(real)))]
        yield Row(str(out), [Picture(overlay(image, label)) for image, label in shown])
    elif any(out.glob("*.tar")):
        if out in _PAIRS:
            labelled = islice(read_labelled_samples(generated=_PAIRS[out], oracle=out), _NUM_COLUMNS)
            pictures = [
                Picture(mask_overlay(sample.image(), list(sample.masks().values())), ", ".join(sample.found))
                for sample in labelled
            ]
        else:
            pictures = [_picture(LabelledSample(sample)) for sample in islice(read_samples(out), _NUM_COLUMNS)]
        yield Row(str(out), pictures)


def _picture(sample: LabelledSample) -> Picture:
    image = overlay(sample.image(), sample.label()) if sample.has_label else sample.image()
    return Picture(np.ascontiguousarray(image), ", ".join(sample.categories))


def _write_chart(stage: str, folder: Path) -> None:
    from diffground.report.experiments import comparable_experiments
    from diffground.report.write import write_charts

    params = load_params(paths.PARAMS)
    # the scores of baselines have the form of those that evaluate_grounding adds them to
    name = "evaluate_grounding" if stage == "evaluate_baselines" else stage
    metrics = {"evaluate_grounding": {}, "evaluate_zs3": {}, name: read_metrics(stage)}
    write_charts(metrics, params, comparable_experiments(params), folder)


def _data_uri(path: Path) -> str:
    image = Image.open(path).convert("RGB")
    image.thumbnail((_WIDEST_PX, 10 * _WIDEST_PX))
    content = BytesIO()
    image.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
