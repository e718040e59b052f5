"""Processor, memory, disk, network and GPU while a stage runs, by MLflow's own monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_UNUSED_SERVER = "http://127.0.0.1:9"


class Monitor(SystemMetricsMonitor):
    """Calls `log(values, step=…)` every MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL seconds (10), and once at the end.

    MLflow's own loop needs a run on a server that answers, and stops at its first failure.
    """

    def __init__(self, log: Callable[..., None]) -> None:
        super().__init__(run_id="", tracking_uri=_UNUSED_SERVER)  # a client of it is made, and never called
        self._log = log
        self.collect_metrics()  # a counter that this machine lacks is an error here, not in the thread

    def monitor(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._shutdown_event.wait(self.sampling_interval)
            self.collect_metrics()
            self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: dict[str, Any]) -> None:
        self._log({f"system/{key}": value for key, value in metrics.items()}, step=self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()
