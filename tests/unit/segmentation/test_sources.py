"""Training images come from shards on the disk, and stay there until they are asked for."""

import tracemalloc

import numpy as np
import pytest

from diffground.data.labelled import LabelledSample
from diffground.data.review import look_of, read_review, with_masks_of_label, write_review
from diffground.data.shards import Sample, encode_json, encode_label, encode_png, read_samples, write_shard
from diffground.errors import UserError
from diffground.segmentation.sources import ShardSource


def write(folder, *, num, size=64, **members):
    """Two shards of noise. Returns images and labels."""
    rng = np.random.default_rng(0)
    items = [
        (rng.integers(0, 256, (size, size, 3), np.uint8), rng.integers(0, 4, (size, size), np.uint8))
        for _ in range(num)
    ]
    samples = [
        Sample(
            f"s-{i:06d}",
            {
                "image.png": encode_png(image),
                "label.png": encode_label(label),
                "meta.json": encode_json({"quality": i / num}),
                **members,
            },
        )
        for i, (image, label) in enumerate(items)
    ]
    write_shard(folder / "000000.tar", samples[: num // 2])
    write_shard(folder / "000001.tar", samples[num // 2 :])
    return items


def test_samples_come_in_the_order_of_the_shards(tmp_path):
    items = write(tmp_path, num=5)
    source = ShardSource(tmp_path)
    assert len(source) == 5
    for i in (4, 0, 2, 1, 3):
        assert all(map(np.array_equal, source[i], items[i]))
    with pytest.raises(IndexError):
        source[5]


def test_memory_holds_no_images(tmp_path):
    write(tmp_path, num=100)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    ShardSource(tmp_path)
    tracemalloc.start()
    source = ShardSource(tmp_path)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source) == 100
    assert used < 1000 * len(source) < size / 5


def test_a_sample_without_a_label_and_an_image_that_is_none_are_named(tmp_path):
    write_shard(tmp_path / "000000.tar", [Sample("s-1", {"image.png": b""})])
    with pytest.raises(UserError, match=r"000000.tar: sample 's-1' has no member 'label.png'; delete the file"):
        ShardSource(tmp_path)
    write(tmp_path, num=4, **{"label.png": b"no image"})
    with pytest.raises(UserError, match=r"000001.tar: sample 's-000002', member 'label.png' holds an image that"):
        ShardSource(tmp_path)[2]


def test_every_tenth_is_held_out_and_the_others_are_trained_on(tmp_path):
    items = write(tmp_path, num=25, size=8)
    held_out, training = (ShardSource(tmp_path, part=part) for part in ("held_out", "training"))
    assert [len(held_out), len(training)] == [2, 23]
    assert np.array_equal(held_out[1][0], items[19][0]) and np.array_equal(training[9][0], items[10][0])


def test_too_few_to_hold_one_out_is_one_line(tmp_path):
    write(tmp_path, num=9, size=8)
    with pytest.raises(UserError, match="9 images are too few to hold out every 10th; raise"):
        ShardSource(tmp_path, part="held_out")


def test_samples_below_the_quality_are_left_out(tmp_path):
    items = write(tmp_path, num=20, size=8)
    source = ShardSource(tmp_path, min_quality=0.75)
    assert (len(source), source.num_low_quality) == (5, 15) and np.array_equal(source[0][0], items[15][0])
    with pytest.raises(UserError, match=r"no sample has a quality of 1; lower segmenter\.min_quality"):
        ShardSource(tmp_path, min_quality=1.0)


def test_shards_without_quality_cannot_be_filtered_by_it(tmp_path):
    write(tmp_path, num=4, size=8, **{"meta.json": encode_json({})})
    assert len(ShardSource(tmp_path)) == 4
    with pytest.raises(UserError, match="'quality' must be float, got None"):
        ShardSource(tmp_path, min_quality=0.5)


NAMES = ("cat", "dog", "bus")
PICTURED = encode_json({"prompt": "a photograph of a dog", "categories": ["dog"]})


def judge(folder, file, **verdicts):
    """A review of the samples of `folder`; verdicts: s_000003='rejected'."""
    seen = {s.key: with_masks_of_label(LabelledSample(s), NAMES) for s in read_samples(folder)}
    rows = [(key.replace("_", "-"), verdict) for key, verdict in verdicts.items()]
    write_review(file, [(key, seen[key].prompt, look_of(seen[key]), verdict, "") for key, verdict in rows])
    return read_review(file)


def test_rejected_samples_are_left_out_of_the_part_that_they_are_in(tmp_path):
    items = write(tmp_path / "s", num=25, size=9, **{"meta.json": PICTURED})
    verdicts = {"s_000002": "rejected", "s_000009": "rejected", "s_000010": "accepted"}
    review = judge(tmp_path / "s", tmp_path / "r.csv", **verdicts)
    given = {"review": review, "categories": NAMES}
    held_out, training = (ShardSource(tmp_path / "s", part=part, **given) for part in ("held_out", "training"))
    assert [(len(held_out), held_out.num_rejected), (len(training), training.num_rejected)] == [(1, 1), (22, 1)]
    assert np.array_equal(held_out[0][0], items[19][0])
    assert np.array_equal(training[1][0], items[1][0]) and np.array_equal(training[2][0], items[3][0])


def test_a_review_without_rejections_leaves_the_training_data_as_they_are(tmp_path):
    write(tmp_path / "s", num=5, size=9, **{"meta.json": PICTURED})
    plain = ShardSource(tmp_path / "s")
    for review in (judge(tmp_path / "s", tmp_path / "r.csv"), read_review(tmp_path / "none.csv")):
        source = ShardSource(tmp_path / "s", review=review, categories=NAMES)
        assert len(source) == len(plain) == 5
        assert all(a.tobytes() == b.tobytes() for i in range(5) for a, b in zip(source[i], plain[i], strict=True))


def test_a_rejection_of_a_sample_that_changed_and_of_one_that_is_not_there_are_refused(tmp_path):
    write(tmp_path / "s", num=5, size=9, **{"meta.json": PICTURED})
    review = judge(tmp_path / "s", tmp_path / "r.csv", s_000003="rejected")
    other = encode_json({"prompt": "a photograph of a dog on a sofa", "categories": ["dog"]})
    write(tmp_path / "s", num=5, size=9, **{"meta.json": other})
    with pytest.raises(UserError, match=r"line 2: 's-000003' was reviewed with the prompt .* `diffground studio`"):
        ShardSource(tmp_path / "s", review=review, categories=NAMES)
    write(tmp_path / "s", num=3, size=9, **{"meta.json": PICTURED})
    with pytest.raises(UserError, match=r"r.csv, line 2: 's-000003' is not one of the 3 samples"):
        ShardSource(tmp_path / "s", review=review, categories=NAMES)


def test_a_review_that_rejects_everything_is_one_line(tmp_path):
    write(tmp_path / "s", num=2, size=9, **{"meta.json": PICTURED})
    review = judge(tmp_path / "s", tmp_path / "r.csv", s_000000="rejected", s_000001="rejected")
    with pytest.raises(UserError, match=r"r.csv: rejects every sample"):
        ShardSource(tmp_path / "s", review=review, categories=NAMES)
