import fnmatch
from pathlib import Path

import numpy as np
import pytest

from diffground.data.shards import Sample, encode_json, encode_label, encode_png
from diffground.report.embed import embed_image
from diffground.report.experiments import Experiments, Setup
from diffground.report.html import Card, Gallery, Section
from diffground.report.page import read_sections, write_page
from diffground.report.pictures import scored_rows, synthetic_rows
from diffground.report.write import (
    find_curves,
    notes_of,
    paper_split,
    result_tables,
    write_charts,
    write_tables,
)
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params

CONF = Path(__file__).parents[3] / "conf"
SCORES = {"one_seen": 80.0, "one_unseen": 70.0, "two_seen": 60.0, "two_seen_unseen": 55.0, "two_unseen": 50.0}
METRICS = {
    "evaluate_grounding": {"grounding": SCORES, "daam": SCORES, "num_images": dict.fromkeys(SCORES, 4)},
    "evaluate_zs3": {
        "synthetic": {"seen": 50.0, "unseen": 40.0, "harmonic": 44.4},
        "with_background": {},
        "per_category": {"synthetic": {"dog": 40.0}},
    },
    "train_grounding": {"loss": {"iterations": [50, 100], "losses": [0.5, 0.25]}, "num_skipped": 3},
}


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(compose_params("smoke", conf=CONF))
    return load_params(path)


def sample(key, group, categories, label_value):
    label = np.full((8, 8), label_value, dtype=np.uint8)
    return Sample(
        key=key,
        members={
            "image.png": encode_png(np.zeros((8, 8, 3), dtype=np.uint8)),
            "label.png": encode_label(label),
            "meta.json": encode_json({"group": group, "categories": categories}),
        },
    )


SETUP = Setup("smoke", "models/smoke/diffusion", "0123456789abcdef")
NONE = Experiments(setup=SETUP, metrics={}, left_out=())
GROUNDED = {"evaluate_grounding": {"grounding": SCORES}}


def write_all(tmp_path, params, experiments):
    """Names of tables and figures, and the page's text."""
    figures = tmp_path / "reports" / "figures"
    tables = result_tables(METRICS, params, experiments)
    write_tables(tables, tmp_path / "reports" / "tables")
    write_charts(METRICS, params, experiments, figures)
    card = Card([embed_image(np.zeros((8, 8, 3), dtype=np.uint8), "a dog")], "Failed.")
    page = tmp_path / "reports" / "index.html"
    write_page(
        page,
        metrics=METRICS,
        tables=tables,
        figures=sorted(figures.glob("*.png")),
        params=params,
        experiments=experiments,
        notes={"segmented": "By C."},
        galleries={"segmented": [Gallery("Lowest IoU", [card])], "generated": []},
        benchmarks=[Section("Speed", "How fast.")],
    )
    written = {path.stem for path in (tmp_path / "reports" / "tables").iterdir()}
    assert len(list((tmp_path / "reports" / "tables").iterdir())) == 2 * len(written), "csv and md of each"
    return written, {path.stem for path in figures.iterdir()}, page.read_text()


def test_without_experiments_it_writes_what_there_is_and_a_page_that_holds_it(params, tmp_path):
    tables, figures, text = write_all(tmp_path, params, NONE)
    assert tables == {"protocol1", "zs3", "zs3_categories", "table2", "trends"}
    assert figures == {"protocol1", "zs3", "loss"}
    assert text.count('src="data:image/png;base64,') == len(figures) and 'src="figures' not in text
    for heading in ("Ablations", "Timestep", "Protocol I, other scores", "Experiments that are left out"):
        assert f">{heading}</h3>" not in text
    assert "generator.num_steps" in text
    assert "tracking.enabled" not in text, "where a run is logged must not change the page"
    assert "that a segmenter predicts for them. By C.</p>" in text
    assert ">Segmented images</h3>" in text and ">Generated images with masks</h3>" not in text, "only what there is"
    assert ">Speed</h3>" in text and "What was run: profile smoke" in text


