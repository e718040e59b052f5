"""Rasterise the emoji art into pretrain/data/sprites.npz, so that a training machine needs no emoji packages.

The training artworks are those of the mini world and, by more_art.yaml, of two further sets; `npm ci --prefix art`
installs those two.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import yaml
from common import HERE

from diffground.data.stickers.sprites import SpriteBook, load_sprites, rasterise, save_sprites

_PACKAGES = {"noto": "noto", "fluent": "fluent-emoji-flat"}


@cache
def _icon_set(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Codepoints -> icon name, and the icons, of one set."""
    folder = HERE / "art" / "node_modules" / "@iconify-json" / _PACKAGES[name]
    if not folder.is_dir():
        raise SystemExit(f"{folder}: missing; run: npm ci --prefix art")
    return json.loads((folder / "chars.json").read_text()), json.loads((folder / "icons.json").read_text())


def read_svg(art: str) -> str:
    """The SVG document of "noto:1F415"."""
    source, codepoints = art.split(":")
    names, icons = _icon_set(source)
    codepoints = codepoints.lower()
    name = names.get(codepoints) or names[codepoints.replace("-fe0f", "")]
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    size = " ".join(str(icons.get(side, 16)) for side in ("width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {size}">'
        f"{icons['icons'][name]['body']}</svg>"
    )


def main() -> None:
    book = load_sprites()
    more = yaml.safe_load((HERE / "more_art.yaml").read_text())
    train = {
        category: [*sprites, *(rasterise(category, spec, read_svg=read_svg) for spec in more.get(category, ()))]
        for category, sprites in book.train.items()
    }
    (HERE / "data").mkdir(exist_ok=True)
    save_sprites(SpriteBook(train=train, val=book.val, further=book.further), HERE / "data" / "sprites.npz")


if __name__ == "__main__":
    main()
