import numpy as np

from diffground.data.shards import Sample, encode_json, encode_label, encode_png
from diffground.report.cards import (
    first_cards,
    generated_by_quality,
    generated_galleries,
    hardest_group,
    segmented_by_iou,
    segmented_galleries,
)
from diffground.report.pictures import readme_rows

CATEGORIES = ("aeroplane", "bicycle")


def sample(quality, group="one_seen", category="aeroplane"):
    label = np.full((8, 8), 1 + CATEGORIES.index(category), dtype=np.uint8)
    record = {
        "group": group,
        "categories": [category],
        "prompt": f"a photograph of a {category}, {quality}",
        "quality": quality,
    }
    return Sample(
        key=str(quality),
        members={
            "image.png": encode_png(np.zeros((8, 8, 3), dtype=np.uint8)),
            "label.png": encode_label(label),
            "meta.json": encode_json(record),
        },
    )


SAMPLES = [sample(0.9), sample(0.2), sample(0.5), sample(0.7, "two_unseen", "bicycle"), sample(0.4)]


def qualities(chosen):
    return {kind: [one.quality for one in found] for kind, found in chosen.items()}


class Bicycle:
    """Answers 'bicycle' everywhere."""

    categories = CATEGORIES

    def predict(self, images):
        scores = [np.zeros((3, *image.shape[:2]), dtype=np.float32) for image in images]
        for one in scores:
            one[2] = 1
        return scores


def source():
    labels = [np.full((8, 8), value, dtype=np.uint8) for value in (1, 2, 2)]
    labels[1][:4] = 1  # half of it is an aeroplane
    return [(np.zeros((8, 8, 3), dtype=np.uint8), label) for label in labels]


def test_generated_images_are_chosen_by_quality():
    chosen = generated_by_quality(lambda: SAMPLES, num=1)
    assert qualities(chosen) == {"best": [0.9], "median": [0.5], "worst": [0.2]}
    assert chosen["best"][0].prompt == "a photograph of a aeroplane, 0.9"
    galleries = generated_galleries(chosen)
    assert [gallery.heading for gallery in galleries] == ["Highest quality", "Median quality", "Lowest quality"]
    assert galleries[0].cards[0].caption == "Prompt: “a photograph of a aeroplane, 0.9”. Quality 0.90."


def test_only_of_one_group():
    assert hardest_group(SAMPLES) == "two_unseen"
    assert hardest_group(SAMPLES[:3]) == "one_seen"
    chosen = generated_by_quality(lambda: SAMPLES, num=1, group="two_unseen")
    assert qualities(chosen) == {"best": [], "median": [], "worst": [0.7]}


def test_segmented_images_are_chosen_by_iou_and_the_worst_are_explained():
    chosen = segmented_by_iou(source(), Bicycle(), num=1)
    assert {kind: [(i, one.iou) for i, one in found] for kind, found in chosen.items()} == {
        "best": [(2, 1.0)],
        "median": [(1, 0.25)],
        "worst": [(0, 0.0)],
    }
    best, _, worst = segmented_galleries(chosen, CATEGORIES, truth="masks of the grounding module")
    assert best.heading == "Highest IoU: image, masks of the grounding module, predicted masks"
    assert best.cards[0].caption == "IoU 100.0 %. Shown: bicycle. Predicted: bicycle."
    assert worst.cards[0].caption.startswith("100 % of the aeroplane is labelled as bicycle.")
    assert [picture.alt for picture in worst.cards[0].pictures] == [
        "Image of aeroplane",
        "The same image with masks of the grounding module: aeroplane",
        "The same image with predicted masks: bicycle",
    ]


def test_the_first_screen_has_a_generated_image_a_segmented_one_and_a_failure():
    generated, segmented = generated_by_quality(lambda: SAMPLES, num=1), segmented_by_iou(source(), Bicycle(), num=1)
    cards = first_cards(generated, segmented, CATEGORIES, group="one_seen", truth="true masks")
    starts = ("Generated, with masks; median", "Segmented, median", "Failure, lowest score. 100 % of the aeroplane")
    assert len(cards) == 3
    assert all(card.caption.startswith(start) for card, start in zip(cards, starts, strict=True))
    few = segmented_by_iou(source()[:1], Bicycle(), num=1)
    assert len(first_cards(generated, few, CATEGORIES, group="one_seen", truth="true masks")) == 3, "one image is all"
    nothing = {"best": [], "median": [], "worst": []}
    assert first_cards(nothing, nothing, CATEGORIES, group="one_seen", truth="true masks") == []


def test_rows_of_the_readme_have_image_and_masks():
    generated, segmented = generated_by_quality(lambda: SAMPLES, num=2), segmented_by_iou(source(), Bicycle(), num=1)
    rows = readme_rows(generated["worst"], segmented["best"], CATEGORIES, heading="Segmenter")
    assert [[picture.caption for picture in row.pictures] for row in rows] == [
        ["a photograph of a aeroplane, 0.2", "aeroplane", "a photograph of a aeroplane, 0.4", "aeroplane"],
        ["IoU 100 %", "bicycle"],
    ]
