"""Processor, memory, disk, network and GPU while a stage runs, by MLflow's own monitors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from diffground.tracking.store import first_line

Log = Callable[[Mapping[str, float], int], None]
"""Takes metrics and their step."""

_DEFAULT_INTERVAL_S = 10.0


class SystemMetrics(threading.Thread):
    """Logs a point every MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL seconds (10), and one at the end.

    MLflow's SystemMetricsMonitor would send them to the server itself, past the journal.
    """

    def __init__(self, log: Log, monitors: list[Any]) -> None:
        super().__init__(name="system-metrics", daemon=True)
        self._log, self._monitors = log, monitors
        self._stopping = threading.Event()
        self._interval_s = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or _DEFAULT_INTERVAL_S)

    @classmethod
    def begin(cls, log: Log) -> SystemMetrics | None:
        """Start; None where psutil is missing or MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false."""
        if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
            return None
        try:
            from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
            from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
            from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

            metrics = cls(log, [CPUMonitor(), DiskMonitor(), NetworkMonitor(), *_gpu_monitors()])
            metrics._sample()  # what a monitor sees first is of the time before
        except Exception as error:  # no psutil, no such counters here: no reason to end a stage
            print(f"warning: no system metrics: {first_line(error)}", file=sys.stderr)
            return None
        metrics.start()
        return metrics

    def run(self) -> None:
        step = 0
        while True:
            stopping = self._stopping.wait(self._interval_s)
            self._log(self._sample(), step)
            step += 1
            if stopping:
                return

    def finish(self) -> None:
        self._stopping.set()
        self.join()

    def _sample(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= {f"system/{key}": value for key, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return values


def _gpu_monitors() -> list[Any]:
    try:
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        return [GPUMonitor()]
    except Exception:  # no GPU, no driver, or no nvidia-ml-py: each says so in its own way
        return []
