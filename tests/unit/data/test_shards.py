import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffground.data import shards
from diffground.data.palette import VOC_PALETTE
from diffground.data.shards import Sample, count_samples, list_shards, read_samples, read_shard, write_shard
from diffground.errors import UserError

SAMPLES = [
    Sample(key=f"train-{i:06d}", members={"image.png": bytes([i]) * (500 + i), "meta.json": b"{}", "mask.dog.png": b""})
    for i in range(3)
]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "000000.tar"
    write_shard(path, SAMPLES)
    return path


def test_what_is_written_is_read_back(shard):
    assert list(read_shard(shard)) == SAMPLES
    assert count_samples(shard) == 3


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8).filter(
    lambda name: f".{name}" not in shards.PICKLES
)
members = st.dictionaries(st.builds("{}.{}".format, names, names), st.binary(max_size=1500), min_size=1, max_size=4)


@given(contents=st.dictionaries(names, members, max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_samples_survive_writing_and_reading(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("any") / "s.tar"
    samples = [Sample(key=key, members=content) for key, content in contents.items()]
    write_shard(path, samples)
    assert list(read_shard(path)) == samples
    assert count_samples(path) == len(samples)


def test_equal_content_means_equal_bytes(tmp_path, shard):
    backwards = [Sample(key=s.key, members=dict(reversed(s.members.items()))) for s in SAMPLES]
    write_shard(tmp_path / "again.tar", backwards)
    assert (tmp_path / "again.tar").read_bytes() == shard.read_bytes()


def test_a_shard_is_a_plain_tar_named_as_webdataset_does(shard):
    with tarfile.open(shard) as archive:
        infos = archive.getmembers()
    assert [i.name for i in infos[:3]] == [f"train-000000.{m}" for m in ("image.png", "mask.dog.png", "meta.json")]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.mode) for i in infos} == {(0, 0, 0, "", 0o644)}


def test_cut_anywhere_a_shard_is_an_error_and_never_a_shorter_shard(shard):
    content = shard.read_bytes()
    end = len(content) - len(content.rstrip(b"\0"))
    data_end = len(content) - end
    cuts = [*range(0, data_end, 256), data_end, data_end + 1]
    assert len(cuts) > 20
    for cut in cuts:
        shard.write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"000000\.tar: truncated.*delete the file and run `dvc repro`"):
            list(read_shard(shard))
        with pytest.raises(UserError):
            count_samples(shard)


def test_the_message_says_at_which_member_a_shard_is_cut(shard):
    content = shard.read_bytes()
    # a sample is header + 500 bytes, header + nothing, header + 2 bytes: 5 blocks; cut in the next one's first member
    shard.write_bytes(content[: 5 * 512 + 512 + 100])
    with pytest.raises(UserError, match="at member 4"):
        list(read_shard(shard))


def test_samples_before_the_cut_are_whole(shard):
    shard.write_bytes(shard.read_bytes()[: 2 * 5 * 512 + 700])
    read = []
    with pytest.raises(UserError):
        read.extend(iter(read_shard(shard)))
    assert all(sample in SAMPLES for sample in read)


def test_a_damaged_header_is_an_error(shard):
    content = bytearray(shard.read_bytes())
    content[5 * 512 : 5 * 512 + 20] = b"\xff" * 20
    shard.write_bytes(content)
    with pytest.raises(UserError, match="damaged at member 4"):
        list(read_shard(shard))


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_an_error(tmp_path, content):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tar: truncated or no tar at member 1"):
        list(read_shard(path))


@pytest.mark.parametrize("name", ["README", "folder/a.png", ".hidden"])
def test_a_foreign_tar_is_an_error(tmp_path, name):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(UserError, match=f"member 1 '{name}' is not of a shard"):
        list(read_shard(path))


def test_a_missing_shard_a_missing_folder_and_an_empty_one_say_so(tmp_path):
    with pytest.raises(UserError, match="no such shard"):
        list(read_shard(tmp_path / "x.tar"))
    with pytest.raises(UserError, match="no such folder of shards; run `dvc repro`"):
        list_shards(tmp_path / "none")
    with pytest.raises(UserError, match="holds no shard"):
        list_shards(tmp_path)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for name, sample in (("000001", SAMPLES[1]), ("000000", SAMPLES[0])):
        write_shard(tmp_path / f"{name}.tar", [sample])
    (tmp_path / "fingerprint.json").write_text("{}")
    assert list(read_samples(tmp_path)) == SAMPLES[:2]


