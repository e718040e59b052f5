"""Batches that do not fit into memory become smaller, and nothing else changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from work_for_workers import memory_limit

from diffground.errors import InfrastructureError, UserError
from diffground.runtime import batches
from diffground.runtime.batches import in_batches, naming_what_to_lower
from diffground.runtime.memory import forget_peak, limit_memory, peak_bytes
from diffground.runtime.workers import Workers
from tests.unit.runtime.little_memory import run_out_on_a_cpu, run_out_on_a_gpu

CPU = torch.device("cpu")
MIB = 2**20
SAMPLE_BYTES = 48 * MIB


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if nothing had run in this process."""
    monkeypatch.setattr(batches, "_ROOMS", {})
    yield
    limit_memory(0, CPU)


def run_out_in_numpy() -> None:
    np.ones(2**50)


class Squares:
    """Has room for `largest` numbers; `asked` are the batches that it was given."""

    def __init__(self, largest: int, run_out: Callable[[], None] = run_out_on_a_cpu) -> None:
        self.largest, self.run_out = largest, run_out
        self.asked: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.asked.append(list(items))
        if len(items) > self.largest:
            self.run_out()
        return [item * item for item in items]


def through(compute: Callable[[Sequence[int]], list[int]], num: int, *, batch_size: int) -> list[int]:
    found = in_batches(
        range(num), compute, batch_size=batch_size, setting="generator.batch_size", lower="generator.image_size"
    )
    return [value for batch, values in found for _, value in zip(batch, values, strict=True)]


