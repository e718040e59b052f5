"""Where stages read and write, relative to the repository root (the current directory of every stage)."""

from pathlib import Path

PARAMS = Path("params.yaml")

REAL = Path("data/real")
"""Real images, in PASCAL VOC devkit layout; `prepare_data` composes or copies them."""

PROMPTS = {name: Path(f"data/prompts/{name}.jsonl") for name in ("train", "test", "synthesis")}
"""Prompt records of grounding training, Protocol I and the synthetic segmentation set."""

GENERATED = {name: Path(f"data/generated/{name}") for name in ("train", "test")}
"""Shards: image.png, latent.npy, meta.json."""

ORACLE = {name: Path(f"data/oracle/{name}") for name in ("train", "test")}
"""Shards: mask.<category>.png of what the detector found, meta.json."""

SYNTHETIC = Path("data/synthetic")
"""Shards: image.png, label.png, meta.json."""

GROUNDING_MODEL = Path("models/grounding")

SEGMENTERS = Path("models/segmenter")
"""One folder a training set, with its name."""

METRICS = Path("reports/metrics")
TABLES = Path("reports/tables")
FIGURES = Path("reports/figures")


def metrics_file(stage: str) -> Path:
    return METRICS / f"{stage}.json"
