"""Stages as Prefect tasks, on a real server and a real DVC project."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from diffground.errors import InfrastructureError, UserError

prefect = pytest.importorskip("prefect")

from flows.gpus import LIMIT, gpu_slot, visible_gpus  # noqa: E402
from flows.pipeline import read_pipeline  # noqa: E402
from flows.places import ROOT  # noqa: E402
from flows.stage_task import StageProgress, artifact_key, run_stages  # noqa: E402
from tests.flows.test_process import alive  # noqa: E402

pytestmark = [pytest.mark.usefixtures("prefect_server")]
DEADLINE_S = 120


@pytest.fixture(autouse=True)
def _nothing_is_logged_in_mlflow(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")


@prefect.flow(name="stages of a test", persist_result=False)
def run_all(root, retries):
    run_stages(read_pipeline(root), read_pipeline(root).stages, retries=retries, retry_delay_s=0)
    return prefect.context.FlowRunContext.get().flow_run.id


def task_runs(run_id):
    """Name -> (state name, number of tries) of the tasks of a flow run; waits until the server has recorded them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    deadline = time.monotonic() + DEADLINE_S
    while True:
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        if len(runs) == 3 and all(run.state is not None and run.state.is_final() for run in runs):
            return {run.name: (run.state_name, run.run_count) for run in runs}
        assert time.monotonic() < deadline, [(run.name, run.state_name) for run in runs]
        time.sleep(0.2)


def test_each_stage_is_a_task_and_a_second_run_starts_no_process(project):
    first = run_all(project.root, 0)
    assert sorted(project.ran()) == ["aside", "make", "use"]
    assert project.ran().index("make") < project.ran().index("use")
    assert {state for state, _ in task_runs(first).values()} == {"Completed"}
    lock = (project.root / "dvc.lock").stat().st_mtime_ns

    second = run_all(project.root, 0)
    assert len(project.ran()) == 3
    assert task_runs(second) == dict.fromkeys(("make", "use", "aside"), ("UpToDate", 1))
    assert (project.root / "dvc.lock").stat().st_mtime_ns == lock


def test_what_follows_on_a_stage_that_ran_is_looked_at_and_the_rest_is_not(project):
    project.dvc("repro", "--quiet")
    project.wish("0", "0")
    assert {name: state for name, (state, _) in task_runs(run_all(project.root, 0)).items()} == {
        "make": "Completed",
        "use": "UpToDate",  # DVC looked: make wrote the same as before
        "aside": "UpToDate",
    }
    assert project.ran() == ["make"]


def test_a_lost_worker_is_tried_again(project):
    project.wish("75", "kill", "0")
    assert task_runs(run_all(project.root, 2))["make"] == ("Completed", 3)
    assert project.ran().count("make") == 3


def test_tries_end(project):
    project.wish("75")
    with pytest.raises(InfrastructureError, match=r"^stage 'make' ended with exit code 75"):
        run_all(project.root, 1)
    assert project.ran().count("make") == 2


@pytest.mark.parametrize("wish", ["1", "2"])
def test_a_bad_parameter_and_a_bug_are_not_tried_again(project, wish):
    project.wish(wish)
    with pytest.raises(UserError, match=rf"^stage 'make' ended with exit code {wish}: .+") as caught:
        run_all(project.root, 2)
    assert not isinstance(caught.value, InfrastructureError)
    assert project.ran().count("make") == 1
    assert "use" not in project.ran()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_nothing_running_and_dvc_goes_on(project, number):
    project.wish("sleep", "0")
    script = project.root / "run.py"
    script.write_text(
        "from pathlib import Path\n"
        "from prefect import flow\n"
        "from flows.pipeline import read_pipeline\n"
        "from flows.stage_task import run_stages\n"
        "@flow\n"
        "def run_all():\n"
        "    pipeline = read_pipeline(Path(__file__).parent)\n"
        "    run_stages(pipeline, pipeline.stages, retries=2, retry_delay_s=0)\n"
        "run_all()\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    settings = prefect.settings.get_current_settings().to_environment_variables(exclude_unset=True)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**env, **settings},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background has it ignored
    )
    pids = project.root / "pids"
    deadline = time.monotonic() + DEADLINE_S
    while not (pids.is_file() and len(pids.read_text().split()) == 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(DEADLINE_S) != 0
    assert (project.root / "interrupted").exists(), "the stage had the time to end by itself"
    assert [pid for pid in map(int, pids.read_text().split()) if alive(pid)] == []
    project.dvc("repro", "--quiet")
    assert project.ran().count("make") == 2
    assert (project.root / "used").is_file()


def test_progress_lines_become_an_artifact(prefect_server):
    from prefect.artifacts import Artifact

    @prefect.flow
    def progress():
        reader = StageProgress("generate")
        reader.read("generate train: 24/24, 6.0/s, 00:03 spent, 00:00 left")  # nothing to wait for
        reader.read("generate test: 5/20, 6.0/s, 00:03 spent, 00:02 left")
        reader.read("generate test: 15/20, 6.0/s, 00:03 spent, 00:02 left")
        reader.read("error: 3/4 of it is wrong")

    progress()
    assert Artifact.get("progress-generate-generate-test").data == 75
    assert Artifact.get("progress-generate-generate-train") is None


@pytest.mark.parametrize(
    ("chosen", "gpus"), [("0,1", ["0", "1"]), (" 3 , GPU-8a1b", ["3", "GPU-8a1b"]), ("", []), ("-1", []), ("0,", ["0"])]
)
def test_gpus_are_those_that_cuda_would_see(monkeypatch, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == gpus


@pytest.fixture
def limit():
    """Sets the number of GPU slots."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate

    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        yield lambda num: client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=num))
        client.delete_global_concurrency_limit_by_name(LIMIT)


def in_threads(work, names):
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)


def test_no_more_hold_a_gpu_slot_than_there_are(limit):
    inside, together, met = set(), [], []

    def hold(name):
        with gpu_slot(needed=True):
            inside.add(name)
            time.sleep(0.5)
            together.append(len(inside))
            inside.remove(name)

    in_threads(hold, range(3))
    assert together == [1, 1, 1]

    both = threading.Barrier(2)

    def meet(name):
        with gpu_slot(needed=True), gpu_slot(needed=False):
            both.wait(DEADLINE_S)
            met.append(name)

    limit(2)
    in_threads(meet, "ab")
    assert sorted(met) == ["a", "b"]


def test_keys_are_those_that_prefect_takes():
    assert artifact_key("invert_real") == "invert-real"
    assert artifact_key("progress X invert val: masks ") == "progress-x-invert-val-masks"
