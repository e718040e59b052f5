"""Folders of images and label maps, and a table of the labels."""

from __future__ import annotations

import csv
import io

from diffground.data.palette import VOC_PALETTE
from diffground.data.shards import encode_label
from diffground.exchange.folder import write_once
from diffground.exchange.plan import Plan
from diffground.exchange.samples import ExportSample
from diffground.exchange.target import About, Target


class PngFormat:
    """See target.Format."""

    about = About(
        layout="""- `images/SPLIT/ID.png`: the images, without loss.
- `masks/SPLIT/ID.png`: label maps with a palette, 0 background, category i of the table as its label, 255 ignored.
- `categories.csv`: label, name and colour.""",
        example="""import csv
from pathlib import Path

import numpy as np
from PIL import Image

names = {int(row["label"]): row["name"] for row in csv.DictReader(open("categories.csv", encoding="utf-8"))}
for path in sorted(Path("masks").glob("*/*.png"))[:3]:
    image = Image.open(Path("images") / path.relative_to("masks"))
    label = np.asarray(Image.open(path))
    print(path.stem, image.size, [names[value] for value in np.unique(label).tolist()])
""",
    )

    def __init__(self, target: Target) -> None:
        self._root, self._categories = target.root, target.categories

    def add(self, sample: ExportSample) -> None:
        name = f"{sample.split}/{sample.key}.png"
        write_once(self._root / "images" / name, lambda: sample.image_png)
        write_once(self._root / "masks" / name, lambda: encode_label(sample.label))

    def end_shard(self, name: str) -> None:
        pass

    def finish(self, plan: Plan) -> None:
        rows = {0: "background", **self._categories.labels, 255: "ignored"}
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("label", "name", "colour"))
        table.writerows((label, name, colour_of(label)) for label, name in rows.items())
        write_once(self._root / "categories.csv", lambda: text.getvalue().encode())


def colour_of(label: int) -> str:
    """ "#rrggbb" of the VOC palette."""
    return "#" + "".join(f"{value:02x}" for value in VOC_PALETTE[label].tolist())
