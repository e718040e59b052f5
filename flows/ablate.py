"""Experiments in parallel, each in its own clone, and a table of their results."""

from __future__ import annotations

import itertools
import os
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from diffground.errors import UserError
from diffground.experiments.collect import find_records
from diffground.reproduction.catalogue import Experiment, run_name
from diffground.reproduction.commands import check_dvc_is_idle
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import Params, TrackingConfig
from diffground.reproduction.lock_file import read_yaml
from diffground.reproduction.params import build_params
from diffground.tracking import sync_journal
from diffground.tracking.journal import journal_folder
from flows.artifacts import compared_runs, metrics_table, shown
from flows.choices import ExperimentName, Profile, Stage
from flows.gpus import gpu_slot, visible_gpus
from flows.places import ROOT, command_environment
from flows.process import Commands
from flows.stage_task import failure, is_temporary, line_reader
from flows.variant import DEFAULT, variant_command, variant_of


@dataclass(frozen=True)
class Variant:
    """One run of the ablation."""

    base: str
    """File of conf/experiment, or variant.DEFAULT."""
    overrides: tuple[str, ...]
    experiment: Experiment
    """The experiment with the overrides applied."""


@flow(name="ablate", persist_result=False, task_runner=ThreadPoolTaskRunner(max_workers=64))
def ablate(
    profile: Profile,
    experiments: list[ExperimentName] | None = None,
    matrix: dict[str, list[str | int | float | bool]] | None = None,
    target: Stage = "evaluate_zs3",
    num_parallel: int = 1,
    retries: int = 2,
    retry_delay_s: float = 30.0,
) -> State:
    """Runs every experiment with every combination of the matrix, from the last commit, and compares them.

    Args:
        profile: Profile of the experiments.
        experiments: Files of conf/experiment; none: the default run.
        matrix: Parameter -> values, e.g. {"grounding.iterations": [20, 40], "grounding.seed": [0, 1]}.
        target: Last stage of runs without an experiment; an experiment names its own.
        num_parallel: Runs at the same time; with GPUs, each has one of its own.
        retries: Retries after a lost worker or out-of-memory; other errors are not retried.
        retry_delay_s: Seconds before a retry.
    """
    os.chdir(ROOT)
    commands = Commands()
    try:
        check_dvc_is_idle(ROOT)
        variants = plan_variants(profile, experiments or [], matrix or {}, target=target)
        futures = _start_all(variants, profile, commands, num_parallel, retries=retries, retry_delay_s=retry_delay_s)
        failed = [name for name, future in futures.items() if not _completed(future)]
        page = comparison(variants, profile=profile)
    except UserError as error:
        return Failed(message=str(error))
    except BaseException:  # cancelled: the threads of the tasks are not told
        commands.stop()
        raise
    create_markdown_artifact(key="ablation", markdown=page, description=f"Experiments of profile {profile}")
    get_run_logger().info("\n%s", page)
    if failed:
        return Failed(message=f"{len(failed)} of {len(futures)} experiments failed: {', '.join(failed)}")
    return Completed(message=f"{len(futures)} experiments, see the artifact 'ablation'")


def plan_variants(
    profile: str, experiments: Sequence[str], matrix: Mapping[str, Sequence[object]], *, target: str
) -> list[Variant]:
    """Every experiment with every combination. Raises: UserError for one whose parameters do not compose."""
    settings = [[f"{key}={_text(value)}" for value in values] for key, values in matrix.items()]
    variants = [
        Variant(base=base, overrides=combination, experiment=variant_of(base, target, combination))
        for base in (experiments or [DEFAULT])
        for combination in itertools.product(*settings)
    ]
    twice = [name for name in experiments if list(experiments).count(name) > 1]
    if twice:
        raise UserError(f"experiment '{twice[0]}' is named twice")
    for variant in variants:
        compose_params(profile, conf=ROOT / "conf", overrides=variant.experiment.overrides)
    return variants


