import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import diffground
from diffground.errors import UserError
from diffground.tracking import absolute_store, find_run, start_run, sync_journal


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
                "",
                "http://localhost:5000",
                "https://example.org/mlflow",
                "postgresql://user@host:5432/mlflow",
                "databricks",
                "databricks://profile",
                "sqlite:////data/mlflow.db",
                "sqlite:///:memory:",
                "sqlite://",
                "/data/mlruns",
                "file:///data/mlruns",
                "file:/data/mlruns",
            )
        ],
    ],
)
def test_a_relative_store_lies_in_the_repository_and_any_other_stays(uri, expected):
    assert absolute_store(uri, root=Path("/repository")) == expected


def test_two_folders_log_to_the_store_that_a_relative_address_names(params, runs_of, tmp_path, monkeypatch):
    root = Path(params.tracking.uri.removeprefix("sqlite:///")).parent
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", absolute_store("sqlite:///mlflow.db", root=root))
        with start_run(name, params):
            pass
    assert len(runs_of("one")) == len(runs_of("two")) == 1
    assert list(tmp_path.rglob("mlflow.db")) == [root / "mlflow.db"]


def test_the_newest_run_of_a_stage_is_found(params, runs_of):
    assert find_run("generate", params.tracking) is None
    for _ in range(2):
        with start_run("generate", params):
            pass
    newest = max(runs_of("generate"), key=lambda run: run.info.start_time).info
    found = find_run("generate", params.tracking)
    assert found is not None and found.run_id == newest.run_id and found.uri == params.tracking.uri
    assert find_run("generate", params.tracking, since_s=newest.start_time / 1000 + 1) is None
    assert find_run("detect", params.tracking) is None


def test_two_processes_open_a_new_store_at_once(tmp_path):
    script = "from diffground.tracking.store import open_client; open_client('sqlite:///new.db')"
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error[-2000:]


def test_a_database_of_another_mlflow_is_reported_with_the_whole_remedy(params, store, runs_of, caplog):
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        ((current,),) = database.execute("select version_num from alembic_version").fetchall()
        database.execute("update alembic_version set version_num = '0a8213491aaa'")
    with start_run("generate", params):
        pass
    with pytest.raises(UserError) as sync_error:
        sync_journal(Path(".mlflow-journal"), uri=store)
    with pytest.raises(UserError) as lookup_error:
        find_run("generate", params.tracking)
    (warning,) = caplog.messages
    for message in (warning, str(sync_error.value), str(lookup_error.value)):
        assert f"{store} has tables of another version of MLflow" in message
        assert f"`mlflow db upgrade {store}`" in message
        assert "is away" not in message and "\n" not in message
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("update alembic_version set version_num = ?", (current,))
    assert sync_journal(Path(".mlflow-journal"), uri=store).num_delivered == 1
    assert len(runs_of("generate")) == 1
