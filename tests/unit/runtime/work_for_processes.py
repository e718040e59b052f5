"""What the processes of test_processes.py do. They import it by this name, see conftest.py."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from diffground.errors import UserError
from diffground.runtime.rank import is_main_process


def rank():
    return int(os.environ["RANK"])


def add_up(folder):
    dist.init_process_group("gloo")
    value = torch.tensor([rank() + 1.0])
    dist.all_reduce(value)
    print(f"process {rank()} is the main one: {is_main_process()}", flush=True)
    print("to stderr", file=sys.stderr)
    (Path(folder) / str(rank())).write_text(str(value.item()))


def fail_alone(kind):
    """The last process fails; the first waits for it in vain."""
    dist.init_process_group("gloo")
    if rank() == 1:
        time.sleep(0.5)
        if kind == "user":
            raise UserError("data/synthetic: no shards")
        if kind == "bug":
            raise ZeroDivisionError("1 / 0")
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.zeros(1))


def fail_together():
    raise UserError("data/synthetic: no shards")


def wait_forever(folder):
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(600)
