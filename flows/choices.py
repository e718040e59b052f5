"""Types of the flows' parameters; the form in Prefect's UI offers their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from flows.pipeline import read_pipeline
from flows.places import PRETRAIN, ROOT

PIPELINE = read_pipeline(ROOT)
PRETRAINING = read_pipeline(PRETRAIN)
PROFILES = tuple(sorted(path.stem for path in (ROOT / "conf/profile").glob("*.yaml")))
EXPERIMENTS = tuple(sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")))

if TYPE_CHECKING:
    Profile = str
    ExperimentName = str
    Stage = str
    Checkpoint = str
else:
    Profile = Literal[PROFILES]
    ExperimentName = Literal[EXPERIMENTS]
    Stage = Literal[PIPELINE.stages]
    Checkpoint = Literal[PRETRAINING.stages]