@pytest.mark.parametrize("run_out", [run_out_on_a_cpu, run_out_on_a_gpu, run_out_in_numpy])
def test_a_batch_that_does_not_fit_is_halved_and_every_result_comes_once_and_in_order(
    run_out: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    squares = Squares(3, run_out)
    assert through(squares, 11, batch_size=8) == [i * i for i in range(11)]
    assert [len(asked) for asked in squares.asked] == [8, 4, 2, 2, 2, 2, 2, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("generator.batch_size: out of memory (")
    assert first.endswith("; 4 samples at once from now on, instead of 8")
    assert second.endswith("; 2 samples at once from now on, instead of 4")
    assert "\n" not in first


def test_the_smaller_batch_stays_for_the_rest_of_the_process_and_for_its_setting_only() -> None:
    through(Squares(2), 4, batch_size=4)
    again = Squares(2)
    through(again, 4, batch_size=4)
    assert [len(asked) for asked in again.asked] == [2, 2]
    other = Squares(9)
    list(in_batches(range(4), other, batch_size=4, setting="detector.batch_size", lower=""))
    assert [len(asked) for asked in other.asked] == [4]


def test_batches_that_fit_are_those_that_were_asked_for() -> None:
    squares = Squares(100)
    assert through(squares, 7, batch_size=3) == [i * i for i in range(7)]
    assert squares.asked == [[0, 1, 2], [3, 4, 5], [6]]
    assert through(squares, 0, batch_size=3) == []


@pytest.mark.parametrize("run_out", [run_out_on_a_cpu, run_out_on_a_gpu])
def test_a_batch_of_one_that_does_not_fit_is_one_line_that_says_what_to_lower(run_out: Callable[[], None]) -> None:
    with pytest.raises(InfrastructureError) as raised:
        through(Squares(0, run_out), 4, batch_size=2)
    message = str(raised.value)
    assert message.startswith("generator.batch_size: no memory left for one sample: ")
    assert message.endswith("; lower generator.image_size")
    assert "\n" not in message


def test_another_error_passes_through_and_nothing_is_halved() -> None:
    def divide(items: Sequence[int]) -> list[int]:
        return [1 // item for item in items]

    with pytest.raises(ZeroDivisionError):
        through(divide, 4, batch_size=4)
    squares = Squares(4)
    through(squares, 4, batch_size=4)
    assert [len(asked) for asked in squares.asked] == [4]


def test_what_the_failed_batch_allocated_is_free_before_the_smaller_one() -> None:
    held: list[int] = []

    def compute(items: Sequence[int]) -> list[int]:
        values = torch.ones(len(items) * SAMPLE_BYTES // 4)
        forget_peak()
        held.append(peak_bytes())
        if len(items) > 1:
            run_out_on_a_cpu()
        return [int(values[0])] * len(items)

    assert through(compute, 2, batch_size=8) == [1, 1]
    assert held[1] < held[0] - SAMPLE_BYTES / 2


def test_a_training_says_in_one_line_what_to_lower() -> None:
    expected = r"^train_grounding: no memory left: .*; lower grounding\.batch_size$"
    with (
        pytest.raises(InfrastructureError, match=expected),
        naming_what_to_lower("train_grounding", "grounding.batch_size"),
    ):
        run_out_on_a_gpu()
    with pytest.raises(ZeroDivisionError), naming_what_to_lower("train_grounding", "grounding.batch_size"):
        _ = 1 / 0


class Memory:
    """Takes `bytes_of(item)` for each of its items, and reports the sizes of its batches."""

    def __init__(self, bytes_of: Callable[[int], int] = lambda item: SAMPLE_BYTES) -> None:
        self.bytes_of = bytes_of
        self.sizes: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.sizes.append(len(items))
        taken = [torch.ones(self.bytes_of(item) // 4) for item in items]
        return [len(values) for values in taken]


def limit_to(num_samples: float) -> int:
    """Room for so many samples on top of what the process has now; the limit in bytes."""
    forget_peak()
    limit = int(peak_bytes() + num_samples * SAMPLE_BYTES)
    limit_memory(limit / 2**30, CPU)
    return limit


def test_a_limit_on_the_cpu_cuts_batches_to_what_fits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limit = limit_to(5.5)
    memory = Memory()
    assert len(through(memory, 30, batch_size=16)) == 30
    assert memory.sizes[:2] == [1, 2]
    # 5 fit; what else the process holds or frees meanwhile moves this by some, so that a batch may be halved once
    assert all(2 <= size <= 7 for size in memory.sizes[2:-1])
    assert peak_bytes() <= limit
    fitted, *halved = [record.getMessage() for record in caplog.records]
    assert fitted.startswith("generator.batch_size: at most ")
    assert "runtime.max_memory_gib" in fitted
    assert len(halved) <= 1
    assert all("more than runtime.max_memory_gib" in line for line in halved)


def test_a_limit_with_room_for_all_changes_only_the_first_two_batches() -> None:
    limit_memory(1000, CPU)
    memory = Memory()
    through(memory, 12, batch_size=4)
    assert memory.sizes == [1, 2, 4, 4, 1]


def test_later_samples_that_take_more_than_the_first_ones_halve_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    limit_to(8.5)
    memory = Memory(lambda item: SAMPLE_BYTES * (1 if item < 8 else 4))
    assert len(through(memory, 24, batch_size=4)) == 24
    assert memory.sizes[:3] == [1, 2, 4]
    assert max(memory.sizes[-4:]) <= 2
    assert "more than runtime.max_memory_gib" in caplog.text


def test_a_limit_that_one_sample_exceeds_is_an_error_with_both_numbers() -> None:
    limit_memory(0.01, CPU)
    with pytest.raises(UserError) as raised:
        through(Memory(), 4, batch_size=4)
    message = str(raised.value)
    assert message.startswith("runtime.max_memory_gib is 0.01, but the process takes ")
    assert message.endswith("(generator.batch_size); raise it, or lower generator.image_size")


def test_what_grows_besides_the_batches_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    limit_to(2.5)
    kept = []

    def keep(items: Sequence[int]) -> list[int]:
        kept.extend(torch.ones(SAMPLE_BYTES // 4) for _ in items)
        return list(items)

    assert through(keep, 6, batch_size=1) == list(range(6))
    [line] = [record.getMessage() for record in caplog.records]
    assert line.endswith("it does not limit what is kept besides the batch")


def test_workers_have_the_limit_too() -> None:
    with Workers(num_workers=2, max_memory_gib=3.0) as workers:
        assert list(workers.map(memory_limit, [0, 1])) == [3 * 2**30] * 2


def test_on_a_gpu_torch_has_the_limit_as_a_share_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[float, int | None]] = []
    properties = type("Properties", (), {"total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, index: calls.append((share, index))
    )
    limit_memory(0, torch.device("cuda"))
    assert calls == []
    limit_memory(20, torch.device("cuda", 1))
    limit_memory(100, torch.device("cuda"))
    assert calls == [(0.25, 1), (1.0, None)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_limit_halves_batches() -> None:
    device = torch.device("cuda", 0)
    torch.cuda.empty_cache()
    try:
        limit_memory(torch.cuda.memory_reserved(device) / 2**30 + 1.1, device)
        found = in_batches(
            range(8),
            lambda items: torch.ones(len(items) * 2**27, device=device).numel(),  # 0.5 GiB for each
            batch_size=8,
            setting="generator.batch_size",
            lower="",
        )
        assert [len(batch) for batch, _ in found] == [2, 2, 2, 2]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
