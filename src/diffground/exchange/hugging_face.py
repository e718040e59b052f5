"""A folder that `datasets.load_dataset` opens: parquet files, and their features in the card's front matter."""

from __future__ import annotations

import json
from typing import Any

import yaml

from diffground.atomic import atomic_file
from diffground.data.shards import encode_label
from diffground.errors import UserError
from diffground.exchange.plan import Plan
from diffground.exchange.samples import Categories, ExportSample
from diffground.exchange.target import About, Target

_ROWS_PER_GROUP = 64


class HuggingFaceFormat:
    """See target.Format. A parquet file holds the samples of one shard and split."""

    about = About(
        layout="""- `data/SPLIT-SHARD.parquet`: `id`, `image` and `label` (PNG without loss), `prompt`, `categories`
  (those that the prompt names), `seed`, `quality` (null where it was not measured).
- `label` has the values of the table: 0 background, 255 ignored. `categories` are class labels with the same numbers;
  class 0 is the background.""",
        example="""import os

import numpy
from datasets import load_dataset

dataset = load_dataset(os.getcwd(), split="{split}")  # or the path of this folder
row = dataset[0]
names = dataset.features["categories"].feature
print(row["prompt"], [names.int2str(label) for label in row["categories"]])
image, label = row["image"], numpy.asarray(row["label"])
""",
    )

    def __init__(self, target: Target) -> None:
        """Raises: UserError where pyarrow is not installed."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError:
            raise UserError("--format hf needs 'pyarrow'; run pip install 'diffground[hf]'") from None
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._root = target.root
        self._rows: dict[str, list[dict[str, Any]]] = {}
        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        types = {
            "id": pyarrow.string(),
            "image": image,
            "label": image,
            "prompt": pyarrow.string(),
            "categories": pyarrow.list_(pyarrow.int64()),
            "seed": pyarrow.int64(),
            "quality": pyarrow.float64(),
        }
        described = {"info": {"features": _features_in_json(target.categories)}}
        self._schema = pyarrow.schema(list(types.items()), metadata={"huggingface": json.dumps(described)})

    def add(self, sample: ExportSample) -> None:
        names = sample.categories.names
        row = {
            "id": sample.key,
            "image": {"bytes": sample.image_png, "path": f"{sample.key}.png"},
            "label": {"bytes": encode_label(sample.label), "path": f"{sample.key}.label.png"},
            "prompt": sample.facts.prompt,
            "categories": [names.index(name) + 1 for name in sample.facts.categories],
            "seed": sample.facts.seed,
            "quality": sample.facts.quality,
        }
        self._rows.setdefault(sample.split, []).append(row)

    def end_shard(self, name: str) -> None:
        for split, rows in self._rows.items():
            path = self._root / "data" / f"{split}-{name}.parquet"
            if path.exists():
                continue
            with atomic_file(path) as partial, self._parquet.ParquetWriter(partial, self._schema) as writer:
                for start in range(0, len(rows), _ROWS_PER_GROUP):
                    group = rows[start : start + _ROWS_PER_GROUP]
                    writer.write_table(self._arrow.Table.from_pylist(group, schema=self._schema))
        self._rows = {}

    def finish(self, plan: Plan) -> None:
        pass


def front_matter(target: Target) -> str:
    """The YAML block that opens README.md."""
    names = {str(i): name for i, name in enumerate(_names(target.categories))}
    features: list[dict[str, Any]] = [
        {"name": "id", "dtype": "string"},
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": "image"},
        {"name": "prompt", "dtype": "string"},
        {"name": "categories", "list": {"class_label": {"names": names}}},
        {"name": "seed", "dtype": "int64"},
        {"name": "quality", "dtype": "float64"},
    ]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in target.splits]
    about = {
        "task_categories": ["image-segmentation"],
        "tags": ["synthetic"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features},
    }
    return f"---\n{yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}---\n\n"


def _features_in_json(categories: Categories) -> dict[str, Any]:
    """As `datasets` writes them to a parquet file, so that a single file is readable without the card."""
    return {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"_type": "Image"},
        "prompt": {"dtype": "string", "_type": "Value"},
        "categories": {"feature": {"names": _names(categories), "_type": "ClassLabel"}, "_type": "List"},
        "seed": {"dtype": "int64", "_type": "Value"},
        "quality": {"dtype": "float64", "_type": "Value"},
    }


def _names(categories: Categories) -> list[str]:
    """Class i is label i."""
    return ["background", *categories.names]