@task(
    name="experiment",
    task_run_name="{variant.experiment.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=is_temporary,
)
def run_variant(variant: Variant, profile: str, gpu: str | None, commands: Commands) -> None:
    """Run or resume an experiment. gpu: the one it may use; None: all.

    Raises: InfrastructureError if a retry may succeed, else UserError.
    """
    name = variant.experiment.name
    outcome, on_line = line_reader(name)
    env = command_environment() | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    command = variant_command(profile, variant.base, variant.experiment.target, variant.overrides)
    with gpu_slot(needed=gpu is not None):
        code = commands.run(command, cwd=ROOT, env=env, on_line=on_line)
    if code:
        raise failure(f"experiment '{name}'", outcome, code)


def _start_all(
    variants: Sequence[Variant],
    profile: str,
    commands: Commands,
    num_parallel: int,
    *,
    retries: int,
    retry_delay_s: float,
) -> dict[str, PrefectFuture[None]]:
    """Start each when one of `num_parallel` slots is free; with GPUs, there are at most as many slots as GPUs."""
    if num_parallel < 1:
        raise UserError(f"num_parallel must be at least 1, got {num_parallel}")
    gpus = visible_gpus()
    free: queue.Queue[str | None] = queue.Queue()
    for slot in gpus[:num_parallel] if gpus else [None] * num_parallel:
        free.put(slot)
    attempt = run_variant.with_options(retries=retries, retry_delay_seconds=retry_delay_s)
    futures = {}
    for variant in variants:
        slot = free.get()
        future = attempt.submit(variant, profile, slot, commands)
        future.add_done_callback(partial(_free, free, slot))
        futures[variant.experiment.name] = future
    return futures


def _free(free: queue.Queue[str | None], slot: str | None, _: PrefectFuture[None]) -> None:
    free.put(slot)


def _completed(future: PrefectFuture[None]) -> bool:
    future.wait()
    return future.state.is_completed()


def comparison(variants: Sequence[Variant], *, profile: str) -> str:
    """Markdown: one column per finished experiment, with the settings and metrics that differ; then MLflow's comparison
    of their runs."""
    experiments = {run_name(variant.experiment.name, profile): variant.experiment for variant in variants}
    records = find_records(list(experiments.values()), profile=profile, root=ROOT)
    finished = {name: record for name, record in records.items() if record is not None}
    settings = list(dict.fromkeys(key for record in finished.values() for key in record.changed))
    columns: dict[str, dict[str, object]] = {}
    for name, record in finished.items():
        values: dict[str, object] = {f"**{key}**": record.params.get(key) for key in settings}
        for stage, metrics in record.metrics.items():
            values |= {f"{stage}/{key}": value for key, value in shown(metrics).items()}
        columns[experiments[name].name] = values
    missing = [name for name in records if name not in finished]
    note = f"Not finished: {', '.join(missing)}." if missing else ""
    runs = _compared_in_mlflow(list(finished), profile=profile)
    return "\n\n".join(filter(None, ["# Comparison", metrics_table(_differing(columns)), note, runs]))


def _compared_in_mlflow(names: Sequence[str], *, profile: str) -> str:
    composed = read_yaml(compose_params(profile, conf=ROOT / "conf"))
    tracking: TrackingConfig = build_params(composed, Params, source=f"profile '{profile}'").tracking
    try:
        sync_journal(journal_folder(), uri=tracking.uri)  # parallel runs may have blocked each other's delivery
    except UserError as error:
        get_run_logger().warning("%s", error)
    return compared_runs(names, tracking)


def _differing(columns: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """`columns` without the rows that are the same in all of them; a single column stays whole."""
    rows = dict.fromkeys(key for values in columns.values() for key in values)
    kept = [key for key in rows if len(columns) == 1 or len({str(c.get(key)) for c in columns.values()}) > 1]
    return {name: {key: values.get(key) for key in kept} for name, values in columns.items()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
