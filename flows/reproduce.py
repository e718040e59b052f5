"""The whole method, or a range of its stages, in the order of the DVC graph."""

from __future__ import annotations

import os

from prefect import flow, get_run_logger
from prefect.states import Completed, Failed, State

from diffground.errors import UserError
from diffground.reproduction.commands import check_dvc_is_idle
from flows.choices import PIPELINE, ExperimentName, Profile, Stage
from flows.parameters import set_parameters
from flows.places import ROOT
from flows.stage_task import run_stages


@flow(name="reproduce", persist_result=False)
def reproduce(
    profile: Profile | None = None,
    experiment: ExperimentName | None = None,
    first_stage: Stage | None = None,
    last_stage: Stage | None = None,
    retries: int = 2,
    retry_delay_s: float = 30.0,
) -> State:
    """Runs what is out of date, a task a stage.

    Args:
        profile: What params.yaml is composed for first; none: params.yaml as it is.
        experiment: A row of a table of the paper, on that profile.
        first_stage: Stages before this one are left as they are.
        last_stage: Where to stop; only what it needs runs.
        retries: Further tries after a lost worker or where memory ran out; other errors are not tried again.
        retry_delay_s: Seconds between two tries.
    """
    os.chdir(ROOT)
    try:
        check_dvc_is_idle(ROOT)
        set_parameters(profile, experiment, on_line=get_run_logger().info)
        stages = PIPELINE.between(first_stage, last_stage)
        run_stages(PIPELINE, stages, retries=retries, retry_delay_s=retry_delay_s)
    except UserError as error:
        return Failed(message=str(error))
    return Completed(message=f"{len(stages)} stages are up to date")
