"""MLflow tracking: one parent run per reproduction, one child run per stage. The only package that imports mlflow."""

from diffground.tracking.delivery import REPRODUCTION_TAG
from diffground.tracking.loading import load_model
from diffground.tracking.lookup import find_reproductions, find_run, reproduction_metrics
from diffground.tracking.models import benchmark_of, grounding_entry, segmenter_entry
from diffground.tracking.pages import comparison_page, newest_page, run_page
from diffground.tracking.run import TrackingRun, start_run
from diffground.tracking.store import absolute_store, without_password
from diffground.tracking.sync import sync_journal

__all__ = [
    "REPRODUCTION_TAG",
    "TrackingRun",
    "absolute_store",
    "benchmark_of",
    "comparison_page",
    "find_reproductions",
    "find_run",
    "grounding_entry",
    "load_model",
    "newest_page",
    "reproduction_metrics",
    "run_page",
    "segmenter_entry",
    "start_run",
    "sync_journal",
    "without_password",
]
