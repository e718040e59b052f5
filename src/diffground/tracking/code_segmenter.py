"""Read by MLflow: a copy of this file lies beside every logged segmenter."""

from mlflow.models import set_model

from diffground.tracking.served import SegmenterModel

set_model(SegmenterModel())
