"""SVG drawings for categories of which the emoji sets have too few artworks."""

from __future__ import annotations


def _svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{body}</svg>'


def _rect(x: float, y: float, w: float, h: float, fill: str, *, r: float = 0, stroke: str = "none") -> str:
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" fill="{fill}" stroke="{stroke}" stroke-width="2"/>'


def _dining_table(top: str, legs: str, cloth: str | None, *, round_top: bool, stroke: str) -> str:
    body = "".join(_rect(x, 34, 5, 28, legs, stroke=stroke) for x in (12, 55))
    body += "".join(_rect(x, 34, 4, 20, legs, stroke=stroke) for x in (24, 44))
    if round_top:
        body += f'<ellipse cx="36" cy="30" rx="33" ry="9" fill="{top}" stroke="{stroke}" stroke-width="2"/>'
    else:
        body += f'<polygon points="14,24 58,24 69,36 3,36" fill="{top}" stroke="{stroke}" stroke-width="2"/>'
    if cloth:
        body += f'<polygon points="25,24 47,24 52,44 20,44" fill="{cloth}"/>'
    return _svg(body)


def _sofa(body_fill: str, cushion: str, *, arms: float, stroke: str) -> str:
    return _svg(
        _rect(9, 58, 5, 6, "#5c4033")
        + _rect(58, 58, 5, 6, "#5c4033")
        + _rect(9, 24, 54, 28, body_fill, r=6, stroke=stroke)
        + _rect(13, 42, 46, 14, cushion, r=3, stroke=stroke)
        + _rect(3, 60 - arms, 11, arms, body_fill, r=5, stroke=stroke)
        + _rect(58, 60 - arms, 11, arms, body_fill, r=5, stroke=stroke)
        + '<path d="M36 28v26" stroke="#0004" stroke-width="2"/>'
    )


def _chair(wood: str, seat: str, *, stroke: str) -> str:
    return _svg(
        _rect(18, 6, 6, 60, wood, stroke=stroke)
        + _rect(20, 10, 28, 6, wood, stroke=stroke)
        + _rect(20, 22, 28, 6, wood, stroke=stroke)
        + _rect(46, 6, 6, 60, wood, stroke=stroke)
        + _rect(15, 38, 41, 8, seat, r=2, stroke=stroke)
    )


def _potted_plant(pot: str, leaf: str, *, blades: int, stroke: str) -> str:
    step = 120 / (blades - 1)
    leaves = "".join(
        f'<ellipse cx="36" cy="24" rx="5" ry="20" fill="{leaf}" stroke="{stroke}" stroke-width="1.5" '
        f'transform="rotate({-60 + i * step} 36 44)"/>'
        for i in range(blades)
    )
    return _svg(
        leaves + f'<polygon points="21,44 51,44 46,68 26,68" fill="{pot}" stroke="{stroke}" stroke-width="2"/>'
        f'<rect x="19" y="42" width="34" height="6" fill="{pot}" stroke="{stroke}" stroke-width="2"/>'
    )


def _screen(frame: str, glass: str, *, stroke: str) -> str:
    return _svg(
        "".join(f'<path d="M{x} 54l{dx} 9" stroke="{frame}" stroke-width="4"/>' for x, dx in ((18, -6), (54, 6)))
        + _rect(4, 12, 64, 42, frame, r=3, stroke=stroke)
        + _rect(8, 16, 56, 34, glass)
        + '<polygon points="12,46 36,18 46,18 22,46" fill="#fff4"/>'
    )


def _legs(fill: str, *xs: float, stroke: str) -> str:
    return "".join(_rect(x, 44, 6, 22, fill, r=3, stroke=stroke) for x in xs)


def _cat(coat: str, stripes: str, *, stroke: str) -> str:
    def ear(x: float) -> str:
        return f'<polygon points="{x},22 {x + 1},8 {x + 9},15" fill="{coat}" stroke="{stroke}" stroke-width="2"/>'

    return _svg(
        f'<path d="M60 40C70 34 70 20 63 12" fill="none" stroke="{coat}" stroke-width="6" stroke-linecap="round"/>'
        + _legs(coat, 22, 30, 48, 55, stroke=stroke)
        + f'<ellipse cx="42" cy="42" rx="22" ry="11" fill="{coat}" stroke="{stroke}" stroke-width="2"/>'
        + "".join(f'<path d="M{x} 33v8" stroke="{stripes}" stroke-width="3"/>' for x in (38, 46, 54))
        + ear(7)
        + ear(19)
        + f'<circle cx="17" cy="27" r="12" fill="{coat}" stroke="{stroke}" stroke-width="2"/>'
        + "".join(f'<circle cx="{x}" cy="26" r="2" fill="#222"/>' for x in (12, 21))
        + '<path d="M15 31h4l-2 2z" fill="#d77"/>'
    )


