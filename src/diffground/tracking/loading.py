"""Load a logged model without running what somebody else wrote: mlflow.pyfunc.load_model runs whatever it finds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from diffground.errors import UserError
from diffground.tracking.models import SCRIPTS
from diffground.tracking.store import first_line, import_mlflow

_FROM_CODE = "mlflow.pyfunc.loaders.code_model"
_KEYS = {
    "artifacts", "cloudpickle_version", "code", "config", "env", "loader_module", "model_code_path", "python_version",
    "streamable",
}  # fmt: skip
"""Of the flavour's settings. Others name a pickle (`python_model`), or a folder with settings of its own (`data`)."""
_FILES = {"model.safetensors", "config.json", "README.md"}


def load_model(uri: str, *, tracking_uri: str | None = None, model_config: Mapping[str, Any] | None = None) -> Any:
    """The mlflow.pyfunc model at `uri`, e.g. "models:/diffground-segmenter@champion", or a folder.

    tracking_uri: the store; without it MLflow's own setting. model_config: overrides what was logged, e.g. 'generator'.
    Raises: UserError, one line, when it is not there or not one that this package logged.
    """
    import_mlflow()
    import mlflow
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
    from mlflow.exceptions import MlflowException

    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        raise UserError(f"{uri}: no such model: {first_line(error)}") from None
    check_is_ours(folder, name=uri)
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION.set(False)
    with _without_compiled_code():
        return mlflow.pyfunc.load_model(
            str(folder), suppress_warnings=True, model_config=dict(model_config) if model_config else None
        )


@contextmanager
def _without_compiled_code() -> Iterator[None]:
    """Have Python compile what it imports: a .pyc in a model's __pycache__ need not be of the script beside it."""
    prefix = sys.pycache_prefix
    with tempfile.TemporaryDirectory() as empty:
        sys.pycache_prefix = empty
        try:
            yield
        finally:
            sys.pycache_prefix = prefix


def check_is_ours(folder: Path, *, name: str) -> None:
    """Raises: UserError unless the folder's only code is this package's, and its data a model folder of ours."""
    try:
        meta = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        conf = meta["flavors"]["python_function"]
        loader, flavors = conf["loader_module"], set(meta["flavors"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise UserError(f"{name}: no MLflow model of this package (MLmodel is missing or another's)") from None
    if loader != _FROM_CODE or conf.get("code") or not set(conf) <= _KEYS or flavors != {"python_function"}:
        raise UserError(f"{name}: not a model from code; loading it would run a pickle, so it is refused")
    script = folder / Path(str(conf.get("model_code_path"))).name
    if not script.is_file() or script.read_bytes() not in {path.read_bytes() for path in SCRIPTS.values()}:
        raise UserError(
            f"{name}: its code is not that of this version of diffground; if you trust whoever logged it, load it with "
            "mlflow.pyfunc.load_model"
        )
    artifacts = conf.get("artifacts") or {}
    place = folder / str(artifacts.get("model", {}).get("path", ""))
    inside = place.is_dir() and place.resolve().is_relative_to(folder.resolve())
    if set(artifacts) != {"model"} or not inside or not {path.name for path in place.iterdir()} <= _FILES:
        raise UserError(f"{name}: holds other files than a model folder of this package ({', '.join(sorted(_FILES))})")
