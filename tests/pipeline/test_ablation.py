"""`python -m flows ablate` without a server: two runs at a time, a GPU each, one table, one comparison in MLflow."""

import json
import re
import sqlite3
import time
from urllib.parse import parse_qs

import psutil
import pytest

from tests.pipeline.conftest import smoke_repository
from tests.pipeline.flow_runs import artifacts

pytest.importorskip("prefect")

pytestmark = pytest.mark.slow

# two at a time and one after them; no value is the default; tests/flows/test_ablate.py combines several of each key
MATRIX = ("--matrix", "prompts.num_train_one=13,14,15", "--matrix", "prompts.test_per_category=3")
TRAIN, TEST = (f"sample_prompts/{name}/num_prompts/one_seen" for name in ("train", "test"))
STAGE = "stages/sample_prompts.py"
POLL_S = 0.3


@pytest.fixture(scope="module")
def ablated(tmp_path_factory, components):
    """A repository after the ablation, on what looks like two GPUs; its output, and who saw which of them."""
    repository = smoke_repository(
        tmp_path_factory.mktemp("ablated"), components=components, overrides=["tracking.enabled=false"]
    )
    repository.run("dvc", "repro", "sample_prompts")
    repository.commit("the default run")
    process = repository.start(
        "python",
        "-m",
        "flows",
        "ablate",
        "--profile",
        "smoke",
        *MATRIX,
        "--target",
        "sample_prompts",
        "--num-parallel",
        "2",
        "--retries",
        "0",
        CUDA_VISIBLE_DEVICES="0,1",
    )
    repository.gpus = watch_gpus(process)
    repository.output, _ = process.communicate()
    assert process.returncode == 0, repository.output[-6000:]
    return repository


def watch_gpus(process):
    """What CUDA_VISIBLE_DEVICES is in runs at the same time, a set of tuples, and what it is in any of their stages."""
    together, of_stages = set(), set()
    while process.poll() is None:
        of_runs = {}
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                command, gpu = child.cmdline(), child.environ().get("CUDA_VISIBLE_DEVICES")
            except psutil.Error:  # it has just ended
                continue
            if "flows.variant" in command:
                of_runs[tuple(command[-2:])] = gpu
            elif STAGE in command:
                of_stages.add(gpu)
        together.add(tuple(sorted(of_runs.values())))
        time.sleep(POLL_S)
    return together, of_stages


def test_runs_at_the_same_time_see_a_gpu_each(ablated):
    together, of_stages = ablated.gpus
    assert ("0", "1") in together
    assert together <= {(), ("0",), ("1",), ("0", "1")}
    assert of_stages and of_stages <= {"0", "1"}


def test_no_run_is_in_the_way_of_another(ablated):
    assert ablated.output.count("smoke: finished") == 3
    assert not re.findall(r"(?i)unable to acquire|is locked|is away|traceback|exit code", ablated.output)
    assert ablated.run("git", "status", "--porcelain") == ""


def test_one_table_tells_the_runs_apart(ablated):
    page = artifacts(ablated)["ablation"]
    for key in ("**prompts.num_train_one**", TRAIN):
        assert f"| {key} | 13 | 14 | 15 |" in page.splitlines()
    assert "**prompts.test_per_category**" not in page and TEST not in page, "they are the same in all"


def test_mlflow_compares_the_three_runs(ablated):
    page = artifacts(ablated)["ablation"]
    (query,) = re.findall(r"`/#/compare-runs\?([^`\s]+)`", page)
    ids = {key: json.loads(value) for key, (value,) in parse_qs(query, strict_parsing=True).items()}
    with sqlite3.connect(ablated.root / "mlflow.db") as store:
        experiments = dict(store.execute("select run_uuid, experiment_id from runs where status = 'FINISHED'"))
        names = dict(store.execute("select run_uuid, value from tags where key = 'dvc.experiment'"))
        parents = store.execute("select value from tags where key = 'mlflow.parentRunId'").fetchall()
        scores = [
            dict(store.execute("select run_uuid, value from metrics where key = ?", (key,))) for key in (TRAIN, TEST)
        ]
    assert sorted(ids["runs"]) == sorted(run for (run,) in parents), "each has the run of its one stage below it"
    assert [tuple(score[run] for score in scores) for run in ids["runs"]] == [(13, 9), (14, 9), (15, 9)]
    assert {str(experiments[run]) for run in ids["runs"]} == set(ids["experiments"])
    assert all(f"| {names[run]} | `{run}` |" in page.splitlines() for run in ids["runs"])
