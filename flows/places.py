"""Paths, and the environment of every process that the flows start."""

from __future__ import annotations

from pathlib import Path

from diffground.entry_point import NO_TELEMETRY
from diffground.reproduction.commands import environment_of

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""
PRETRAIN = ROOT / "pretrain"
"""The DVC project that made models/mini."""
HOME = ROOT / ".prefect"
"""Prefect's database and settings, and the state of `python -m flows up`; git ignores it."""
MLFLOW_UI = "DIFFGROUND_MLFLOW_UI"
"""Environment variable: address of MLflow's UI, which artifacts link to."""


def command_environment() -> dict[str, str]:
    """For git, DVC, the stages and servers, see environment_of; their output comes line by line, without telemetry."""
    return {**NO_TELEMETRY, **environment_of(ROOT), "PYTHONUNBUFFERED": "1"}


def prefect_environment(*, api_url: str | None) -> dict[str, str]:
    """Settings of Prefect in this repository: its own home, no telemetry. api_url None: a temporary server."""
    settings = {
        **NO_TELEMETRY,
        "PREFECT_HOME": str(HOME),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }
    if api_url is None:  # a temporary server logs errors about unfinished work when it stops
        settings |= {"PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL"}
    else:
        settings |= {"PREFECT_API_URL": api_url, "PREFECT_SERVER_UI_API_URL": api_url}
        # by default any web page in the browser may call the server, and so run commands
        settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = api_url.removesuffix("/api")
    return settings
