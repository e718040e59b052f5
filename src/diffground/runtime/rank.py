"""Which of several processes of one training this is, by the variables that torch.distributed reads."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Whether this process writes, logs and shows progress; of several, one does."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Whether torch.distributed connects this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
