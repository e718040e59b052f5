"""The shipped models in a store of their own, each served by a process."""

from dataclasses import replace
from pathlib import Path

import pytest

from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.tracking import grounding_entry, segmenter_entry, start_run
from diffground.tracking.models import GROUNDING, SEGMENTER
from diffground.tracking.store import open_client
from tests.serving.server import ModelServer

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models/mini"


@pytest.fixture(scope="session")
def logged(tmp_path_factory):
    """URI of a store in which both shipped models are champions."""
    here = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DIFFGROUND_JOURNAL", "RANK"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        store = f"sqlite:///{here / 'mlflow.db'}"
        (here / "params.yaml").write_text(
            compose_params("mini", conf=ROOT / "conf", overrides=[f"tracking.uri='{store}'"])
        )
        params = load_params(here / "params.yaml")
        params = replace(params, generator=replace(params.generator, checkpoint=str(MODELS / "diffusion")))
        with start_run("train_maskformer", params) as run:
            run.log_model(segmenter_entry(MODELS / "segmenter", params))
        with start_run("train_grounding", params) as run:
            run.log_model(grounding_entry(MODELS / "grounding", params))
        for name in (SEGMENTER, GROUNDING):
            open_client(store).set_registered_model_alias(name, "champion", "1")
    return store


@pytest.fixture(scope="session")
def servers(logged, tmp_path_factory):
    """Both servers, started at the same time; they start in half a minute."""
    here = tmp_path_factory.mktemp("servers")
    found = {
        name: ModelServer(f"models:/{name}@champion", store=logged, log=here / f"{name}.log", cwd=here)
        for name in (SEGMENTER, GROUNDING)
    }
    try:
        yield {name: server.wait() for name, server in found.items()}
    finally:
        for server in found.values():
            server.stop()


@pytest.fixture(scope="session")
def segmenter(servers):
    return servers[SEGMENTER]


@pytest.fixture(scope="session")
def grounding(servers):
    return servers[GROUNDING]
