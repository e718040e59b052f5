"""Load a logged model without running code of its folder; mlflow.pyfunc.load_model runs any code that it finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffground.errors import UserError
from diffground.tracking.store import first_line, import_mlflow

_FROM_CODE = "mlflow.pyfunc.loaders.code_model"
_FILES = {"model.safetensors", "config.json", "README.md"}


def load_model(uri: str, *, tracking_uri: str | None = None, model_config: Mapping[str, Any] | None = None) -> Any:
    """The model at `uri`, e.g. "models:/diffground-segmenter@champion", or in a folder; it has `predict`.

    Only its weights and settings are read. The code that runs is that of this package, see tracking/served.py.

    tracking_uri: the store; None for MLflow's own setting. model_config: overrides what was logged, e.g. 'generator'.
    Raises: UserError, one line, when it is missing or was not logged by this package.
    """
    import_mlflow()
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import PythonModelContext

    from diffground.tracking.served import MODELS

    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        raise UserError(f"{uri}: no such model: {first_line(error)}") from None
    try:
        flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
        loader, config, artifacts = flavor["loader_module"], flavor.get("config") or {}, flavor.get("artifacts") or {}
        registered, place = config.get("model", ""), folder / artifacts.get("model", {}).get("path", "")
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise UserError(f"{uri}: no MLflow model of this package (MLmodel is missing or cannot be read)") from None
    if loader != _FROM_CODE or registered not in MODELS:
        raise UserError(f"{uri}: not a model from code; loading it would run a pickle, so it is refused")
    inside = place.is_dir() and place.resolve().is_relative_to(folder.resolve())
    if not inside or not {path.name for path in place.iterdir()} <= _FILES:
        raise UserError(f"{uri}: holds other files than a model folder of this package ({', '.join(sorted(_FILES))})")
    model = MODELS[registered]()
    model.load_context(PythonModelContext({"model": str(place)}, {**config, **(model_config or {})}))
    return model
