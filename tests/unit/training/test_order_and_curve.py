"""The order of samples and the curve of the loss, which all trainings share."""

from __future__ import annotations

from dataclasses import asdict

import torch

from diffground.training.loop import LOG_EVERY, LossCurve, ShuffledBatches


def test_every_sample_comes_once_before_any_comes_again() -> None:
    batches = ShuffledBatches(5, batch_size=3, generator=torch.Generator().manual_seed(0))
    drawn = [index for _ in range(5) for index in next(batches)]
    assert len(drawn) == 15
    assert [sorted(drawn[start : start + 5]) for start in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3


def test_batches_are_full_even_when_larger_than_the_set() -> None:
    batches = ShuffledBatches(2, batch_size=5, generator=torch.Generator().manual_seed(0))
    assert len(next(batches)) == 5


def test_a_point_of_the_curve_is_the_mean_since_the_point_before() -> None:
    curve = LossCurve()
    iterations = LOG_EVERY + 2
    for iteration in range(1, iterations + 1):
        loss = torch.tensor(1.0 if iteration <= LOG_EVERY else float(iteration))
        curve.add(loss, iteration=iteration, last=iteration == iterations)
    assert curve.iterations == [LOG_EVERY, iterations]
    assert curve.losses == [1.0, LOG_EVERY + 1.5]


def test_points_of_the_curve_are_told_while_the_training_goes_on() -> None:
    told: list[tuple[int, float]] = []
    curve = LossCurve(on_point=lambda iteration, loss: told.append((iteration, loss)))
    for iteration in range(1, LOG_EVERY + 2):
        curve.add(torch.tensor(2.0), iteration=iteration, last=False)
    assert told == [(LOG_EVERY, 2.0)]
    assert asdict(curve) == {"iterations": [LOG_EVERY], "losses": [2.0]}
