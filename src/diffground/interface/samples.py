"""Which images `diffground ground` makes of several prompts and seeds, and where they are written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffground.interface.results import read_record, same_settings

FILES = ("image.png", "mask.png", "overlay.png", "meta.json")
"""Of each sample; the last one is written last."""


@dataclass(frozen=True)
class Samples:
    """Each prompt with each seed."""

    prompts: Sequence[str]
    words: Sequence[Sequence[str]]
    """Of each prompt."""
    seeds: range
    out: Path
    settings: Mapping[str, Any]
    """Those that all samples have in common."""

    def __len__(self) -> int:
        return len(self.prompts) * len(self.seeds)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Place of the prompt, and seed: all seeds of the first prompt first."""
        return ((i, seed) for i in range(len(self.prompts)) for seed in self.seeds)

    def folder(self, place: int, seed: int) -> Path:
        """<out>/<beginning of the prompt>-<digest of it>/<seed>."""
        prompt = self.prompts[place]
        readable = "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:48].strip("-")
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return self.out / "-".join(filter(None, [readable, digest])) / str(seed)

    def settings_of(self, place: int, seed: int) -> dict[str, Any]:
        return {"prompt": self.prompts[place], "words": list(self.words[place]), "seed": seed, **self.settings}

    def finished(self) -> bytearray:
        """For each sample 1 if an earlier run finished it with the same settings, else 0."""
        return bytearray(self._is_finished(place, seed) for place, seed in self)

    def _is_finished(self, place: int, seed: int) -> bool:
        files = [self.folder(place, seed) / name for name in FILES]
        return all(file.is_file() for file in files) and same_settings(
            read_record(files[-1]), self.settings_of(place, seed)
        )
