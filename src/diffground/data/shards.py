"""Shards: WebDataset tars of samples. This module alone writes and reads them.

A sample is a key and named members; member `image.png` of sample `train-000012` is `train-000012.image.png` in the tar.
Member order, times, owners and modes are fixed, so equal content means equal bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffground.atomic import atomic_file
from diffground.errors import UserError

from .palette import VOC_PALETTE

_BLOCK = 512
_END_OF_ARCHIVE = 2 * _BLOCK  # zero bytes that end every complete tar


@dataclass(frozen=True)
class Sample:
    """`members`: file name ("image.png", "meta.json", "mask.dog.png") -> content. `key` has no dot and no slash."""

    key: str
    members: dict[str, bytes]


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write `samples` to `path`, whole or not at all, see diffground.atomic.

    Raises: ValueError for a key or member name that WebDataset would read back as another one.
    """
    with atomic_file(path) as partial, tarfile.open(partial, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in samples:
            _add(archive, sample)


def _add(archive: tarfile.TarFile, sample: Sample) -> None:
    if not sample.key or "." in sample.key or "/" in sample.key:
        raise ValueError(f"a sample key is not empty and has no dot and no slash, got {sample.key!r}")
    for name in sorted(sample.members):
        if not name or "/" in name:
            raise ValueError(f"a member name is not empty and has no slash, got {name!r}")
        info = tarfile.TarInfo(f"{sample.key}.{name}")
        info.size, info.mode = len(sample.members[name]), 0o644
        archive.addfile(info, io.BytesIO(sample.members[name]))


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of `path`, in order.

    Raises: UserError when the file is missing, truncated, or not one of ours; it names the member and the remedy.
    """
    key, members = "", dict[str, bytes]()
    for sample_key, name, content in _read_members(path, with_content=True):
        if sample_key != key and members:
            yield Sample(key=key, members=members)
            members = {}
        key, members[name] = sample_key, content
    if members:
        yield Sample(key=key, members=members)


def count_samples(path: Path) -> int:
    """Number of samples of `path`, read from the tar's headers alone. Raises: UserError as read_shard does."""
    return len({key for key, _, _ in _read_members(path, with_content=False)})


def _read_members(path: Path, *, with_content: bool) -> Iterator[tuple[str, str, bytes]]:
    """(sample key, member name, content); content is empty without `with_content`."""
    remedy = "delete the file and run `dvc repro`; the other shards are kept"
    num_read, end = 0, 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (info := archive.next()) is not None:
                key, _, name = info.name.partition(".")
                stream = archive.extractfile(info) if info.isreg() else None
                if stream is None or not key or not name or "/" in info.name:
                    raise UserError(f"{path}: member {num_read + 1} '{info.name}' is not of a shard; {remedy}")
                content = stream.read() if with_content else b""
                num_read += 1
                end = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
                yield key, name, content
            # tarfile takes a file that stops between two members for complete
            file.seek(end)
            tail = file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such shard; run `dvc repro`") from None
    except tarfile.ReadError as error:
        raise UserError(f"{path}: truncated or no tar at member {num_read + 1} ({error}); {remedy}") from None
    if len(tail) < _END_OF_ARCHIVE:
        raise UserError(f"{path}: truncated at member {num_read + 1}; {remedy}")
    if any(tail):
        raise UserError(f"{path}: damaged at member {num_read + 1}; {remedy}")


def list_shards(folder: Path) -> list[Path]:
    """The shards of `folder`, by name.

    Raises: UserError when there is no such folder or no shard in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of shards; run `dvc repro`")
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise UserError(f"{folder}: holds no shard (*.tar); run `dvc repro`")
    return shards


def read_samples(folder: Path) -> Iterator[Sample]:
    """The samples of all shards of `folder`, in order. Raises: UserError as list_shards and read_shard do."""
    for path in list_shards(folder):
        yield from read_shard(path)


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (H, W) or (H, W, 3) -> PNG."""
    return _save_png(Image.fromarray(_require(image, np.uint8)))


def decode_png(content: bytes) -> np.ndarray:
    """PNG -> uint8 (H, W) or (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(content)))


def encode_mask(mask: np.ndarray) -> bytes:
    """bool (H, W) -> 1-bit PNG."""
    return _save_png(Image.fromarray(_require(mask, np.bool_)))


def decode_mask(content: bytes) -> np.ndarray:
    """1-bit PNG -> bool (H, W)."""
    return np.array(Image.open(io.BytesIO(content)).convert("1"), dtype=np.bool_)


def encode_label(label: np.ndarray) -> bytes:
    """uint8 (H, W), 0 background, 255 ignored -> PNG with the VOC palette."""
    image = Image.fromarray(_require(label, np.uint8))
    image.putpalette(VOC_PALETTE.tobytes())
    return _save_png(image)


def decode_label(content: bytes) -> np.ndarray:
    """PNG with a palette -> its indices, uint8 (H, W)."""
    return np.array(Image.open(io.BytesIO(content)), dtype=np.uint8)


def encode_array(array: np.ndarray) -> bytes:
    """An array of numbers -> .npy. Raises: ValueError for an array of objects."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def decode_array(content: bytes) -> np.ndarray:
    """.npy -> the array. Raises: ValueError for a pickled array."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def encode_json(value: Any) -> bytes:
    """JSON with sorted keys, so equal values mean equal bytes. Raises: ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def decode_json(content: bytes) -> Any:
    return json.loads(content)


def _save_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _require(array: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    if array.dtype != dtype:
        raise ValueError(f"expected an array of {np.dtype(dtype)}, got {array.dtype}")
    return array
