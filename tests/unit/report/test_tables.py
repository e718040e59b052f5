import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffground.report.tables import (
    Table,
    format_cell,
    protocol1_table,
    read_paper_table,
    real_images_table,
    zs3_category_table,
    zs3_table,
)

PROTOCOL1 = {
    "grounding": {"one_seen": 81.25, "one_unseen": 70.0, "two_seen": 60.0, "two_seen_unseen": None, "two_unseen": 50.0},
    "daam": {"one_seen": 40.0, "one_unseen": 41.0, "two_seen": 42.0, "two_seen_unseen": 43.0, "two_unseen": 44.0},
    "num_images": {"one_seen": 30, "one_unseen": 10, "two_seen": 5, "two_seen_unseen": 0, "two_unseen": 7},
}
ZS3 = {
    "synthetic": {"seen": 50.0, "unseen": 40.0, "harmonic": 44.44},
    "real_all": {"seen": 80.0, "unseen": 81.0, "harmonic": 80.5},
    "with_background": {"synthetic": {"seen": 30.0, "unseen": None, "harmonic": None}},
    "per_category": {"synthetic": {"dog": 40.0, "cat": 50.0}, "real_all": {"dog": 81.0, "cat": 80.0}},
}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [(83.19, "83.2"), (7.0, "7.0"), (12, "12"), ("dog", "dog"), (None, "–")],
)
def test_scores_have_one_decimal_counts_none_and_missing_numbers_a_dash(cell, expected):
    assert format_cell(cell) == expected


def test_markdown_puts_text_left_and_numbers_right():
    table = Table(header=("method", "mIoU", "learnt from"), rows=(("a", 1.0, None), ("b", None, "masks")))
    assert table.to_markdown() == (
        "| method | mIoU | learnt from |\n| --- | ---: | --- |\n| a | 1.0 | – |\n| b | – | masks |\n"
    )


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cc", "Cs"])), st.integers()), max_size=5))
def test_csv_reads_back_whatever_the_text(rows):
    text = Table(header=("name", "count"), rows=tuple(rows)).to_csv()
    assert list(csv.reader(io.StringIO(text)))[1:] == [[name, str(count)] for name, count in rows]


def test_protocol1_has_the_papers_scores_next_to_ours():
    table = protocol1_table(PROTOCOL1, split="1")
    assert table.rows[0] == ("grounding module", 81.25, 70.0, 60.0, None, 50.0)
    assert table.rows[2] == ("images", 30, 10, 5, 0, 7)
    # table 1 of the paper, PASCAL-sim, split 1
    assert table.rows[-2][1:] == (61.66, 75.63, 46.74, 51.31, 69.94)
    assert table.rows[-1][1:] == (90.16, 83.19, 78.93, 66.07, 57.93)
    assert table.rows[-2][0] == "DAAM (paper, Stable Diffusion on PASCAL, split 1)"


def test_another_split_takes_the_mean_of_the_papers_three():
    table = protocol1_table(PROTOCOL1, split="average")
    assert table.rows[-1][1:] == (90.30, 83.08, 79.10, 67.86, 55.74)
    assert "mean of three splits" in table.rows[-1][0]


def test_zs3_shows_every_training_set_that_was_measured_and_the_papers_models():
    rows = {row[0]: row[1:] for row in zs3_table(ZS3).rows}
    assert rows["synthetic images, all categories"] == (50.0, 40.0, 44.44)
    assert rows["synthetic images, all categories, background counted"] == (30.0, None, None)
    assert not any("real images, seen categories" in name for name in rows)
    # table 2 of the paper, PASCAL VOC, models C and D
    assert [values for name, values in rows.items() if "Model" in name] == [(69.5, 63.2, 66.2), (83.0, 71.3, 76.7)]


@pytest.mark.parametrize("vocabulary", ["coco", "sticker_coco"])
def test_the_papers_rows_are_those_of_the_vocabulary(vocabulary):
    table = protocol1_table(PROTOCOL1, split="2", vocabulary=vocabulary)
    # tables 1 and 2 of the paper, COCO
    assert table.rows[-1] == (
        "grounding module (paper, Stable Diffusion on COCO, split 2)",
        82.83,
        74.93,
        63.39,
        57.18,
        42.82,
    )
    rows = [row for row in zs3_table(ZS3, vocabulary=vocabulary).rows if "Model" in str(row[0])]
    assert [row[1:] for row in rows] == [(38.3, 38.1, 38.2), (50.0, 38.2, 43.2)]
    assert "Stable Diffusion on COCO)" in str(rows[0][0])


def test_categories_are_marked_as_unseen():
    table = zs3_category_table(ZS3, unseen=("dog",))
    assert [row[0] for row in table.rows] == ["cat", "dog (unseen)"]
    assert table.rows[1] == ("dog (unseen)", 40.0, 81.0)


def test_real_images_are_next_to_what_the_paper_trained_on():
    metrics = {
        "grounding": {"seen": 60.0, "unseen": 50.0, "harmonic": 54.5},
        "foreground_only": {"seen": 90.0, "unseen": None, "harmonic": None},
        "num_images": {"seen": 9, "unseen": 3, "all": 11},
        "per_category": {},
        "absent": [],
    }
    table = real_images_table(metrics, training_data="both")
    assert table.header == ("mIoU, %", "seen", "unseen", "harmonic mean")
    assert table.rows[:3] == (
        ("grounding module, trained on sim + real", 60.0, 50.0, 54.5),
        ("foreground only (reference)", 90.0, None, None),
        ("images", 9, 3, None),
    )
    # table 7 of the paper, VOC test
    assert [(row[0].split(" (paper")[0], *row[1:]) for row in table.rows[3:]] == [
        ("grounding module, trained on real (DDIM inversion)", 75.19, 34.80, None),
        ("grounding module, trained on sim 10k", 61.75, 48.42, None),
        ("grounding module, trained on sim 40k", 64.44, 53.86, None),
        ("grounding module, trained on sim + real", 73.32, 57.14, None),
    ]


def test_published_tables_ship_with_the_package():
    assert len(read_paper_table("paper_table1_protocol1.csv")) == 16
    assert len(read_paper_table("paper_table2_zs3.csv")) == 21
    assert len(read_paper_table("paper_ablations.csv")) == 14
