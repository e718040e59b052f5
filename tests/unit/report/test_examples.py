import numpy as np
import pytest

from diffground.report.examples import choose, explain, image_iou, image_scores, read_examples

AEROPLANE, BICYCLE, IGNORED = 1, 2, 255


def label(*rows):
    return np.array(rows, dtype=np.uint8)


@pytest.mark.parametrize(
    ("truth", "answer", "expected", "reason"),
    [
        ([[1, 1], [0, 0]], [[1, 1], [0, 0]], 1.0, "the same"),
        ([[1, 1], [0, 0]], [[1, 0], [0, 0]], 1 / 2, "one of two pixels"),
        ([[1, 1], [0, 0]], [[1, 1], [1, 1]], 1 / 2, "two of four pixels"),
        ([[1, 1], [0, 0]], [[2, 2], [0, 0]], 0.0, "another category"),
        ([[1, 1], [2, 0]], [[1, 1], [0, 0]], 1 / 2, "mean of 1 and 0"),
        ([[1, 255], [0, 0]], [[1, 1], [0, 0]], 1.0, "255 is not judged"),
        ([[0, 0], [0, 255]], [[1, 1], [0, 0]], None, "no category"),
    ],
)
def test_iou_of_one_image(truth, answer, expected, reason):
    assert image_iou(label(*truth), label(*answer)) == expected, reason


class Brightness:
    """Says 'bicycle' where the image is bright."""

    categories = ("aeroplane", "bicycle")

    def predict(self, images):
        answers = []
        for image in images:
            scores = np.zeros((3, *image.shape[:2]), dtype=np.float32)
            scores[0], scores[BICYCLE] = 0.5, image[..., 0] / 255
            answers.append(scores)
        return answers


def source(num_right):
    """An image for each entry: 4 x 4 pixels of bicycle, of which so many are bright."""
    items = []
    for n in num_right:
        image = np.zeros((16, 3), dtype=np.uint8)
        image[:n] = 255
        items.append((image.reshape(4, 4, 3), np.full((4, 4), BICYCLE, dtype=np.uint8)))
    return items


def test_scores_and_examples_are_of_the_same_images():
    images = source([8, 0, 16, 4, *[16] * 20, 2, 4])
    images[5] = (images[5][0], np.zeros((4, 4), dtype=np.uint8))  # shows no category
    scores = image_scores(images, Brightness())
    assert [scores[i] for i in (0, 1, 2, 3, 5, 24)] == [1 / 2, 0, 1, 1 / 4, None, 2 / 16]
    assert len(scores) == len(images)
    examples = read_examples(images, Brightness(), [24, 3])
    assert [example.iou for example in examples] == [2 / 16, 4 / 16]
    assert examples[0].image is images[24][0] and (examples[0].answer == BICYCLE).sum() == 2


@pytest.mark.parametrize(
    ("scores", "best", "median", "worst", "reason"),
    [
        ([], [], [], [], "nothing to choose from"),
        ([None, 0.5, None], [], [], [1], "the only one is the worst"),
        ([0.5, 0.1], [0], [], [1], "the second is the best"),
        ([0.5, 0.1, 0.9], [2], [0], [1], "one of each"),
        ([0.9, 0.9, 0.1, 0.1, 0.5, 0.5, 0.5], [1], [5], [2], "of equal ones the earlier is worse"),
        ([0.4, None, 0.6, 0.5, 0.1, 0.9], [5], [3], [4], "the middle of five"),
    ],
)
def test_choice_by_score(scores, best, median, worst, reason):
    chosen = choose(scores, num=1)
    assert chosen == {"best": best, "median": median, "worst": worst}, reason


def test_choice_takes_no_image_twice_and_orders_each_kind():
    chosen = choose([i / 10 for i in range(9)], num=2)
    assert chosen == {"best": [8, 7], "median": [3, 4], "worst": [0, 1]}
    assert choose([0.1, 0.2, 0.3], num=2) == {"best": [2], "median": [], "worst": [0, 1]}


CATEGORIES = ("aeroplane", "bicycle")


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        ([[1, 1], [0, 0]], [[1, 1], [0, 0]], "The right categories are found; the outlines differ."),
        ([[1, 1], [1, 1]], [[0, 0], [0, 1]], "75 % of the aeroplane is labelled as background."),
        (
            [[1, 1], [0, 0]],
            [[2, 2], [0, 0]],
            "100 % of the aeroplane is labelled as bicycle. "
            "50 % of the image is labelled as bicycle, which is not there.",
        ),
        ([[1, 0], [0, 0]], [[1, 1], [1, 0]], "More than half of the mask of the aeroplane is on something else."),
        ([[1, 255], [0, 0]], [[1, 2], [0, 0]], "The right categories are found; the outlines differ."),
    ],
)
def test_a_failure_is_explained(truth, answer, expected):
    assert explain(label(*truth), label(*answer), CATEGORIES) == expected
