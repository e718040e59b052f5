"""Which split a prompt belongs to: never two of them, whatever the order and number of samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

from diffground.errors import UserError

SPLITS = ("train", "val", "test")
_RULE = "--split must be 1 to 3 shares of train, val and test that sum to 1, e.g. 0.8,0.1,0.1"


def parse_split(text: str) -> tuple[float, ...]:
    """ "0.8,0.1,0.1" -> shares of train, val and test, in 0..1. Raises: UserError for anything else."""
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{_RULE}; got '{text}'") from None
    # written so that NaN is refused too
    if len(shares) > len(SPLITS) or not all(share >= 0 for share in shares) or not abs(sum(shares) - 1) < 1e-6:
        raise UserError(f"{_RULE}; got '{text}'")
    return shares


def split_of(prompt: str, shares: Sequence[float], *, seed: int) -> str:
    """One of SPLITS, it depends only on the prompt's text and the seed. A share of 0 gets no prompt."""
    place = draw(prompt, seed=seed)
    for name, share, end in zip(SPLITS, shares, accumulate(shares), strict=False):
        if share > 0 and place < end:
            return name
    return next(name for name, share in reversed(list(zip(SPLITS, shares, strict=False))) if share > 0)


def draw(text: str, *, seed: int) -> float:
    """A number in [0, 1), evenly spread over texts and the same for the same text and seed."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    # 53 bits are what a float holds; more would be rounded up to 1
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
