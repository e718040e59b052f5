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
    """Runs the stages that are out of date, one task per stage. The trainings are frozen: they run only if named.

    Args:
        retrain: Frozen stages to run again, if their dependencies have changed; a killed one resumes.
        first_stage: Earlier stages do not run.
        last_stage: Only this stage and those that it needs run.
        retries: Retries after a lost worker or out-of-memory; other errors are not retried.
        retry_delay_s: Seconds before a retry.
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
