"""Where stages read and write, relative to the repository root (the current directory of every stage)."""

from pathlib import Path

PARAMS = Path("params.yaml")

REAL = Path("data/real")
"""Real images, in PASCAL VOC devkit layout; `prepare_data` composes or copies them."""

PROMPTS = {name: Path(f"data/prompts/{name}.jsonl") for name in ("train", "test", "synthesis")}
"""Prompt records of grounding training, Protocol I and the synthetic segmentation set."""

CONTEXTS = Path("data/prompts/contexts.yaml")
"""The bank of contexts that the synthesis prompts were made with, including those that a language model wrote."""

GENERATED = {name: Path(f"data/generated/{name}") for name in ("train", "test")}
"""Shards of images with latents; data.labelled describes the members of a sample."""

ORACLE = {name: Path(f"data/oracle/{name}") for name in ("train", "test")}
"""Shards of masks: the detections."""

INVERTED = {name: Path(f"data/inverted/{name}") for name in ("train", "val")}
"""Shards of real images with label maps and latents; without shards if the parameters ask for none."""

INVERTED_ORACLE = {name: Path(f"data/inverted_oracle/{name}") for name in ("train", "val")}
"""Shards of masks: those of the labels, and the ignored pixels."""

_SIM = (GENERATED["train"], ORACLE["train"])
_REAL = (INVERTED["train"], INVERTED_ORACLE["train"])
GROUNDING_SOURCES = {"sim": [_SIM], "real": [_REAL], "both": [_SIM, _REAL]}
"""grounding.training_data -> pairs of folders (images, masks) to train on."""

SYNTHETIC = Path("data/synthetic")
"""Shards of images with label maps."""

PSEUDO = Path("data/pseudo")
"""Shards of real images with label maps of the baseline From Text to Mask, if the parameters ask for any."""

TEST_REVIEWS = Path("review/test")
"""PROFILE.csv: manual verdicts on the profile's test set; `diffground studio` writes them."""

SYNTHETIC_REVIEWS = Path("review/synthetic")
"""PROFILE.csv: manual verdicts on the profile's synthetic samples; `diffground studio` writes them."""

GROUNDING_MODEL = Path("models/grounding")

SHIPPED = Path("models/mini")
"""Committed models; below it `grounding` and `segmenter`, those of the committed reproduction."""

SEGMENTERS = Path("models/segmenter")
"""One folder per training set, with its name."""

UNFINISHED = Path("models/unfinished")
"""STAGE/NAME: states of trainings that have not ended. They are no outputs, because DVC would delete these before
the stage resumes."""

METRICS = Path("reports/metrics")
EXPERIMENTS = Path("reports/experiments")
"""One JSON per finished experiment of conf/experiment; `diffground experiments collect` writes them."""
BENCHMARKS = Path("reports/benchmarks")
"""NAME.json and NAME.md per script of the folder benchmarks."""
TABLES = Path("reports/tables")
FIGURES = Path("reports/figures")


def metrics_file(stage: str) -> Path:
    return METRICS / f"{stage}.json"
