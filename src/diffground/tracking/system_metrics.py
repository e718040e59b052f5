"""Processor, memory, disk, network and GPU while a stage runs, by MLflow's own monitors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from diffground.tracking.store import first_line

_DEFAULT_INTERVAL_S = 10.0


@contextmanager
def system_metrics(log: Callable[..., None]) -> Iterator[None]:
    """Call `log(values, step=…)` every MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL seconds (10), and once at the end.

    Does nothing where psutil is missing or MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false. MLflow's own
    SystemMetricsMonitor needs the id of a run on a server that answers, and stops for good at its first failure.
    """
    monitors = _monitors()
    stopping = threading.Event()

    def watch() -> None:
        step, stopped = 0, False
        while not stopped:
            stopped = stopping.wait(interval_s)
            log(_sample(monitors), step=step)
            step += 1

    interval_s = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or _DEFAULT_INTERVAL_S)
    thread = threading.Thread(target=watch, name="system-metrics", daemon=True)
    if monitors:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        if monitors:
            thread.join()


def _monitors() -> list[Any]:
    if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
        return []
    try:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with suppress(Exception):  # no GPU, no driver, or no nvidia-ml-py: each raises something else
            monitors.append(GPUMonitor())
        _sample(monitors)  # what a monitor sees first is of the time before
    except Exception as error:  # no psutil, no such counters here: no reason to end a stage
        print(f"warning: no system metrics: {first_line(error)}", file=sys.stderr)
        return []
    return monitors


def _sample(monitors: list[Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= {f"system/{key}": value for key, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return values
