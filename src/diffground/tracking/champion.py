"""Which version of a registered model an alias names.

- `champion-<profile>`: the best of its profile. It moves when a version scores higher on the same benchmark.
- `champion`: the default choice. It follows the champion of its own profile, and moves to another profile only upward:
  from `smoke`, whose weights are random, to `mini`, and from `mini` to any that works on real photographs. Scores of
  two profiles are never compared.

A benchmark is what the score was measured on. Scores on different splits, images or prompts are not compared.
"""

from __future__ import annotations

from dataclasses import dataclass

_RANKS = {"smoke": 0, "mini": 1}
_REAL = 2


@dataclass(frozen=True)
class Standing:
    """The facts about a version that decide its aliases."""

    profile: str
    benchmark: str
    score: float
    """Harmonic mean of seen and unseen mIoU, percent."""

    @property
    def rank(self) -> int:
        return _RANKS.get(self.profile, _REAL)


def takes_alias(alias: str, candidate: Standing, holder: Standing | None) -> bool:
    """Whether `candidate` takes `alias` over from `holder`; None: the alias is free or its holder has no score."""
    if holder is None:
        return True
    if candidate.profile != holder.profile:
        return alias == "champion" and candidate.rank > holder.rank
    return candidate.benchmark == holder.benchmark and candidate.score > holder.score
