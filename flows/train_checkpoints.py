"""The trainings that made models/mini: the stages of pretrain/dvc.yaml, hours on two CPU cores."""

from __future__ import annotations

import os
from dataclasses import replace

from prefect import flow
from prefect.states import Completed, Failed, State

from diffground.errors import UserError
from diffground.reproduction.commands import check_dvc_is_idle
from flows.choices import PRETRAINING, Checkpoint
from flows.pipeline import unfrozen
from flows.places import PRETRAIN, ROOT
from flows.stage_task import run_stages


@flow(name="train_checkpoints", persist_result=False)
def train_checkpoints(
    retrain: list[Checkpoint] | None = None,
    first_stage: Checkpoint | None = None,
    last_stage: Checkpoint | None = None,
    retries: int = 2,
    retry_delay_s: float = 30.0,
) -> State:
    """Runs what is out of date, a task a stage. The trainings are frozen: they run only where they are named.

    Args:
        retrain: Frozen stages to run again, if what they depend on has changed; a killed one goes on where it was.
        first_stage: Stages before this one are left as they are.
        last_stage: Where to stop; only what it needs runs.
        retries: Further tries after a lost worker or where memory ran out; other errors are not tried again.
        retry_delay_s: Seconds between two tries.
    """
    os.chdir(ROOT)
    named = list(retrain or [])
    try:
        check_dvc_is_idle(PRETRAIN)
        stages = PRETRAINING.between(first_stage, last_stage)
        with unfrozen(PRETRAIN, [stage for stage in named if stage in PRETRAINING.frozen]):
            pipeline = replace(PRETRAINING, frozen=PRETRAINING.frozen - set(named))
            run_stages(pipeline, stages, retries=retries, retry_delay_s=retry_delay_s)
    except UserError as error:
        return Failed(message=str(error))
    return Completed(message=f"{len(stages)} stages are up to date")
