"""The whole DAG on profile smoke: it runs, then has nothing to do, and a killed run ends like an undisturbed one."""

import base64
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from io import BytesIO

import pytest
import yaml
from PIL import Image

from tests.pipeline.conftest import HAS_PREFECT, smoke_repository
from tests.pipeline.documented_runs import BLOCKS, COMMANDS, need_a_reproduction, results_of
from tests.pipeline.flow_runs import artifacts, final_states, log_lines
from tests.scratch import ScratchRepository

METHODS = ("grounding", "daam")
GROUPS = ("one_seen", "one_unseen", "two_seen", "two_seen_unseen", "two_unseen")


def read(repository, name):
    return json.loads((repository.root / "reports" / "metrics" / f"{name}.json").read_text())


def outputs(repository):
    """Path -> hash of every output in dvc.lock."""
    stages = yaml.safe_load((repository.root / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def test_every_stage_runs_and_locks_its_outputs(reproduced):
    stages = yaml.safe_load((reproduced.root / "dvc.yaml").read_text())["stages"]
    locked = yaml.safe_load((reproduced.root / "dvc.lock").read_text())["stages"]
    assert sorted(locked) == sorted(stages)
    declared = {
        path
        for stage in stages.values()
        for key in ("outs", "metrics")
        for entry in stage.get(key, [])
        for path in (entry if isinstance(entry, dict) else [entry])
    }
    assert len(declared) > 10
    assert set(outputs(reproduced)) == declared


def test_a_second_run_does_nothing(reproduced):
    before = (reproduced.root / "dvc.lock").read_bytes()
    output = reproduced.run("diffground", "reproduce")
    assert "Data and pipelines are up to date" in output
    assert "Running stage" not in output
    assert (reproduced.root / "dvc.lock").read_bytes() == before
    assert "mIoU of grounded masks, %: one seen " in output
    assert "models: models/grounding, models/segmenter" in output
    assert f"report: {(reproduced.root / 'reports/index.html').as_uri()}\n" in output
    assert "runs, side by side: http://127.0.0.1:5000/#/compare-runs?runs=" in output


def test_metrics_have_the_names_that_others_rely_on(reproduced):
    protocol1 = read(reproduced, "evaluate_grounding")
    assert set(GROUPS) <= set(protocol1["num_images"])
    for method in METHODS:
        assert set(protocol1[method]) == set(GROUPS)
        scores = [score for score in protocol1[method].values() if score is not None]
        assert all(0 <= score <= 100 for score in scores)
    real = protocol1["real_images"]
    for method in ("grounding", "foreground_only"):
        assert set(real[method]) == {"seen", "unseen", "harmonic"}
        assert real["per_category"][method]
    assert real["num_images"]["all"] == read(reproduced, "invert_real")["val"]["num_images"] == 6
    pseudo = read(reproduced, "text2mask")
    assert pseudo["num_images"] > 0
    assert "threshold" in pseudo
    zs3 = read(reproduced, "evaluate_zs3")
    assert set(zs3["text2mask_labels"]) >= {"seen", "unseen", "harmonic", "undecided_frac"}
    assert 0 <= zs3["text2mask_labels"]["seen"] <= 100
    for name in ("synthetic", "real_seen_only", "text2mask", "real_all"):
        assert set(zs3[name]) == {"seen", "unseen", "harmonic"}
        assert set(zs3["with_background"][name]) >= {"seen", "unseen", "harmonic"}
        assert zs3["per_category"][name]


def test_grounding_is_trained_on_generated_and_on_real_images(reproduced):
    num_samples = read(reproduced, "train_grounding")["num_samples"]
    num_real = read(reproduced, "invert_real")["train"]["num_images"]
    assert num_real > 10, "more than one shard"
    assert num_samples == read(reproduced, "detect")["train"]["num_images"] + num_real


def test_the_report_is_complete(reproduced):
    reports = reproduced.root / "reports"
    assert {p.name for p in (reports / "tables").iterdir()} >= {
        f"{name}.{kind}" for name in ("protocol1", "zs3", "real_images") for kind in ("md", "csv")
    }
    figures = {p.name for p in (reports / "figures").iterdir()}
    assert figures >= {"protocol1.png", "zs3.png", "loss.png", "masks.png", "real.png", "readme.png"}
    page = (reports / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(figures - {"masks.png", "real.png", "readme.png"})
    assert page.count("data:image/webp;base64,") >= 3 and "figures/" not in page


def test_mlflow_holds_one_parent_and_a_finished_run_of_every_stage(reproduced):
    stages = yaml.safe_load((reproduced.root / "dvc.yaml").read_text())["stages"]
    with sqlite3.connect(reproduced.root / "mlflow.db") as store:
        tags = store.execute("select run_uuid, value from tags where key = 'diffground.stage'").fetchall()
        parents = store.execute("select distinct value from tags where key = 'mlflow.parentRunId'").fetchall()
        statuses = store.execute("select distinct status from runs").fetchall()
        report = next(run for run, stage in tags if stage == "report")
        keys = {key for (key,) in store.execute("select distinct key from metrics where run_uuid = ?", (report,))}
        aliases = store.execute("select name, alias from registered_model_aliases").fetchall()
        of_parent = {key for (key,) in store.execute("select key from metrics where run_uuid = ?", parents[0])}
    assert sorted(stage for _, stage in tags) == sorted(stages)
    assert len(parents) == 1
    assert statuses == [("FINISHED",)]
    assert {"evaluate_zs3/synthetic/seen", "evaluate_grounding/grounding/one_seen"} <= keys & of_parent
    for alias in ("champion", "champion-smoke"):
        assert {("diffground-segmenter", alias), ("diffground-grounding", alias)} <= set(aliases)
    assert not list((reproduced.root / ".mlflow-journal").glob("*/entries.jsonl"))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory, components):
    """Another repository, from nothing, without tracking, whose sharded stages are killed once each."""
    return smoke_repository(
        tmp_path_factory.mktemp("disturbed"), components=components, overrides=["tracking.enabled=false"]
    )


def kill_after_first_shard(repository, stage, folder):
    """Start `dvc repro STAGE`, kill its whole process group once a shard is there; return shards and their times.

    The stages before it run first, as far as their outputs are missing.
    """
    process = repository.start("dvc", "repro", stage)
    while process.poll() is None and not list(folder.glob("*.tar")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"ended before it could be killed:\n{output[-3000:]}"
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}


@pytest.mark.parametrize(
    ("stage", "folder", "locked"),
    [
        ("generate", "data/generated/train", "data/generated/test"),
        ("detect", "data/oracle/train", "data/oracle/test"),
        ("invert_real", "data/inverted/train", "data/inverted/val"),
        ("synthesize", "data/synthetic", "data/synthetic"),
    ],
)
def test_a_killed_stage_goes_on_and_leaves_finished_shards_untouched(disturbed, reproduced, stage, folder, locked):
    finished = kill_after_first_shard(disturbed, stage, disturbed.root / folder)
    assert finished
    disturbed.run("dvc", "repro", stage)
    assert len(list((disturbed.root / folder).glob("*.tar"))) > len(finished)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for path in (folder, locked):
        assert outputs(disturbed)[path] == outputs(reproduced)[path]


def test_two_runs_from_nothing_end_in_the_same_hashes(disturbed, reproduced):
    disturbed.run("dvc", "repro")
    assert outputs(disturbed) == outputs(reproduced)


@pytest.fixture(scope="module")
def stages(reproduced):
    """Names of the stages; skips where no flow ran them."""
    if not HAS_PREFECT:
        pytest.skip("Prefect is not installed")
    return list(yaml.safe_load((reproduced.root / "dvc.yaml").read_text())["stages"])


def test_the_flow_runs_every_stage_as_a_task(reproduced, stages):
    assert final_states(reproduced.output) == dict.fromkeys(stages, "Completed")


def test_lines_of_a_stage_are_in_prefects_log(reproduced, stages):
    lines = log_lines(reproduced, "generate")
    assert lines[:2] == ["Running stage 'generate':", "> python stages/generate.py"]
    assert [line for line in lines if line.startswith("generate train: 24/24")]


def test_every_stage_leaves_a_page_with_metrics_picture_and_run(reproduced, stages):
    with sqlite3.connect(reproduced.root / "mlflow.db") as store:
        runs = dict(store.execute("select value, run_uuid from tags where key = 'diffground.stage'").fetchall())
    pages = artifacts(reproduced)
    assert set(pages) == {stage.replace("_", "-") for stage in stages}
    for stage in stages:
        page = pages[stage.replace("_", "-")]
        assert page.startswith(f"# {stage}\n\nMLflow run `{runs[stage]}` in `sqlite:///mlflow.db`\n\n")
        measured = (reproduced.root / f"reports/metrics/{stage}.json").is_file()
        assert (f"| | {stage} |\n| --- | ---: |\n" in page) == measured
        pictures = re.findall(r"!\[outputs of (\w+)\]\(data:image/jpeg;base64,([^)]+)\)", page)
        assert [name for name, _ in pictures] == ([] if stage == "sample_prompts" else [stage]), page[-300:]
        for _, content in pictures:
            picture = Image.open(BytesIO(base64.b64decode(content, validate=True)))
            assert picture.format == "JPEG" and picture.width <= 1200
            assert max(high - low for low, high in picture.getextrema()) > 100, "nothing is to be seen"


def test_the_pages_show_the_metrics_that_are_no_detail(reproduced, stages):
    pages = artifacts(reproduced)
    assert f"| train/num_images | {read(reproduced, 'detect')['train']['num_images']} |" in pages["detect"]
    seen = read(reproduced, "evaluate_zs3")["synthetic"]["seen"]
    assert f"| synthetic/seen | {seen:g} |" in pages["evaluate-zs3"]
    assert "per_category" not in pages["evaluate-zs3"]
    assert f"| final_loss | {read(reproduced, 'train_grounding')['final_loss']:g} |" in pages["train-grounding"]


def test_a_second_run_of_the_flow_reports_every_stage_up_to_date(reproduced, stages):
    lock, start_s = (reproduced.root / "dvc.lock").read_bytes(), time.monotonic()
    output = reproduced.run("python", "-m", "flows", "reproduce", "--profile", "smoke")
    print(f"the second run took {time.monotonic() - start_s:.0f} s")
    assert final_states(output) == dict.fromkeys(stages, "UpToDate")
    assert "Running stage" not in output
    assert (reproduced.root / "dvc.lock").read_bytes() == lock


@pytest.fixture(scope="module")
def documented(reproduced, tmp_path_factory):
    """Results of the documented commands and Python blocks, in a copy whose last commit is the reproduction."""
    root = tmp_path_factory.mktemp("documented") / "copy"
    shutil.copytree(reproduced.root, root, symlinks=True)
    repository = ScratchRepository(root, python_path=root / "src")
    repository.commit("reproduced")
    return results_of(repository, reproduced=True)


@pytest.mark.parametrize("text", need_a_reproduction([*COMMANDS, *BLOCKS.values()], needed=True))
def test_what_the_documentation_shows_runs_after_a_reproduction(documented, text):
    assert documented[text] == ""
