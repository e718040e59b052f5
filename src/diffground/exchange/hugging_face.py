"""A folder that `datasets.load_dataset` opens: parquet files, and their features in the card's front matter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from diffground.atomic import atomic_file
from diffground.data.shards import encode_label
from diffground.errors import UserError
from diffground.exchange.samples import Categories, ExportSample
from diffground.exchange.target import Format, Target

_ROWS_PER_GROUP = 64


class HuggingFaceFormat(Format):
    """See target.Format. A parquet file holds the samples of one shard and split."""

    def __init__(self, target: Target) -> None:
        """Raises: UserError where pyarrow is not installed."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError:
            raise UserError("--format hf needs 'pyarrow'; run pip install 'diffground[hf]'") from None
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        super().__init__(target)
        self._rows: dict[str, list[dict[str, Any]]] = {}
        features = _features(target.categories)
        types = [(name, self._type_of(feature)) for name, feature in features.items()]
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pyarrow.schema(types, metadata=metadata)

    def _type_of(self, feature: Mapping[str, Any]) -> Any:
        """The parquet type of a feature."""
        if feature["_type"] == "Image":
            return self._arrow.struct([("bytes", self._arrow.binary()), ("path", self._arrow.string())])
        if feature["_type"] == "List":
            return self._arrow.list_(self._arrow.int64())
        return self._arrow.type_for_alias(feature["dtype"])

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


def front_matter(target: Target) -> str:
    """The YAML block that opens README.md."""
    features = [{"name": name, **_in_card(feature)} for name, feature in _features(target.categories).items()]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in target.splits]
    about = {
        "task_categories": ["image-segmentation"],
        "tags": ["synthetic"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features},
    }
    return f"---\n{yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}---\n\n"


def _features(categories: Categories) -> dict[str, Any]:
    """As `datasets` writes them to a parquet file, so that a single file is readable without the card.

    Class i is label i.
    """
    names = ["background", *categories.names]
    return {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"_type": "Image"},
        "prompt": {"dtype": "string", "_type": "Value"},
        "categories": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"},
        "seed": {"dtype": "int64", "_type": "Value"},
        "quality": {"dtype": "float64", "_type": "Value"},
    }


def _in_card(feature: Mapping[str, Any]) -> dict[str, Any]:
    """The same feature as the card's front matter names it."""
    if feature["_type"] == "List":
        return {
            "list": {"class_label": {"names": {str(i): name for i, name in enumerate(feature["feature"]["names"])}}}
        }
    return {"dtype": feature.get("dtype", "image")}