def test_a_failing_source_of_samples_leaves_no_file(tmp_path):
    def broken():
        yield SAMPLES[0]
        raise RuntimeError("out of samples")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "a.tar", broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "name"), [("", "a.png"), ("a.b", "a.png"), ("a/b", "a.png"), ("a", ""), ("a", "b/c")])
def test_names_that_would_be_read_back_as_others_are_refused(tmp_path, key, name):
    with pytest.raises(ValueError, match="is not empty and has no"):
        write_shard(tmp_path / "a.tar", [Sample(key=key, members={name: b""})])


def test_members_are_read_one_by_one_from_where_they_lie(shard):
    members = list(shards.list_members(shard))
    assert [(m.key, m.name) for m in members] == [(s.key, name) for s in SAMPLES for name in sorted(s.members)]
    assert [shards.read_member(shard, m) for m in members] == [s.members[n] for s in SAMPLES for n in sorted(s.members)]
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(UserError, match=r"000000.tar: truncated at member 'train-000002.image.png'; delete the file"):
        shards.read_member(shard, members[-3])


PNG = shards.encode_png(np.full((8, 8, 3), 7, dtype=np.uint8))


@pytest.mark.parametrize("content", [b"", b"no image", PNG[:20], PNG[:-28], PNG[:50] + b"xxxx" + PNG[54:]])
@pytest.mark.parametrize("decode", [shards.decode_png, shards.decode_mask, shards.decode_label])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, content, decode):
    write_shard(tmp_path / "a.tar", [Sample(key="train-000007", members={"image.png": content})])
    (sample,) = read_shard(tmp_path / "a.tar")
    with pytest.raises(UserError, match=r"a.tar: sample 'train-000007' holds an image that cannot be decoded; delete"):
        decode(sample.members["image.png"], place=sample.place)


RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1), (1, 1, 3)])
def test_images_survive_as_png(shape):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    decoded = shards.decode_png(shards.encode_png(image))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, image)


@pytest.mark.parametrize("width", [1, 7, 8, 9])
def test_masks_survive_as_one_bit_png(width):
    mask = RNG.random((5, width)) < 0.5
    content = shards.encode_mask(mask)
    assert content[24] == 1  # IHDR: bit depth
    decoded = shards.decode_mask(content)
    assert decoded.dtype == np.bool_
    assert np.array_equal(decoded, mask)


def test_labels_survive_with_the_voc_palette():
    from PIL import Image

    label = np.array([[0, 1, 20], [255, 15, 8]], dtype=np.uint8)
    content = shards.encode_label(label)
    assert np.array_equal(shards.decode_label(content), label)
    # devkit colours: background black, aeroplane (128, 0, 0), tvmonitor (0, 64, 128), void (224, 224, 192)
    rgb = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    assert rgb[0].tolist() == [[0, 0, 0], [128, 0, 0], [0, 64, 128]]
    assert rgb[1, :2].tolist() == [[224, 224, 192], [192, 128, 128]]
    assert VOC_PALETTE[15].tolist() == [192, 128, 128]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_arrays_survive(dtype):
    array = RNG.normal(size=(4, 3, 2)).astype(dtype)
    decoded = shards.decode_array(shards.encode_array(array))
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, array)


def test_nothing_is_pickled():
    with pytest.raises(ValueError, match="allow_pickle"):
        shards.encode_array(np.array([{}], dtype=object))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        shards.decode_array(buffer.getvalue())


def test_json_has_one_form():
    assert shards.encode_json({"b": 1, "a": "é"}) == shards.encode_json({"a": "é", "b": 1})
    assert shards.decode_json(shards.encode_json({"a": ["é", 1.5]})) == {"a": ["é", 1.5]}
    with pytest.raises(ValueError, match="JSON compliant"):
        shards.encode_json(float("nan"))


def test_a_wrong_dtype_is_refused():
    with pytest.raises(ValueError, match="expected an array of uint8, got float64"):
        shards.encode_png(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="expected an array of bool, got uint8"):
        shards.encode_mask(np.zeros((2, 2), dtype=np.uint8))
