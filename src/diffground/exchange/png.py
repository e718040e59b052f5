"""Folders of images and label maps, and a table of the labels."""

from __future__ import annotations

import csv
import io

from diffground.data.palette import VOC_PALETTE
from diffground.data.shards import encode_label
from diffground.exchange.folder import write_once
from diffground.exchange.plan import Plan
from diffground.exchange.samples import ExportSample
from diffground.exchange.target import Format


class PngFormat(Format):
    """See target.Format."""

    def add(self, sample: ExportSample) -> None:
        name = f"{sample.split}/{sample.key}.png"
        write_once(self._root / "images" / name, lambda: sample.image_png)
        write_once(self._root / "masks" / name, lambda: encode_label(sample.label))

    def finish(self, plan: Plan) -> None:
        rows = {0: "background", **self._target.categories.labels, 255: "ignored"}
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("label", "name", "colour"))
        table.writerows((label, name, colour_of(label)) for label, name in rows.items())
        write_once(self._root / "categories.csv", lambda: text.getvalue().encode())


def colour_of(label: int) -> str:
    """ "#rrggbb" of the VOC palette."""
    return "#" + "".join(f"{value:02x}" for value in VOC_PALETTE[label].tolist())
