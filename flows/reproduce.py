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
    """Runs the stages that are out of date, one task per stage.

    Args:
        profile: Profile to compose params.yaml for; none: params.yaml as it is.
        experiment: A file of conf/experiment, applied to that profile.
        first_stage: Earlier stages do not run.
        last_stage: Only this stage and those that it needs run.
        retries: Retries after a lost worker or out-of-memory; other errors are not retried.
        retry_delay_s: Seconds before a retry.
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
