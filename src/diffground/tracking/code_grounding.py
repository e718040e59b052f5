"""Read by MLflow: a copy of this file lies beside every logged grounding module."""

from mlflow.models import set_model

from diffground.tracking.served import GroundingModel

set_model(GroundingModel())
