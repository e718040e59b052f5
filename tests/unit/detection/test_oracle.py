"""Oracle masks: worked by hand on 2 x 3 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffground.data.shards import Sample, decode_json, decode_mask, encode_json, encode_png, read_shard, write_shard
from diffground.detection.detector import Instances
from diffground.detection.oracle import count_found, detect_shards, oracle_masks, require_labels
from diffground.errors import UserError

NAMES = {"dog": "dog", "motorbike": "motorcycle", "cat": "cat"}


def _mask(rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows.split("/")])


def _instances(*entries: tuple[str, float, str]) -> Instances:
    return Instances(
        labels=[label for label, _, _ in entries],
        scores=np.array([score for _, score, _ in entries], dtype=np.float32),
        masks=np.stack([_mask(rows) for _, _, rows in entries]) if entries else np.zeros((0, 2, 3), dtype=bool),
    )


@pytest.mark.parametrize(
    ("reason", "instances", "expected"),
    [
        ("one instance", _instances(("dog", 0.9, "##./...")), {"dog": ("##./...", 0.9, 1)}),
        (
            "union of two, best score",
            _instances(("dog", 0.9, "##./..."), ("dog", 0.6, "..#/..#")),
            {"dog": ("###/..#", 0.9, 2)},
        ),
        (
            "below the threshold is not used",
            _instances(("dog", 0.9, "##./..."), ("dog", 0.49, "..#/..#")),
            {"dog": ("##./...", 0.9, 1)},
        ),
        ("at the threshold is used", _instances(("dog", 0.5, "##./...")), {"dog": ("##./...", 0.5, 1)}),
        ("another label is not used", _instances(("cat", 0.9, "##./...")), {}),
        ("detector's own name counts", _instances(("motorcycle", 0.8, "#../...")), {"motorbike": ("#../...", 0.8, 1)}),
        ("the category's name is not the detector's", _instances(("motorbike", 0.8, "#../...")), {}),
        ("an empty mask is not found", _instances(("dog", 0.9, ".../...")), {}),
        ("no instance", _instances(), {}),
    ],
)
def test_oracle_is_the_union_of_instances_above_the_score(
    reason: str, instances: Instances, expected: dict[str, tuple[str, float, int]]
) -> None:
    found = oracle_masks(instances, ["dog", "motorbike"], detector_names=NAMES, score_threshold=0.5)
    assert list(found) == list(expected), reason
    for category, (rows, score, num) in expected.items():
        np.testing.assert_array_equal(found[category].mask, _mask(rows), err_msg=reason)
        assert found[category].score == pytest.approx(score), reason
        assert found[category].num_instances == num, reason


class _BrightPixels:
    """A real, if simple, detector: pixels above 200 in channel 0 are a dog, in channel 1 a motorcycle."""

    labels = ("dog", "motorcycle")

    def detect(self, images: np.ndarray) -> list[Instances]:
        masks = images[..., :2].transpose(0, 3, 1, 2) > 200
        return [
            Instances(labels=list(self.labels), scores=np.array([0.9, 0.8], dtype=np.float32), masks=m) for m in masks
        ]


def _write_generated(folder: Path, num: int) -> None:
    for shard in range(0, num, 2):
        samples = []
        for i in range(shard, min(shard + 2, num)):
            image = np.zeros((4, 4, 3), dtype=np.uint8)
            image[i % 4, :, 0] = 255
            categories = ["dog"] if i % 2 else ["motorbike", "dog"]
            samples.append(
                Sample(
                    key=f"train-{i:06d}",
                    members={"image.png": encode_png(image), "meta.json": encode_json({"categories": categories})},
                )
            )
        write_shard(folder / f"{shard // 2:06d}.tar", samples)


def _detect(tmp_path: Path, *, batch_size: int = 8, name: str = "oracle") -> int:
    return detect_shards(
        tmp_path / "generated",
        tmp_path / name,
        detector=_BrightPixels(),
        detector_id="bright",
        detector_names=NAMES,
        score_threshold=0.5,
        mask_threshold=0.5,
        batch_size=batch_size,
        description="detect",
    )


def test_each_input_shard_gets_one_shard_of_masks_and_scores(tmp_path: Path) -> None:
    _write_generated(tmp_path / "generated", 3)
    assert _detect(tmp_path) == 2
    assert sorted(p.name for p in (tmp_path / "oracle").glob("*.tar")) == ["000000.tar", "000001.tar"]
    first, second = read_shard(tmp_path / "oracle" / "000000.tar")
    assert first.key == "train-000000"
    assert sorted(first.members) == ["mask.dog.png", "meta.json"]  # no motorbike in the picture
    meta = decode_json(first.members["meta.json"])
    assert meta["found"] == ["dog"] and meta["scores"] == {"dog": 0.9}
    mask = decode_mask(second.members["mask.dog.png"])
    np.testing.assert_array_equal(mask.sum(axis=1), [0, 4, 0, 0])


def test_found_counts_tell_one_object_from_two(tmp_path: Path) -> None:
    _write_generated(tmp_path / "generated", 4)
    _detect(tmp_path)
    counts = count_found(tmp_path / "oracle")
    assert counts.all_found_frac(1) == 1.0  # both dogs
    assert counts.all_found_frac(2) == 0.0  # the motorbike never
    assert counts.all_found_frac(3) is None
    assert counts.per_category == {"dog": {"found": 4, "not_found": 0}, "motorbike": {"found": 0, "not_found": 2}}


def test_batch_size_does_not_change_the_shards_and_complete_ones_are_kept(tmp_path: Path) -> None:
    _write_generated(tmp_path / "generated", 4)
    _detect(tmp_path, batch_size=1, name="one")
    _detect(tmp_path, batch_size=8, name="eight")
    for name in ("000000.tar", "000001.tar"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "eight" / name).read_bytes()
    (tmp_path / "one" / "000001.tar").unlink()
    assert _detect(tmp_path, name="one") == 1
    assert (tmp_path / "one" / "000001.tar").read_bytes() == (tmp_path / "eight" / "000001.tar").read_bytes()


def test_other_images_make_all_masks_anew(tmp_path: Path) -> None:
    _write_generated(tmp_path / "generated", 4)
    _detect(tmp_path)
    _write_generated(tmp_path / "generated", 3)
    assert _detect(tmp_path) == 2


def test_a_category_without_a_detector_label_is_refused() -> None:
    with pytest.raises(UserError, match=r"no label for cat.*knows dog, motorcycle"):
        require_labels(_BrightPixels(), ["dog", "cat"], detector_names=NAMES)
