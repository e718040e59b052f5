"""Which version of a registered model an alias names.

- `champion-<profile>`: the best of its profile. It moves when a version scores higher on the same benchmark.
- `champion`: what to use if one knows no better. It follows the champion of its own profile, and moves to another
  profile only upward: from `smoke`, whose weights are random, to `mini`, and from `mini` to any that works on real
  photographs. Scores of two profiles are never compared.

A benchmark is what the score was measured on: another split, other images or other prompts do not compete either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANKS = {"smoke": 0, "mini": 1}
_REAL = 2


@dataclass(frozen=True)
class Standing:
    """What the rules ask of a version."""

    profile: str
    benchmark: str
    score: float
    """Harmonic mean of seen and unseen mIoU, percent."""


def profile_alias(profile: str) -> str:
    return f"champion-{re.sub(r'[^A-Za-z0-9_-]', '-', profile)}"


def takes_alias(alias: str, candidate: Standing, holder: Standing | None) -> bool:
    """Whether `candidate` takes `alias` over from `holder`, None where nobody holds it or its holder has no score."""
    if holder is None:
        return True
    if candidate.profile != holder.profile:
        return alias == "champion" and _rank(candidate) > _rank(holder)
    return candidate.benchmark == holder.benchmark and candidate.score > holder.score


def _rank(standing: Standing) -> int:
    return _RANKS.get(standing.profile, _REAL)
