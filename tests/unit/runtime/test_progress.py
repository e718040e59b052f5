"""What a long loop writes to a log."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from diffground.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless it is set."""
    clock = SimpleNamespace(now_s=1000.0)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr("diffground.runtime.progress.time", clock)
    return clock


def test_the_time_left_is_not_estimated_from_the_first_step(clock, capsys) -> None:
    with Progress(1200, description="train") as progress:
        clock.now_s += 33  # loading, and the first step
        progress.advance()
        assert capsys.readouterr().err == "train: 1/1200, 33 s each, 00:33 spent, ? left\n"
        for _ in range(20):
            clock.now_s += 2
            progress.advance()
        # 15 steps after the first in 30 s
        assert capsys.readouterr().err == "train: 16/1200, 0.3/s, 01:03 spent, 39:28 left\n"


def test_workers_that_end_their_first_items_together_give_no_estimate(clock, capsys) -> None:
    with Progress(400, description="generate", initial=8) as progress:
        clock.now_s += 29.5
        progress.advance(4)
        clock.now_s += 0.5
        progress.advance(4)
        assert capsys.readouterr().err == "generate: 16/400, 0.3/s, 00:30 spent, ? left\n"


def test_the_end_is_reported_with_nothing_left(clock, capsys) -> None:
    with Progress(2, description="detect") as progress:
        clock.now_s += 4
        progress.advance(2)
    assert capsys.readouterr().err == "detect: 2/2, 0.5/s, 00:04 spent, 00:00 left\n"
