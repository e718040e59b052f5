"""SVG drawings for categories that the emoji sets lack or have only once: dining table, sofa, chair, potted plant."""

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
}
"""Drawing name -> SVG document, 72x72 user units, transparent background."""
