"""The batch size with the most images per second: doubled until memory ends or nothing is gained."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

MIN_GAIN = 0.03
"""A doubled batch that is not faster by this share ends the search."""


def search_batches(cost: Callable[[int], float], *, max_batch: int, deadline_s: float) -> tuple[dict[int, float], str]:
    """Images per second by batch size, from 1 in doublings up to `max_batch`, and why the search ended.

    cost: seconds for one batch of that size; raises torch.OutOfMemoryError where it does not fit.
    deadline_s: of time.monotonic(); no further size is tried after it, nor where the next one would end after it if it
        took twice as long as the last one.
    Returns also an empty dict, where not even one image fits.
    """
    rates: dict[int, float] = {}
    batch, last_s = 1, 0.0
    while batch <= max_batch:
        start_s = time.monotonic()
        if rates and start_s + 2 * last_s > deadline_s:
            return rates, "time"
        try:
            rate = batch / cost(batch)
        except torch.OutOfMemoryError:
            return rates, "memory"
        last_s = time.monotonic() - start_s
        gains = not rates or rate >= (1 + MIN_GAIN) * max(rates.values())
        rates[batch] = rate
        if not gains:
            return rates, "no gain"
        batch *= 2
    return rates, "largest size"


def best_of(rates: dict[int, float]) -> int:
    """The fastest batch size; of two that are within MIN_GAIN, the smaller one, which needs less memory."""
    fastest = max(rates.values())
    return min(batch for batch, rate in rates.items() if rate * (1 + MIN_GAIN) >= fastest)
