"""Read by MLflow: a copy of this file lies next to every logged model."""

from mlflow.models import ModelConfig, set_model

from diffground.tracking.served import MODELS

set_model(MODELS[ModelConfig().get("model")]())
