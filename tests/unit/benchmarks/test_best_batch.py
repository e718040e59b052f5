"""The search for the batch size, against costs worked by hand."""

import time

import pytest
import torch

from benchmarks._best_batch import best_of, search_batches


def search(seconds, *, max_batch=64, budget_s=60.0):
    """`seconds` by batch size; a size that is not in it does not fit into memory."""

    def cost(batch):
        if batch not in seconds:
            raise torch.OutOfMemoryError("too large")
        return seconds[batch]

    return search_batches(cost, max_batch=max_batch, deadline_s=time.monotonic() + budget_s)


@pytest.mark.parametrize(
    ("seconds", "max_batch", "rates", "ended_by"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4, {1: 1, 2: 2, 4: 4}, "largest size"),
        ({1: 1.0, 2: 1.0}, 64, {1: 1, 2: 2}, "memory"),
        ({}, 64, {}, "memory"),
        # 8 images take twice as long as 4: 4 images per second either way
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 2.0, 16: 1.0}, 64, {1: 1, 2: 2, 4: 4, 8: 4}, "no gain"),
    ],
    ids=["all fit", "two fit", "none fits", "no gain"],
)
def test_the_search_doubles_until_memory_ends_or_nothing_is_gained(seconds, max_batch, rates, ended_by):
    assert search(seconds, max_batch=max_batch) == (rates, ended_by)


def test_after_the_deadline_only_one_image_is_tried():
    assert search({1: 1.0, 2: 1.0}, budget_s=-1) == ({1: 1}, "time")


def test_a_size_that_gains_less_than_three_percent_is_not_worth_its_memory():
    assert best_of({1: 1.0, 2: 1.9, 4: 1.95}) == 2
    assert best_of({1: 1.0, 2: 1.9, 4: 1.96}) == 4
    assert best_of({1: 1.0}) == 1
