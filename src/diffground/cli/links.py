"""Links to what a reproduction made: the report, the runs side by side, Prefect's deployments."""

from __future__ import annotations

import os

from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.config import TrackingConfig
from diffground.tracking import newest_page, without_password

MLFLOW_UI = "http://127.0.0.1:5000"
PREFECT_UI = "http://127.0.0.1:4200"
"""Where `mlflow ui` and `python -m flows up` listen without further options."""


def report_link() -> str:
    """The file:// address of the report."""
    return (paths.TABLES.parent / "index.html").resolve().as_uri()


def links(tracking: TrackingConfig) -> list[str]:
    """Lines "what: address", each with the command that starts the server of that address, where it needs one."""
    lines = [f"report: {report_link()}"]
    if tracking.enabled:
        lines += _runs(tracking)
    return [*lines, f"deployments: {PREFECT_UI}/deployments (after `python -m flows up`)"]


def _runs(tracking: TrackingConfig) -> list[str]:
    uri = without_password(os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri)
    try:
        page = newest_page(tracking)
    except UserError as error:
        return [f"runs: {error}"]
    if uri.startswith("http"):
        return [f"runs, side by side: {uri.rstrip('/')}{page}"]
    command = f"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri {uri}"
    return [f"runs, side by side: {MLFLOW_UI}{page}", f"  after `{command}`"]
