"""The comparison of how training samples are made: what is counted, and how often."""

import pytest

from benchmarks.training_samples import CALLS, DECODED, FEATURES, GUIDED, SAMPLED, measure, ratio


def test_a_sample_that_is_used_again_is_only_sampled_again_by_the_released_code():
    times = {GUIDED: 0.04, DECODED: 0.1, SAMPLED: 3.0, FEATURES: 0.5}
    assert ratio(times, batch_size=10, epochs=1) == pytest.approx(10 * (50 * 0.04 + 0.1) / 3.5)
    assert ratio(times, batch_size=10, epochs=4) == pytest.approx(10 * 4 * (50 * 0.04 + 0.1) / (3.0 + 4 * 0.5))


def test_cases_take_turns_and_the_first_round_does_not_count():
    calls = []
    subject = {name: lambda name=name: calls.append(name) for name in (GUIDED, SAMPLED)}
    times = measure(subject, rounds=2)
    assert [set(of_round) for of_round in times] == [{GUIDED, SAMPLED}] * 2
    assert calls == ([GUIDED] * CALLS[GUIDED] + [SAMPLED]) * 3
