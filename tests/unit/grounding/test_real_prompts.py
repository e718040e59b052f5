"""Which real images are taken, and what their prompts name."""

from __future__ import annotations

import numpy as np
import pytest

from diffground.data.voc import VocDataset
from diffground.errors import UserError
from diffground.grounding.real_prompts import RealImages, plan_real_images, squeeze
from tests.unit.grounding.toy_devkit import VOCABULARY, write_devkit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VocDataset:
    root = tmp_path_factory.mktemp("devkit")
    write_devkit(root)
    return VocDataset(root, "train")


def plan(dataset: VocDataset, **changes: object) -> RealImages:
    arguments = {"num_images": 9, "named": VOCABULARY.seen, "min_area_frac": 0.01, **changes}
    return plan_real_images(dataset, vocabulary=VOCABULARY, image_size=32, **arguments)


def test_prompts_name_the_two_largest_seen_categories(dataset: VocDataset) -> None:
    planned = plan(dataset)
    assert [(real.record.id, real.record.prompt, real.record.group) for real in planned.images] == [
        ("real-a", "a photograph of a cat", "one_seen"),
        ("real-b", "a photograph of a cat and a bus", "two_seen"),
        ("real-d", "a photograph of a potted plant and a cat", "two_seen"),
        ("real-e", "a photograph of a potted plant", "one_seen"),
    ]
    assert [real.index for real in planned.images] == [0, 1, 3, 4]
    assert (planned.num_skipped, planned.num_cut) == (1, 1)


def test_a_category_is_named_from_the_smallest_area_on(dataset: VocDataset) -> None:
    def named_in_b(min_area_frac: float) -> tuple[str, ...]:
        return plan(dataset, min_area_frac=min_area_frac).images[1].record.categories

    assert named_in_b(6 / 32) == ("cat", "bus")
    assert named_in_b(6 / 32 + 0.001) == ("cat",)


def test_unseen_categories_are_named_where_the_caller_says_so(dataset: VocDataset) -> None:
    images = plan(dataset, named=(*VOCABULARY.seen, *VOCABULARY.unseen)).images
    groups = [(real.record.categories, real.record.group) for real in images]
    assert groups[2] == (("dog",), "one_unseen")
    assert groups[4] == (("pottedplant", "dog"), "two_seen_unseen")


def test_the_first_of_the_list_are_taken_and_no_more_are_looked_at(dataset: VocDataset) -> None:
    everything = plan(dataset)
    one_less = plan(dataset, num_images=3)
    assert one_less.images == everything.images[:3]
    assert (one_less.num_skipped, one_less.num_cut) == (1, 1), "image c, before the third, shows no seen category"
    assert plan(dataset, num_images=2).num_skipped == 0
    assert one_less.digest != everything.digest
    assert plan(dataset, num_images=4) == everything, "exactly all of them"
    assert plan(dataset, num_images=0).images == ()
    only_sheep = {"named": ["sheep"], "min_area_frac": 0.7}
    assert plan(dataset, num_images=0, **only_sheep).images == (), "none asked for, so none missed"
    with pytest.raises(UserError, match="none of 5 images shows one of sheep"):
        plan(dataset, num_images=1, **only_sheep)


def test_images_are_squeezed_whole_into_the_generators_square() -> None:
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    label = np.zeros((20, 40), dtype=np.uint8)
    image[:, 30:], label[:, 30:] = 250, 7  # the right quarter
    small, small_label = squeeze(image, label, image_size=8)
    assert (small.shape, small.dtype, small_label.dtype) == ((8, 8, 3), np.uint8, np.uint8)
    assert small_label.tolist() == [[0] * 6 + [7] * 2] * 8
    assert (small[:, 7] > 240).all()
    assert (small[:, :5] < 10).all()
    same, same_label = squeeze(small, small_label, image_size=8)
    assert np.array_equal(same, small)
    assert np.array_equal(same_label, small_label)
