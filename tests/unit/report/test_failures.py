import numpy as np
import pytest

from diffground.report.pictures import failure_rows, image_iou, worst_images

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


def test_the_worst_come_first_and_of_equal_ones_the_earlier():
    images = source([8, 0, 16, 4, *[16] * 20, 2, 4])
    images[5] = (images[5][0], np.zeros((4, 4), dtype=np.uint8))  # shows no category
    worst = worst_images(images, Brightness(), num=4)
    assert [failure.iou for failure in worst] == [0, 2 / 16, 4 / 16, 4 / 16]
    assert worst[2].image is images[3][0] and worst[3].image is images[25][0]


def test_fewer_images_than_places():
    assert len(worst_images(source([1, 2]), Brightness(), num=8)) == 2
    assert worst_images([], Brightness(), num=8) == []


def test_rows_show_image_truth_and_answer():
    rows = failure_rows(source([4, 16]), Brightness(), num_columns=2)
    assert [row.heading for row in rows] == ["real images with the lowest IoU", "true masks", "predicted masks"]
    assert [[picture.caption for picture in row.pictures] for row in rows] == [
        ["IoU 25.0 %", "IoU 100.0 %"],
        ["bicycle", "bicycle"],
        ["bicycle", "bicycle"],
    ]