def _sheep(wool: str, face: str, *, stroke: str) -> str:
    curls = ((24, 32), (35, 27), (47, 28), (57, 34), (59, 44), (49, 49), (37, 50), (26, 46), (41, 38))
    return _svg(
        _legs(face, 26, 34, 47, 54, stroke=stroke)
        + "".join(f'<circle cx="{x}" cy="{y}" r="10" fill="{wool}" stroke="{stroke}"/>' for x, y in curls)
        + _rect(24, 30, 34, 18, wool)
        + f'<ellipse cx="14" cy="34" rx="8" ry="11" fill="{face}" stroke="{stroke}" stroke-width="2"/>'
        + f'<ellipse cx="22" cy="27" rx="6" ry="3" fill="{face}" transform="rotate(25 22 27)"/>'
        + f'<circle cx="15" cy="23" r="6" fill="{wool}"/><circle cx="12" cy="33" r="1.5" fill="#fff"/>'
    )


def _motorbike(tank: str, seat: str, *, stroke: str) -> str:
    def wheel(x: float) -> str:
        return f'<circle cx="{x}" cy="52" r="10" fill="#999" stroke="#222" stroke-width="5"/>'

    return _svg(
        wheel(15)
        + wheel(57)
        + '<path d="M15 52l10-24M18 24l10 4" stroke="#555" stroke-width="4" stroke-linecap="round"/>'
        + _rect(27, 40, 20, 14, "#777", r=3, stroke=stroke)
        + f'<polygon points="24,30 42,28 48,40 28,42" fill="{tank}" stroke="{stroke}" stroke-width="2"/>'
        + f'<path d="M42 32h20l4 4-18 6z" fill="{seat}"/>'
        + f'<path d="M46 48l14 4" stroke="{tank}" stroke-width="4"/><circle cx="20" cy="30" r="4" fill="#fe9"/>'
    )


DRAWINGS: dict[str, str] = {
    "diningtable_a": _dining_table("#b5793a", "#8a5a2b", None, round_top=False, stroke="none"),
    "diningtable_b": _dining_table("#c98b4b", "#9c6531", "#e8e4da", round_top=True, stroke="#000"),
    "diningtable_c": _dining_table("#a4622f", "#7a4520", "#d94f4f", round_top=False, stroke="#000"),
    "diningtable_d": _dining_table("#bf8040", "#8f5c2c", "#e8e4da", round_top=False, stroke="none"),
    "diningtable_e": _dining_table("#b06a33", "#84502a", None, round_top=True, stroke="none"),
    "sofa_a": _sofa("#c0504d", "#d9706c", arms=24, stroke="none"),
    "sofa_b": _sofa("#6a8f3f", "#86ad58", arms=22, stroke="#000"),
    "sofa_c": _sofa("#4f81bd", "#78a2d6", arms=26, stroke="none"),
    "chair_a": _chair("#a0662f", "#c98b4b", stroke="none"),
    "chair_b": _chair("#b5793a", "#d9a35f", stroke="#000"),
    "pottedplant_a": _potted_plant("#c1694f", "#5c913b", blades=5, stroke="none"),
    "pottedplant_b": _potted_plant("#d07a4a", "#77b255", blades=6, stroke="#000"),
    "pottedplant_c": _potted_plant("#8d6e9c", "#3f8f5f", blades=4, stroke="none"),
    "cat_a": _cat("#c58f52", "#8a5a2b", stroke="none"),
    "motorbike_a": _motorbike("#c0392b", "#333", stroke="none"),
    "sheep_a": _sheep("#f2ede2", "#4a4038", stroke="none"),
    "tvmonitor_a": _screen("#2e3440", "#5b8db8", stroke="none"),
}
"""Drawing name -> SVG document, 72x72 user units, transparent background."""
