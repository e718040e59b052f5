"""What the workers of test_workers.py do. They import it by this name, see conftest.py."""

import os
import signal
import time
from pathlib import Path

import torch

from diffground.data.shards import Sample
from diffground.errors import UserError
from diffground.runtime.memory import max_cpu_bytes


def square(item, advance):
    advance(1)
    return item * item


def describe(item, advance):
    time.sleep(0.2)  # long enough for the other worker to take the next item
    return os.getpid(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()


def slow_first(item, advance):
    time.sleep(1.0 if item == 0 else 0.0)
    return item


def fail(item, advance):
    if item == 1:
        raise UserError("generator.num_steps must be at least 1, got 0")
    time.sleep(120)


def divide(item, advance):
    return 1 / item


def fill_disk(item, advance):
    with Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")


def die(item, advance):
    os.kill(os.getpid(), signal.SIGKILL)


def count_slowly(item, advance):
    for _ in range(item):
        time.sleep(1)
        advance(1)


def square_samples(items):
    for i in items:
        yield Sample(key=f"s-{i:06d}", members={"value.txt": str(i * i).encode() * 100})


class KilledAt:
    """square_samples, but the process is killed before sample `i`, `times` times."""

    def __init__(self, i, *, times, log):
        self.i, self.times, self.log = i, times, log

    def __call__(self, items):
        for sample, i in zip(square_samples(items), items, strict=True):
            killed = self.log.read_text().splitlines() if self.log.exists() else []
            if i == self.i and len(killed) < self.times:
                with self.log.open("a") as file:
                    print(os.getpid(), file=file)
                os.kill(os.getpid(), signal.SIGKILL)
            yield sample


def memory_limit(item, advance):
    return max_cpu_bytes()