def test_the_same_inputs_give_the_same_page(params, tmp_path):
    pages = [write_all(tmp_path / name, params, NONE)[2] for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_experiments_bring_their_sections_each_with_its_setup(params, tmp_path):
    runs = {"training_normal": GROUNDED, "seen_05": GROUNDED, "timestep_02": GROUNDED, "timestep_03": GROUNDED}
    left_out = ["seen_10: profile mini, generator m (0123)"]
    others = {"seen_05": "commit 0123abcd: generate"}
    experiments = Experiments(setup=SETUP, metrics=runs, left_out=left_out, other_inputs=others)
    tables, figures, text = write_all(tmp_path, params, experiments)
    assert tables >= {"ablations"} and figures >= {"timestep", "seen_categories"}
    headings = ("Ablations", "Timestep", "Number of seen categories", "Trends of the paper, and whether they hold here")
    for heading in headings:
        section = text.partition(f">{heading}</h3>")[2].partition("<h3")[0]
        assert "profile smoke, generator models/smoke/diffusion (0123456789ab)" in section
        assert ("than the default run: seen_05 (commit 0123abcd: generate)." in section) == (heading != "Timestep")
    left = text.partition(">Experiments that are left out</h3>")[2].partition("<h3")[0]
    assert "<li>seen_10: profile mini, generator m (0123)</li>" in left
    row = text.partition("than training with zero masks</th>")[2].partition("</tr>")[0]
    assert row.startswith('<td class="text">holds</td><td class="text">one unseen 70.0 against 70.0')


def test_every_experiment_belongs_to_a_table_or_figure_of_the_page():
    names = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    with_experiments = [section for section in read_sections() if "experiments" in section]
    globs = [glob for section in with_experiments for glob in section["experiments"]]
    assert {name for glob in globs for name in fnmatch.filter(names, glob)} == names
    assert all("table" in section or "figure" in section for section in with_experiments)


def test_real_images_have_a_table_and_a_section_where_they_were_scored(params, tmp_path):
    scores = {"seen": 61.5, "unseen": 50.0, "harmonic": 55.2}
    real = {"grounding": scores, "foreground_only": scores, "num_images": {"seen": 4, "unseen": 3, "all": 6}}
    assert "real_images" not in result_tables(METRICS, params, NONE)
    metrics = {**METRICS, "evaluate_grounding": {**METRICS["evaluate_grounding"], "real_images": real}}
    tables = result_tables(metrics, params, NONE)
    assert notes_of(metrics, params) == {}, "as good as the reference, and DAAM not far below the paper's"
    real["foreground_only"] = {**scores, "unseen": 52.5}
    write_page(
        tmp_path / "index.html",
        metrics=metrics,
        tables=tables,
        figures=[],
        params=params,
        experiments=NONE,
        notes=notes_of(metrics, params),
    )
    text = (tmp_path / "index.html").read_text()
    section = text.partition(">Grounding on real images</h3>")[2].partition("<h3")[0]
    assert "together as the mask of each: unseen 50.0 against 52.5." in section
    assert "<td>61.5</td>" in text
    assert "<dt>inversion.num_val</dt>" in text


def test_finds_loss_curves_at_any_depth_and_names_them():
    values = {
        "loss": {"iterations": [50], "losses": [0.5]},
        "synthetic": {"loss": {"iterations": [1, 2], "losses": [3.0, 2.0]}, "time_s": 3.0},
    }
    assert dict(find_curves(values, name="train")) == {
        "train": [(50, 0.5)],
        "train: synthetic": [(1, 3.0), (2, 2.0)],
    }
    assert list(find_curves({"miou": 3.0, "nested": {"x": None}}, name="evaluate")) == []


OFFICE = ("laptop", "keyboard", "cell phone", "book", "clock", "vase", "scissors", "teddy bear", "toothbrush")
KITCHEN = ("remote", "microwave", "oven", "sink", "refrigerator")


@pytest.mark.parametrize(
    ("vocabulary", "unseen", "split"),
    [
        ("pascal", ("tvmonitor", "car", "dog", "sofa", "train"), "1"),
        ("pascal", ("train", "sofa", "dog", "car", "tvmonitor"), "1"),
        ("pascal", ("horse", "motorbike", "person", "pottedplant", "sheep"), "2"),
        ("pascal", ("bus", "cat", "chair", "cow", "diningtable"), "3"),
        ("pascal", ("dog",), "average"),
        ("coco", (*OFFICE, *KITCHEN), "2"),
        ("coco", OFFICE, "average"),
        ("sticker_coco", OFFICE, "2"),  # the mini world has no kitchen
        ("sticker_coco", OFFICE[1:], "average"),
    ],
)
def test_knows_the_papers_splits(vocabulary, unseen, split):
    assert paper_split(unseen, vocabulary=vocabulary) == split


def test_synthetic_gallery_shows_the_first_image_of_each_set_of_categories_by_group():
    rows = synthetic_rows(
        [
            sample("a", "one_unseen", ["dog"], 12),
            sample("b", "one_seen", ["cat"], 8),
            sample("c", "one_seen", ["cat"], 8),
            sample("d", "one_seen", ["bird"], 3),
            sample("e", "two_seen", ["cat", "bird"], 8),
            sample("f", "two_seen", ["bird", "cat"], 8),
            sample("g", "one_seen", ["cow"], 10),
        ],
        num_columns=4,
    )
    assert [(row.heading, [p.caption for p in row.pictures]) for row in rows] == [
        ("one seen: image, masks", ["cat", "", "bird", ""]),
        ("one unseen: image, masks", ["dog", ""]),
        ("two seen: image, masks", ["cat + bird", ""]),
    ]
    image, masked = rows[1].pictures
    assert image.image.max() == 0
    assert masked.image[1, 1].tolist() == [35, 0, 70], "55 % of VOC's colour of label 12, (64, 0, 128)"


class Constant:
    """Answers `label` at every pixel."""

    categories = ("aeroplane", "bicycle")

    def __init__(self, label):
        self.label = label

    def predict(self, images):
        scores = [np.zeros((3, *image.shape[:2]), dtype=np.float32) for image in images]
        for one in scores:
            one[self.label] = 1
        return scores


def test_real_gallery_sets_truth_and_answers_below_the_images():
    source = [(np.zeros((8, 8, 3), dtype=np.uint8), np.zeros((8, 8), dtype=np.uint8))] * 3
    rows = scored_rows(source, {"A": Constant(0), "B": Constant(2)}, num_columns=2)
    assert [len(row.pictures) for row in rows] == [2, 2, 2, 2]
    assert [p.caption for p in rows[2].pictures] == ["", ""]
    assert [p.caption for p in rows[3].pictures] == ["bicycle", "bicycle"]
    assert rows[3].pictures[0].image[1, 1].tolist() == [0, 70, 0]
    assert [row.heading for row in rows] == ["real images, not used in training", "true masks", "A", "B"]


def test_held_out_images_are_spread_over_the_set_and_their_masks_are_not_called_true():
    source = [(np.full((128, 128, 3), i, dtype=np.uint8), np.zeros((128, 128), dtype=np.uint8)) for i in range(10)]
    rows = scored_rows(source, {"A": Constant(0)}, num_columns=4, held_out=True)
    assert [picture.image[0, 0, 0] for picture in rows[0].pictures] == [0, 2, 5, 7]
    assert [row.heading for row in rows[:2]] == [
        "held-out synthetic images, not used in training",
        "masks of the grounding module",
    ]
    assert len(scored_rows(source[:2], {}, num_columns=4, held_out=True)[0].pictures) == 2
