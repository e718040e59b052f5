"""Shards: WebDataset tars of samples. Only this module writes and reads them.

A sample is a key and named members; member `image.png` of sample `train-000012` is `train-000012.image.png` in the tar.
Member order, times, owners and modes are fixed, so equal content means equal bytes.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffground.atomic import atomic_file
from diffground.data.palette import VOC_PALETTE
from diffground.errors import UserError

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Suffixes that a member's name never has."""
_BLOCK = 512
_OCTAL = re.compile(rb"[0-7]+")  # int() takes signs and underscores too
_NO_MEMBER = bytes(_BLOCK)
_END_OF_ARCHIVE = 2 * _BLOCK  # zero bytes that end every complete tar
REMEDY = "delete the file and run `dvc repro`; the other shards are kept"
"""For messages about a shard that cannot be used."""
_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
_ARRAY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Sample:
    """`members`: file name ("image.png", "meta.json", "mask.dog.png") -> content. `key` has no dot and no slash."""

    key: str
    members: dict[str, bytes]
    path: Path | None = field(default=None, compare=False)
    """The shard that it was read from."""

    @property
    def place(self) -> str:
        """For messages: where the sample is."""
        return f"sample '{self.key}'" if self.path is None else f"{self.path}: sample '{self.key}'"


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
        if f".{name}".endswith(PICKLES):
            raise ValueError(f"a member is not a pickle, got {name!r}")
        info = tarfile.TarInfo(f"{sample.key}.{name}")
        info.size, info.mode = len(sample.members[name]), 0o644
        archive.addfile(info, io.BytesIO(sample.members[name]))


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of `path`, in order.

    Raises: UserError when the file is missing, truncated, or not one of ours: members in folders, links, devices and
    pickles are refused, not read. It names the member and the remedy.
    """
    key, members = "", dict[str, bytes]()
    with _open(path) as file:
        for number, member in enumerate(_walk(file, path), start=1):
            content = _content(file, member, path)
            if member.name.endswith(".npy") and _holds_objects(content):
                raise _foreign(path, number, f"{member.key}.{member.name}", "holds a pickle, which is never loaded")
            if member.key != key and members:
                yield Sample(key=key, members=members, path=path)
                members = {}
            key, members[member.name] = member.key, content
    if members:
        yield Sample(key=key, members=members, path=path)


def count_samples(path: Path) -> int:
    """Number of samples of `path`, read only from the tar's headers. Raises: UserError as read_shard does."""
    with _open(path) as file:
        return len({member.key for member in _walk(file, path)})


@dataclass(frozen=True, slots=True)
class Member:
    """The position of one member of a sample in its shard."""

    key: str
    name: str
    offset: int
    """Of its content in the file."""
    size: int


def list_members(path: Path) -> Iterator[Member]:
    """Every member of `path`, in order, read only from the tar's headers. Raises: UserError as read_shard does."""
    with _open(path) as file:
        yield from _walk(file, path)


def read_member(path: Path, member: Member) -> bytes:
    """The content of a member that `list_members(path)` named. Raises: UserError for a file that is gone or cut."""
    with _open(path) as file:
        return _content(file, member, path)


def _content(file: BufferedReader, member: Member, path: Path) -> bytes:
    content = os.pread(file.fileno(), member.size, member.offset)
    if len(content) < member.size:
        raise UserError(f"{path}: truncated at member '{member.key}.{member.name}'; {REMEDY}")
    return content


def _walk(file: BufferedReader, path: Path) -> Iterator[Member]:
    """Every member, only from its header; tarfile is many times slower, and treats a cut between members as the end.

    Raises: UserError as read_shard does.
    """
    descriptor = file.fileno()
    end, offset, number = os.fstat(descriptor).st_size, 0, 1
    while (header := os.pread(descriptor, _BLOCK, offset)) != _NO_MEMBER:
        if len(header) < _BLOCK or not _has_checksum(header):
            what = "truncated or no tar" if number == 1 else "truncated" if len(header) < _BLOCK else "damaged"
            raise UserError(f"{path}: {what} at member {number}; {REMEDY}")
        name = _text(header[:100])
        key, _, member = name.partition(".")
        # a prefix would be a folder; other kinds than these two are links, devices, folders and extended headers
        if not key or not member or "/" in name or header[345] or header[156:157] not in (b"0", b"\0"):
            raise _foreign(path, number, f"{_text(header[345:500])}/{name}" if header[345] else name)
        if name.endswith(PICKLES):
            raise _foreign(path, number, name, "is a pickle, which is never loaded")
        size = _octal(header[124:136])
        if size is None or offset + _BLOCK + size > end:
            raise UserError(f"{path}: truncated at member {number}; {REMEDY}")
        yield Member(key=key, name=member, offset=offset + _BLOCK, size=size)
        offset += _BLOCK + -(-size // _BLOCK) * _BLOCK
        number += 1
    tail = os.pread(descriptor, end - offset, offset)
    if len(tail) < _END_OF_ARCHIVE or any(tail):
        raise UserError(f"{path}: {'damaged' if any(tail) else 'truncated'} at member {number}; {REMEDY}")


def _has_checksum(header: bytes) -> bool:
    return _octal(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits, 8) if _OCTAL.fullmatch(digits) else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _foreign(path: Path, number: int, name: str, why: str = "is not of a shard") -> UserError:
    return UserError(f"{path}: member {number} {name!r} {why}; {REMEDY}")


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such shard; run `dvc repro`") from None


def _holds_objects(npy: bytes) -> bool:
    """Whether an array can only be unpickled; one that is damaged cannot be read either way."""
    stream = io.BytesIO(npy)
    try:
        read_header = _ARRAY_HEADERS[np.lib.format.read_magic(stream)]
        return read_header(stream)[2].hasobject
    except (KeyError, ValueError):
        return True


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


def decode_png(content: bytes, *, place: str = "a sample") -> np.ndarray:
    """PNG -> uint8 (H, W) or (H, W, 3). Raises: UserError, which names `place`, where it is not one."""
    return np.array(_open_image(content, place))


def encode_mask(mask: np.ndarray) -> bytes:
    """bool (H, W) -> 1-bit PNG."""
    return _save_png(Image.fromarray(_require(mask, np.bool_)))


def decode_mask(content: bytes, *, place: str = "a sample") -> np.ndarray:
    """1-bit PNG -> bool (H, W). Raises: UserError as decode_png does."""
    return np.array(_open_image(content, place).convert("1"), dtype=np.bool_)


def encode_label(label: np.ndarray) -> bytes:
    """uint8 (H, W), 0 background, 255 ignored -> PNG with the VOC palette."""
    image = Image.fromarray(_require(label, np.uint8))
    image.putpalette(VOC_PALETTE.tobytes())
    return _save_png(image)


def decode_label(content: bytes, *, place: str = "a sample") -> np.ndarray:
    """PNG with a palette -> its indices, uint8 (H, W). Raises: UserError as decode_png does."""
    return np.array(_open_image(content, place), dtype=np.uint8)


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


def _open_image(content: bytes, place: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except _BROKEN_IMAGE:
        raise UserError(f"{place} holds an image that cannot be decoded; {REMEDY}") from None
    return image


def _save_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _require(array: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    if array.dtype != dtype:
        raise ValueError(f"expected an array of {np.dtype(dtype)}, got {array.dtype}")
    return array
