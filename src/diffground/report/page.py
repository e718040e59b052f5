"""reports/index.html of a reproduction: its sections, in order, without the empty ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from diffground.report.experiments import WITHOUT_EFFECT, Experiments
from diffground.report.html import Section, render_page
from diffground.report.tables import Table
from diffground.reproduction.config import Params
from diffground.reproduction.params import flat_params

ABOUT = (
    ("Protocol I", "Category-wise mIoU of masks against the oracle on generated images, by what the prompt names.",
     "protocol1", "protocol1"),
    ("Protocol I, other scores", "Boundary mIoU uses only the pixels along the outlines. Normalised mutual information "
     "measures how much the masks tell about the partition of the scene. The paper reports neither.",
     "protocol1_extra", ""),
    ("Protocol I by category", "IoU of each category in prompts that name only it, it and another of its kind (seen or "
     "unseen), or one seen and one unseen category.", "protocol1_categories", ""),
    ("Detections", "What the detector found in generated images, and what training and evaluation skipped because it "
     "found nothing.", "detections", ""),
    ("Detections by category", "The number of images whose prompt names a category and in which the detector found it. "
     "A test image is not judged for any of the reasons above, also if they concern only the other category.",
     "detections_categories", ""),
    ("Grounding on real images", "Masks of real validation images, whose latents come from DDIM inversion. Each prompt "
     "names what its image shows, so the module does not have to recognise categories: this is not zero-shot "
     "segmentation.",
     "real_images", ""),
    ("Zero-shot segmentation", "MaskFormer on real validation images. Background pixels are not evaluated, as in this "
     "benchmark; rows that count them are marked.", "zs3", "zs3"),
    ("Zero-shot segmentation by category", "The same, one category per row.", "zs3_categories", ""),
    ("Grounded synthetic images", "The first image of each kind, not chosen by hand.", "", "masks"),
    ("Real images", "The first images of the validation list.", "", "real"),
    ("Real images that fail", "The images with the lowest IoU of the named segmenter.", "", "failures"),
    ("Table 1 of the paper", "Protocol I on the paper's three splits of the categories.",
     "table1", ""),
    ("Table 2 of the paper", "Zero-shot segmentation of real validation images. Except for "
     "the upper bound, no model was trained with an annotated mask of an unseen category. A to E know the names of the "
     "unseen categories and are trained on generated images of them with masks of the grounding module. Only the row "
     "trained on real images of seen categories is inductive in the strict sense: it uses no masks of unseen ones.",
     "table2", ""),
    ("Ablations", "Scores of grounding with one setting changed at a time, and of the default run.",
     "ablations", ""),
    ("Timestep", "Protocol I by the sampling step whose features are read.", "", "timestep"),
    ("Number of seen categories", "Protocol I by the share of categories with masks in training.", "",
     "seen_categories"),
    ("Training", "Each point is the mean loss over 50 optimizer steps.", "", "loss"),
)  # fmt: skip
"""Heading, text, name of the table, name of the figure; '' is none."""

EXPERIMENTS_IN = {
    "table1": ("table1_*",),
    "table2": ("table2_*", "text2mask"),
    "ablations": ("training_*", "objects_*", "seen_*", "data_*"),
    "timestep": ("timestep_*",),
    "seen_categories": ("seen_*",),
}
"""Table or figure -> names of the experiments whose scores it shows next to those of the default run."""


def write_page(
    path: Path,
    *,
    tables: Mapping[str, Table],
    figures: Sequence[Path],
    params: Params,
    experiments: Experiments,
    trends: Sequence[str],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write the page at `path`, with the parameters that shape results; the figures are linked relative to it.

    trends: a sentence each. notes: name of a figure or table -> what to add to the text of its section.
    """
    links = {figure.stem: figure.relative_to(path.parent).as_posix() for figure in figures}
    here = f"Here: {experiments.setup.describe()}."
    sections = []
    for heading, text, table, figure in ABOUT:
        if table in tables or figure in links:
            added = (notes or {}).get(figure or table, "")
            mixed = experiments.note(EXPERIMENTS_IN.get(table or figure, ()))
            sections.append(
                Section(
                    heading,
                    " ".join(filter(None, [text, added, here, mixed])),
                    tables.get(table),
                    [links[figure]] if figure in links else [],
                )
            )
    found = " ".join(filter(None, [here, experiments.note(["*"])]))
    sections.insert(-1, Section("Trends of the paper, and whether they hold here", found, lines=trends))
    if experiments.left_out:
        text = (
            f"Run with other settings than the default run ({experiments.setup.describe()}), so they are in no table:"
        )
        sections.insert(-1, Section("Experiments that are left out", text, lines=experiments.left_out))
    settings = flat_params(
        {name: values for name, values in asdict(params).items() if name not in {"profile", *WITHOUT_EFFECT}}
    )
    page = render_page(title=f"diffground: profile {params.profile}", sections=sections, settings=settings)
    path.write_text(page, encoding="utf-8")
