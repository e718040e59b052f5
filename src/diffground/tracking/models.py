"""Model folders as MLflow models from code and as versions of a registered model; nothing is pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffground
from diffground.reproduction.config import Params
from diffground.tracking.champion import Standing, takes_alias

GROUNDING, SEGMENTER = "diffground-grounding", "diffground-segmenter"
"""Names of the registered models."""
SHA256, PROFILE, COMMIT, STAGE, SCORE, BENCHMARK = (
    f"diffground.{name}" for name in ("sha256", "profile", "commit", "stage", "score", "benchmark")
)
"""Tags of runs and of model versions."""
DVC_EXPERIMENT = "dvc.experiment"
"""Tag of the runs of an experiment, parent and stages: its name."""

_SCRIPT = Path(__file__).with_name("code_model.py")
"""What MLflow copies next to the model folder, and runs to load it."""
# an SQL store does not keep the model_id that a version is created with
_MODEL_ID = "diffground.model_id"


@dataclass(frozen=True)
class ModelEntry:
    """A model folder to log."""

    registered: str
    """GROUNDING or SEGMENTER."""
    folder: Path
    name: str
    """Of the logged model; one run may have several."""
    config: Mapping[str, Any]
    """What it needs in addition to the folder; `load_model(…, model_config=…)` overrides it."""
    tags: Mapping[str, str]


def grounding_entry(folder: Path, params: Params) -> ModelEntry:
    """The grounding module, with the generator it reads; its folder records how images are sampled."""
    p = params.generator
    config = {
        "generator": p.checkpoint,
        "dtype": p.dtype,
        "device": params.runtime.device,
        "mask_threshold": params.grounding.mask_threshold,
    }
    return ModelEntry(GROUNDING, folder, "grounding", config, {"diffground.generator": p.checkpoint})


def segmenter_entry(folder: Path, params: Params) -> ModelEntry:
    """A segmenter; the folder's name is that of its training set."""
    tags = {"diffground.training_set": folder.name}
    return ModelEntry(SEGMENTER, folder, f"segmenter-{folder.name}", {"device": params.runtime.device}, tags)


def benchmark_of(params: Params, *sections: str) -> str:
    """Digest of the parameters that define the benchmark; batch sizes of frozen models change no score."""
    values = {name: {**asdict(getattr(params, name)), "batch_size": None} for name in sections}
    if not values.get("data", {}).get("binary_label", True):
        del values["data"]["binary_label"]  # not set, as before there was this parameter: the same benchmark
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def register_model(client: Any, run_id: str, folder: Path, values: Mapping[str, Any]) -> None:
    """Make a logged model and a version of it, unless this profile has a version with the same weights.

    `values["verdict"]`, if any, become tags of that version; it takes the aliases that it deserves if it `contends`.
    """
    from mlflow.entities import LoggedModelInput

    run = client.get_run(run_id)
    tags = {**values["tags"], PROFILE: run.data.tags[PROFILE], COMMIT: run.data.tags.get(COMMIT, "")}
    values, registered = {**values, "tags": tags}, values["registered"]
    version = _find_version(client, registered, tags)
    if version is None:
        version = _make_version(client, run, _find_or_log(client, run, folder, values), values)
    elif version.run_id != run_id:
        client.log_inputs(run_id, models=[LoggedModelInput(version.tags[_MODEL_ID])])
    if not values["verdict"]:
        return
    tags |= values["verdict"]
    for key, value in tags.items():
        client.set_model_version_tag(registered, version.version, key, value)
    candidate = _standing_of(tags)
    if candidate is None or not values["contends"]:
        return
    held = client.get_registered_model(registered).aliases
    for alias in (f"champion-{candidate.profile}", "champion"):
        holder = client.get_model_version(registered, held[alias]) if alias in held else None
        if holder is None or (
            holder.version != version.version and takes_alias(alias, candidate, _standing_of(holder.tags))
        ):
            client.set_registered_model_alias(registered, alias, version.version)


def save_model(
    path: Path, folder: Path, values: Mapping[str, Any], *, run_id: str | None = None, model_id: str | None = None
) -> None:
    """Write a folder that `mlflow.pyfunc.load_model` reads: our model folder, and a script that loads it."""
    import mlflow.pyfunc
    from mlflow.models import Model

    from diffground.tracking.requests import DEFAULT_LIMITS

    mlflow.pyfunc.save_model(
        path,
        python_model=str(_SCRIPT),
        artifacts={"model": str(folder)},
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
        model_config={**DEFAULT_LIMITS, **values["config"], "model": values["registered"]},
        metadata=dict(values["tags"]),
        pip_requirements=[f"diffground=={diffground.__version__}"],
        signature=_signature(),
        input_example=(_EXAMPLES[values["registered"]], {"format": "rle"}),
    )
    saved = Model.load(str(path))
    flavor = saved.flavors[mlflow.pyfunc.FLAVOR_NAME]
    # paths of this machine, of which MLflow reads only the file's name
    flavor[mlflow.pyfunc.MODEL_CODE_PATH] = _SCRIPT.name
    flavor["artifacts"]["model"]["uri"] = folder.name
    saved.save(str(path / "MLmodel"))


def _find_version(client: Any, registered: str, tags: Mapping[str, str]) -> Any:
    """The version of these weights in this profile; None without one."""
    found = client.search_model_versions(f"name = '{registered}' AND tags.`{SHA256}` = '{tags[SHA256]}'")
    return next((v for v in found if v.tags.get(PROFILE) == tags[PROFILE]), None)


def _find_or_log(client: Any, run: Any, folder: Path, values: Mapping[str, Any]) -> Any:
    """The logged model of these weights in `run`, with all its files."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    found = client.search_logged_models([experiment_id], f"tags.`{SHA256}` = '{values['tags'][SHA256]}'")
    model = next((m for m in found if m.source_run_id == run_id), None) or client.create_logged_model(
        experiment_id, name=values["name"], source_run_id=run_id, tags=values["tags"], model_type="pyfunc"
    )
    if model.status != LoggedModelStatus.READY:
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / "model"
            save_model(path, folder, values, run_id=run_id, model_id=model.model_id)
            client.log_model_artifacts(model.model_id, str(path))
        client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model


def _make_version(client: Any, run: Any, model: Any, values: Mapping[str, Any]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(values["registered"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        values["registered"],
        model.artifact_location,
        run_id=run.info.run_id,
        model_id=model.model_id,
        tags={**values["tags"], _MODEL_ID: model.model_id},
        await_creation_for=0,
    )


def _standing_of(tags: Mapping[str, str]) -> Standing | None:
    """None for a version without a score."""
    if not all(tags.get(key) for key in (PROFILE, BENCHMARK, SCORE)):
        return None
    return Standing(profile=tags[PROFILE], benchmark=tags[BENCHMARK], score=float(tags[SCORE]))


def _signature() -> Any:
    """The parameter of a request. Inputs are checked by requests.py, whose messages are one line, not by MLflow."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec

    return ModelSignature(params=ParamSchema([ParamSpec("format", "string", None)]))


_WHITE_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mP8zwABTAwUMQBJQQEPkWFcdwAAAABJRU5ErkJggg=="
_EXAMPLES: Mapping[str, list[dict[str, Any]]] = {
    SEGMENTER: [{"image": _WHITE_PNG}],
    GROUNDING: [{"prompt": "a photograph of a dog", "categories": ["dog"], "seed": 0}],
}
"""Records of a request over HTTP."""
