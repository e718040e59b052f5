"""Names of categories that users already have: in a COCO file, a VOC devkit or a list."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from diffground.errors import UserError


def names_from_coco(path: Path) -> list[str]:
    """The category names of a COCO JSON, in the order of their ids. Raises: UserError for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [str(entry["name"]) for entry in sorted(content["categories"], key=lambda entry: entry["id"])]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a COCO annotation file") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: no COCO annotations: it must be JSON with 'categories' of id and name") from None


def names_from_voc(folder: Path) -> list[str]:
    """The category names of a VOC devkit: of labelmap.txt, else of its Annotations.

    Raises: UserError for a folder that has neither.
    """
    labelmap = folder / "labelmap.txt"
    if labelmap.is_file():
        lines = labelmap.read_text(encoding="utf-8-sig").splitlines()
        names = [line.split(":")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
        return [name for name in names if name not in ("background", "void", "ignore")]
    found = set()
    for path in sorted((folder / "Annotations").glob("*.xml")):
        try:
            found |= {name.text.strip() for name in ElementTree.parse(path).iterfind("object/name") if name.text}
        except ElementTree.ParseError as error:
            raise UserError(f"{path}: cannot be read as XML ({error})") from None
    if not found:
        raise UserError(f"{folder}: has neither labelmap.txt nor Annotations/*.xml with objects; use --from-list")
    return sorted(found)


def names_from_list(path: Path) -> list[str]:
    """One name per line; blank lines and those that begin with # are left out. Raises: UserError without any."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (FileNotFoundError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot be read; give a text file with one category per line") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise UserError(f"{path}: names no category; write one per line")
    return names
