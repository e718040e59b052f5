"""What one thread finishes while the next item is computed: order, errors, and how much is held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffground.data.shard_map import map_shards, shard_jobs
from diffground.data.shards import Sample
from diffground.runtime.overlap import finish_in_background

DEADLINE_S = 60


def test_results_come_in_order() -> None:
    def finish(item: int) -> int:
        time.sleep(0.02 if item % 2 else 0.0)
        return item * item

    assert list(finish_in_background(range(9), finish)) == [i * i for i in range(9)]
    assert list(finish_in_background([], finish)) == []


def test_an_item_is_finished_while_the_next_one_is_computed() -> None:
    finishing, computing = threading.Event(), threading.Event()

    def compute() -> Iterator[int]:
        yield 0
        assert finishing.wait(DEADLINE_S)
        computing.set()
        yield 1

    def finish(item: int) -> bool:
        finishing.set()
        return computing.wait(DEADLINE_S)

    assert list(finish_in_background(compute(), finish)) == [True, True]


def test_no_third_item_is_computed_before_the_first_is_finished() -> None:
    events: list[str] = []

    def compute() -> Iterator[int]:
        for item in range(4):
            events.append(f"computed {item}")
            yield item

    def finish(item: int) -> int:
        time.sleep(0.05)
        events.append(f"finished {item}")
        return item

    assert len(list(finish_in_background(compute(), finish))) == 4
    for item in range(2):
        assert events.index(f"finished {item}") < events.index(f"computed {item + 2}")


def test_errors_of_both_sides_are_raised() -> None:
    def compute() -> Iterator[int]:
        yield 1
        yield 0
        raise AssertionError("computed on after an error")

    with pytest.raises(ZeroDivisionError):
        list(finish_in_background(iter([0, 1]), lambda item: 1 // item))
    with pytest.raises(AssertionError, match="computed on"):
        list(finish_in_background(compute(), lambda item: item))


def test_a_consumer_that_stops_ends_the_thread() -> None:
    before = threading.active_count()
    found = finish_in_background(range(100), lambda item: item)
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before


def test_an_error_in_the_thread_ends_the_stage_and_leaves_no_shard(tmp_path: Path) -> None:
    def encode(item: int) -> Sample:
        if item == 3:
            raise OSError(28, "No space left on device")
        return Sample(key=f"s{item}", members={"a.txt": b"a"})

    with pytest.raises(OSError, match="No space left"):
        map_shards(
            shard_jobs(range(6), shard_size=2),
            out_dir=tmp_path,
            fingerprint={},
            process=lambda items: finish_in_background(items, encode),
            description="test",
            num_samples=6,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.tar", "fingerprint.json"]
