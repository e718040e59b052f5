"""Which image files a folder has, and which of them a list names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from diffground.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""Of image files, in lower case; upper case is read too."""
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Of label images: formats that keep every value."""

_MAX_ID_BYTES = 60  # with a prefix and the name of a member it is a name in a tar, which has 100 bytes
_SUFFIX = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
_TWO_PATHS = re.compile(rf"(\S.*?(?:{_SUFFIX}))\s+\S.*(?:{_SUFFIX})", re.IGNORECASE)


class Files:
    """The files of a folder, by id: the path below the folder without its suffix, "a" or "sub/a".

    Letters with accents are the same in both of their Unicode forms; macOS and zip archives write the longer one.
    """

    def __init__(self, folder: Path, *, suffixes: Sequence[str], recursive: bool = False) -> None:
        """A folder that is not there has no files."""
        self.folder = folder
        self.other: list[Path] = []
        """Files with another suffix."""
        self._found: dict[str, list[Path]] = defaultdict(list)
        found = (folder.rglob("*") if recursive else folder.iterdir()) if folder.is_dir() else ()
        for path in sorted(found):
            if path.name.startswith(".") or path.is_dir():
                continue
            if path.suffix.lower() in suffixes:
                self._found[id_of(path.relative_to(folder))].append(path)
            else:
                self.other.append(path)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._found

    def ids(self) -> list[str]:
        """Sorted."""
        return sorted(self._found)

    def path(self, id_: str) -> Path:
        """Raises: UserError where several files have this id, and KeyError where none has."""
        if id_ not in self._found:
            raise KeyError(id_)
        several = self._found[id_]
        if len(several) > 1:
            raise UserError(
                f"{several[0]}: {several[1].name} has the same name with another suffix; remove one of them"
            )
        return several[0]


def id_of(path: Path) -> str:
    """A path without its suffix, its accents in their short form."""
    return unicodedata.normalize("NFC", path.with_suffix("").as_posix())


def read_list(path: Path, known: Files, *, may_be_empty: bool = False) -> list[str]:
    """The ids that a text file names, one image per line: its id, which may have spaces, its file name or path, or, as
    lists of the augmented PASCAL VOC have it, "/JPEGImages/<id>.jpg /SegmentationClassAug/<id>.png".

    Of a line that names no file of `known` as a whole, the first word counts. Windows line ends and a byte order mark
    are read. Raises: UserError for text that is not UTF-8, an id that is named twice, and a list without any.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; save it with this encoding") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    places: dict[str, list[int]] = defaultdict(list)
    for number, line in lines:
        if line:
            places[_id_in(line, known)].append(number)
    if not places and not may_be_empty:
        raise UserError(f"{path}: names no image; run `dvc repro prepare_data` or take another list")
    repeated = [id_ for id_, numbers in places.items() if len(numbers) > 1]
    if repeated:
        where = " and ".join(map(str, places[repeated[0]][:2]))
        raise UserError(
            f"{path}: names '{repeated[0]}' twice, in lines {where}, and {len(repeated) - 1} more images "
            f"several times; name each once"
        )
    return list(places)


def _id_in(line: str, known: Files) -> str:
    whole = unicodedata.normalize("NFC", line.replace("\\", "/"))
    if whole in known:
        return whole
    pair = _TWO_PATHS.fullmatch(whole)
    named = pair[1] if pair and "/" in whole else whole
    for candidate in (named, named.split()[0]):
        if re.search(rf"(?:{_SUFFIX})$", candidate, re.IGNORECASE):
            candidate = str(Path(candidate).with_suffix(""))
        # of a path, the part below the folder of images
        parts = candidate.strip("/").split("/")
        for i in range(len(parts)):
            if "/".join(parts[i:]) in known:
                return "/".join(parts[i:])
    return Path(named).stem if "/" in named and pair else named


def require_files(folder: Files, ids: Sequence[str], *, image_list: str, suffix: str) -> None:
    """Raises: UserError for ids that have no file; `suffix`: what the message shows."""
    missing = [id_ for id_ in ids if id_ not in folder]
    if not missing:
        return
    near = [path.name for path in folder.other if id_of(path.relative_to(folder.folder)) == missing[0]]
    instead = f" ({near[0]} is there, but must be one of {', '.join(MASK_SUFFIXES)})" if near else ""
    raise UserError(
        f"{folder.folder / missing[0]}{suffix}: missing{instead}, and {len(missing) - 1} more of the {len(ids)} images "
        f"of list '{image_list}'; complete the folder"
    )


def sample_ids(ids: Iterable[str]) -> Mapping[str, str]:
    """Each id -> what it is called in data/real and in shards: without dots and slashes, which end a shard's key, and
    of 60 bytes at most. Most ids stay as they are.

    Raises: UserError where two become the same.
    """
    named: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for id_ in ids:
        name = re.sub(r"[./\\]", "_", id_)
        if len(name.encode()) > _MAX_ID_BYTES:
            name = f"{name[:12]}_{hashlib.sha256(id_.encode()).hexdigest()[:16]}"
        if by_name.setdefault(name, id_) != id_:
            raise UserError(f"images '{by_name[name]}' and '{id_}' would both be called '{name}'; rename one of them")
        named[id_] = name
    return named
