from dataclasses import replace
from pathlib import Path

import pytest

from diffground.config import load_params
from diffground.errors import UserError
from diffground.profile import compose_params
from diffground.tracking import REPRODUCTION_TAG, absolute_store, start_run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the module: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def params(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    path = tmp_path / "params.yaml"
    path.write_text(compose_params("smoke", conf=CONF, overrides=[f"tracking.uri='{store}'"]))
    loaded = load_params(path)
    # an experiment each, so that tests do not see each other's runs
    return replace(loaded, tracking=replace(loaded.tracking, experiment=tmp_path.name))


def runs_of(params, stage=None):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=params.tracking.uri)
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id])
    return client, [run for run in runs if run.data.tags.get("diffground.stage") == stage]


def test_stages_of_one_reproduction_share_a_parent_that_holds_the_parameters(params):
    for stage in ("generate", "detect"):
        with start_run(stage, params) as run:
            run.log_metrics({"num_images": 3})
    _, parents = runs_of(params)
    _, children = runs_of(params, "detect")
    assert [len(parents), len(children)] == [1, 1]
    assert children[0].data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert children[0].data.metrics == {"num_images": 3.0}
    assert parents[0].data.params["generator.num_steps"] == str(params.generator.num_steps)
    assert parents[0].info.status == children[0].info.status == "FINISHED"


def test_other_parameters_are_another_reproduction_and_another_device_is_not(params):
    with start_run("generate", params):
        pass
    with start_run("generate", replace(params, runtime=replace(params.runtime, num_threads=7))):
        pass
    assert len(runs_of(params)[1]) == 1
    with start_run("generate", replace(params, generator=replace(params.generator, num_steps=9))):
        pass
    digests = {run.data.tags[REPRODUCTION_TAG] for run in runs_of(params)[1]}
    assert len(digests) == 2


def test_artifacts_lie_beside_the_store_wherever_the_stage_runs(params, tmp_path, store):
    (tmp_path / "table.csv").write_text("x\n")
    with start_run("report", params) as run:
        run.log_artifact(Path("table.csv"))
    folder = Path(store.removeprefix("sqlite:///")).parent
    assert [path.name for path in folder.glob(f"mlruns/{run.run_id}/artifacts/*")] == ["table.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "table.csv"]


def test_logs_curves_parameters_files_and_folders(params, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"png")
    (tmp_path / "table.csv").write_text("x\n")
    with start_run("report", params) as run:
        for step in range(3):
            run.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
        run.log_params({f"p{i}": i for i in range(150)})
        run.log_artifact(Path("table.csv"))
        run.log_artifact(Path("figures"), folder="figures")
    client, (logged,) = runs_of(params, "report")
    assert [point.step for point in client.get_metric_history(logged.info.run_id, "loss")] == [0, 1, 2]
    assert len(logged.data.params) == 150
    assert [file.path for file in client.list_artifacts(logged.info.run_id, "figures")] == ["figures/a.png"]
    assert "table.csv" in [file.path for file in client.list_artifacts(logged.info.run_id)]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stage_that_stops_is_marked_and_its_error_passes_through(params, error, status):
    with pytest.raises(error), start_run("detect", params):
        raise error
    assert runs_of(params, "detect")[1][0].info.status == status


def test_switched_off_it_writes_nothing(params, tmp_path):
    before = sorted(tmp_path.iterdir())
    with start_run("generate", replace(params, tracking=replace(params.tracking, enabled=False))) as run:
        run.log_metrics({"x": 1.0})
        run.log_params({"y": 2})
        run.log_artifact(Path("missing"))
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_that_does_not_open_is_one_line(params):
    tracking = replace(params.tracking, uri="sqlite:////proc/no/such/folder/mlflow.db")
    expected = r"tracking\.uri: cannot log to .*tracking\.enabled"
    with pytest.raises(UserError, match=expected) as caught, start_run("generate", replace(params, tracking=tracking)):
        pass
    assert "\n" not in str(caught.value)


def test_the_environment_goes_before_the_parameter(params, monkeypatch, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with start_run("generate", replace(params, tracking=replace(params.tracking, uri="sqlite:////proc/none.db"))):
        pass
    assert len(runs_of(params, "generate")[1]) == 1


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:////repository/mlflow.db"),
        ("sqlite:///logs/mlflow.db?timeout=9", "sqlite:////repository/logs/mlflow.db?timeout=9"),
        ("sqlite+pysqlite:///mlflow.db", "sqlite+pysqlite:////repository/mlflow.db"),
        ("mlruns", "/repository/mlruns"),
        ("./mlruns", "/repository/mlruns"),
        ("file:mlruns", "file:///repository/mlruns"),
        ("file:./my%20runs", "file:///repository/my%20runs"),
        *[
            (uri, uri)
            for uri in (
                "", "http://localhost:5000", "https://example.org/mlflow", "postgresql://user@host:5432/mlflow",
                "databricks", "databricks://profile", "sqlite:////data/mlflow.db", "sqlite:///:memory:", "sqlite://",
                "/data/mlruns", "file:///data/mlruns", "file:/data/mlruns",
            )
        ],
    ],
)  # fmt: skip
def test_a_relative_store_lies_in_the_repository_and_any_other_stays(uri, expected):
    assert absolute_store(uri, root=Path("/repository")) == expected


def test_two_folders_log_to_the_store_that_a_relative_address_names(params, tmp_path, monkeypatch, store):
    root = Path(store.removeprefix("sqlite:///")).parent
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", absolute_store("sqlite:///mlflow.db", root=root))
        with start_run(name, params):
            pass
    assert len(runs_of(params, "one")[1]) == len(runs_of(params, "two")[1]) == 1
    assert not list(tmp_path.rglob("mlflow.db"))
