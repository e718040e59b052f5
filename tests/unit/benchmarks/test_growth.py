"""benchmarks/growth.py: its points, its line, and that memory does not grow with the samples."""

from multiprocessing import get_context

import pytest

from benchmarks.growth import (
    BATCH_SIZE,
    Measured,
    Point,
    as_table,
    axes,
    best_of,
    fit_line,
    make_records,
    run_point,
    summarise,
)

BASE = Point(num_samples=16, num_words=2, image_size=128)


def test_one_thing_grows_at_a_time():
    found = axes(BASE, largest_image=256, multiples=(1, 2, 4, 8))
    assert [point.num_samples for point in found["samples"]] == [16, 32, 64, 128]
    assert {(point.num_words, point.image_size) for point in found["samples"]} == {(2, 128)}
    assert [point.num_words for point in found["words per image"]] == [1, 2, 4, 8]
    assert {(point.num_samples, point.image_size) for point in found["words per image"]} == {(16, 128)}
    assert [point.image_size for point in found["image size"]] == [32, 64, 128, 256]
    assert {(point.num_samples, point.num_words) for point in found["image size"]} == {(BATCH_SIZE, 2)}


@pytest.mark.parametrize(
    ("times_s", "slope", "deviation"),
    [
        # 1 s to start, 2 s each
        ([3.0, 5.0, 9.0, 17.0], 2.0, 0.0),
        # without growth
        ([3.0, 3.0, 3.0, 3.0], 0.0, 0.0),
    ],
)
def test_a_line_has_its_slope_and_no_deviation(times_s, slope, deviation):
    assert fit_line([1, 2, 4, 8], times_s) == (pytest.approx(slope, abs=1e-9), pytest.approx(deviation, abs=1e-9))


def test_what_grows_with_the_square_deviates():
    _, deviation = fit_line([1, 2, 4, 8], [1.0, 4.0, 16.0, 64.0])
    assert deviation > 20


def test_the_line_for_words_leaves_out_one_word():
    points = axes(BASE, largest_image=256, multiples=(1, 2, 4, 8))["words per image"]
    # 16 images; from two words on 0.1 s each and 0.05 s per word and image, of one word much less
    measured = [Measured(1.0, 900.0), *(Measured(1.6 + 0.8 * words, 900.0) for words in (2, 4, 8))]
    found = summarise("words per image", points, measured)
    assert found["slope_ms"] == pytest.approx(50)
    assert found["deviation_percent"] == 0


def test_the_table_has_slope_deviation_and_memory_of_each_axis():
    points = axes(BASE, largest_image=256, multiples=(1, 2))["samples"]
    found = summarise("samples", points, [Measured(1.0, 900.0), Measured(2.0, 904.5)])
    assert found["memory_growth_mib"] == 4.5
    (row,) = as_table({"samples": found}, (1, 2)).rows
    assert row == ("samples, 16 to 32", "1.00", "2.00", "62.5 ms per sample", "0.0", "900, 904")


def test_the_shortest_time_and_the_largest_peak_count():
    assert best_of([Measured(2.0, 905.0), Measured(1.5, 900.0), Measured(1.7, 910.0)]) == Measured(1.5, 910.0)


def test_prompts_name_as_many_categories_as_asked_for(smoke_params):
    vocabulary = smoke_params.vocabulary.load()
    records = list(make_records(vocabulary, Point(num_samples=30, num_words=3, image_size=32)))
    assert len({record.id for record in records}) == 30
    assert all(len(set(record.categories)) == 3 for record in records)
    for record in records:
        assert len(vocabulary.words_in(record.prompt, record.categories)) == 3


def test_memory_does_not_grow_with_the_samples(smoke_params):
    few, many = (Point(num_samples=num, num_words=2, image_size=32) for num in (64, 1024))
    with get_context("spawn").Pool(1) as pool:  # what pytest holds is not counted
        first, second = pool.starmap(run_point, [(smoke_params, few), (smoke_params, many)])
    assert first.time_s > 0 and second.time_s > 0
    # the images and probabilities of 960 samples are 10 MiB
    assert 0 <= second.peak_mib - first.peak_mib < 6
