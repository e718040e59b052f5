"""Find the categories that a text names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from diffground.vocabulary import Vocabulary, load_vocabulary

_OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("plane", "aircraft", "jet"),
    "bicycle": ("bike", "cyclist"),
    "boat": ("ship", "sailboat", "rowboat", "ferry"),
    "bottle": (),
    "bird": ("pigeon", "seagull", "duck"),
    "car": ("taxi",),
    "cat": ("kitten",),
    "cell phone": ("phone", "cellphone", "smartphone"),
    "chair": ("armchair",),
    "cow": ("cattle", "calf", "calves", "bull"),
    "diningtable": ("table",),
    "dog": ("puppy", "puppies"),
    "donut": ("doughnut",),
    "hair drier": ("hair dryer", "hairdryer"),
    "horse": ("pony", "ponies", "foal"),
    "knife": ("knives",),
    "motorbike": ("moped",),
    "mouse": ("mice",),
    "person": (
        "people", "man", "men", "woman", "women", "boy", "girl", "child", "children", "kid", "baby", "babies",
        "crowd", "family", "tourist", "rider", "driver", "player", "farmer", "surfer", "skier",
    ),
    "pottedplant": ("plant", "houseplant"),
    "refrigerator": ("fridge",),
    "sheep": ("lamb",),
    "skis": ("ski",),
    "sports ball": ("ball", "football", "basketball"),
    "tvmonitor": ("television", "monitor", "tv set"),
    "wine glass": ("wineglass", "glasses"),
}  # fmt: skip
"""Further words for a category, in addition to its name. Plurals in s or es are added."""


@cache
def known_categories() -> tuple[str, ...]:
    """Every category of the built-in vocabularies, and COCO's mouse."""
    return (*_coco().categories, "mouse")  # PASCAL's are among COCO's


@cache
def _coco() -> Vocabulary:
    return load_vocabulary("coco")


def named_categories(text: str, categories: Iterable[str]) -> list[str]:
    """Those of `categories` that `text` names by any of their words, in its order; "hot dog" names no dog."""
    wanted = set(categories)
    return [category for category in _search(text, _all_words()) if category in wanted]


def phrases_in(text: str, phrases: Mapping[str, str]) -> list[str]:
    """The categories of `phrases` (category -> its words in a prompt) that `text` names, in its order.

    Only these very words count, and not where they are part of another category's ("hot dog").
    """
    own = _coco().phrases
    others = {own.get(c, c).lower(): c for c in known_categories() if c not in phrases}
    found = _search(text, {**others, **{words.lower(): category for category, words in phrases.items()}})
    return [category for category in found if category in phrases]


@cache
def _all_words() -> dict[str, str]:
    """Words in lower case -> the category that they name."""
    coco, found = _coco(), dict[str, str]()
    for category in known_categories():
        names = {category, coco.phrases.get(category, category), coco.detector_names.get(category) or category}
        for name in [*names, *_OTHER_WORDS.get(category, ())]:
            found |= {name + ending: category for ending in ("", "s", "es")}
    return found


def _search(text: str, words: Mapping[str, str]) -> list[str]:
    """What `words` (in lower case -> category) name in `text`, each once, by its first place there."""
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))
    matches = re.finditer(rf"(?<!\w)(?:{longest_first})(?!\w)", text, flags=re.IGNORECASE)
    return list(dict.fromkeys(words[match[0].lower()] for match in matches))
