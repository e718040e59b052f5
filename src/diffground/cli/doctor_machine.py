"""Checks of `diffground doctor` on the machine: versions, devices, memory, disk, extras, ports."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from diffground import __version__
from diffground.cli.findings import Check, Finding, is_clone, is_installed
from diffground.entry_point import PIPELINE_PACKAGES
from diffground.errors import UserError
from diffground.interface.results import check_out_folder
from diffground.reproduction import paths

_GIB = 2**30
_LEAST_MEMORY_GIB = 2.0
_LEAST_DISK_GIB, _GOOD_DISK_GIB = 1.0, 5.0
"""Profile mini writes about one GiB of data and models."""
_CORE = ("torch", "diffusers", "transformers", "torchvision", "accelerate", "pycocotools", "safetensors")
_EXTRAS = {
    "studio": ("gradio",),
    "flows": ("prefect", "fastapi"),
    "ray": ("ray",),
    "s3": ("dvc_s3",),
    "hf": ("pyarrow",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}
"""Optional extra -> its modules; the extra `pipeline` is what the stages need."""
_PORTS = {
    4200: ("Prefect's server of `python -m flows up`", "stop what uses it, or give `up` another --port"),
    5000: ("MLflow's UI", "stop what uses it, or give `mlflow ui` another --port, `up` another --mlflow-port"),
}


def versions() -> Iterator[Finding]:
    is_new = sys.version_info >= (3, 11)
    fix = "" if is_new else "install Python 3.11 or newer"
    yield Finding("ok" if is_new else "fail", "python", f"{platform.python_version()}, {sys.executable}", fix)
    yield Finding("ok", "diffground", f"{__version__}, {Path(__file__).parents[1]}")
    for name in _CORE:
        try:
            found = version(name) if is_installed(name) else ""
        except PackageNotFoundError:
            found = "of unknown version"
        if found:
            yield Finding("ok", name, found)
        else:
            yield Finding("fail", name, "not installed", "run `pip install diffground`")


def extras() -> Iterator[Finding]:
    missing = sorted(name for name in PIPELINE_PACKAGES if not is_installed(name))
    if missing:
        yield Finding(
            "fail", "extra pipeline", f"{', '.join(missing)} missing", "run `pip install 'diffground[pipeline]'`"
        )
    else:
        yield Finding("ok", "extra pipeline", "installed")
    backend = _runtime_setting("backend")
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if not is_installed(name)]
        if not missing:
            yield Finding("ok", f"extra {extra}", "installed")
        elif extra == backend:
            fix = f"run `pip install 'diffground[{extra}]'`, or `diffground profile NAME runtime=local`"
            yield Finding("fail", f"extra {extra}", "not installed, but runtime.backend needs it", fix)
        else:
            yield Finding("ok", f"extra {extra}", f"not installed, optional: `pip install 'diffground[{extra}]'`")


def processors() -> Iterator[Finding]:
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = _runtime_setting("num_threads")
    if isinstance(threads, int) and threads > num_cores:
        fix = f"set runtime.num_threads={num_cores}: more threads than cores are much slower"
        yield Finding("warn", "cores", f"{num_cores}, runtime.num_threads is {threads}", fix)
    else:
        yield Finding("ok", "cores", f"{num_cores}{f', runtime.num_threads is {threads}' if threads else ''}")
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > num_cores:
        yield Finding(
            "warn", "load", f"{busy:.1f} on {num_cores} cores", "end other programs: they slow training down a lot"
        )


def devices() -> Iterator[Finding]:
    wanted = _runtime_setting("device")
    if not is_installed("torch"):
        yield Finding("warn", "devices", "not checked, torch is not installed")
        return
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for i in range(num_gpus):
        properties = torch.cuda.get_device_properties(i)
        yield Finding("ok", f"device cuda:{i}", f"{properties.name}, {properties.total_memory / _GIB:.1f} GiB")
    if not num_gpus:
        yield Finding("ok", "devices", "cpu only; the profiles paper_… need a GPU")
    if isinstance(wanted, str) and wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= num_gpus:
        found = f"runtime.device is '{wanted}', but torch sees {num_gpus} GPUs"
        yield Finding("fail", "device", found, "set runtime.device=auto")


def memory() -> Iterator[Finding]:
    import psutil

    whole = psutil.virtual_memory()
    total, free = whole.total / _GIB, whole.available / _GIB
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text().strip() if limit.is_file() else ""
    limited = f", this container may use {int(text) / _GIB:.1f} GiB" if text.isdigit() else ""
    usable = min(free, int(text) / _GIB) if text.isdigit() else free
    is_enough = usable >= _LEAST_MEMORY_GIB
    fix = "" if is_enough else "end other programs, or lower runtime.num_workers and the batch sizes"
    yield Finding("ok" if is_enough else "warn", "memory", f"{free:.1f} of {total:.1f} GiB free{limited}", fix)


def disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path()).free / _GIB
    status = "ok" if free >= _GOOD_DISK_GIB else "warn" if free >= _LEAST_DISK_GIB else "fail"
    yield Finding(status, "disk", f"{free:.1f} GiB free here", "" if status == "ok" else "free some space")
    try:
        check_out_folder(Path())
    except UserError:
        fix = "make the folder writable, or work in another one"
        yield Finding("fail" if is_clone(Path()) else "warn", "write access", f"{Path().resolve()} is read-only", fix)
    else:
        yield Finding("ok", "write access", str(Path().resolve()))


def ports() -> Iterator[Finding]:
    for port, (what, fix) in _PORTS.items():
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            reason = error.strerror or str(error)
            yield Finding("warn", f"port {port}", f"{reason}; {what} may run already", fix)
        else:
            yield Finding("ok", f"port {port}", f"free for {what}")


def _runtime_setting(name: str) -> object:
    """A value of section `runtime` of params.yaml, read without checks; None where there is none."""
    import yaml

    try:
        return yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8"))["runtime"][name]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


CHECKS: tuple[Check, ...] = (versions, extras, processors, devices, memory, disk, ports)
