"""PASCAL's categories, and those of them that prompts or COCO call by another name."""

from __future__ import annotations

from diffground.vocabulary import load_vocabulary

_VOCABULARY = load_vocabulary("pascal")

PASCAL_CATEGORIES = _VOCABULARY.categories
"""In the order of their labels."""
PHRASES = {category: phrase for category, phrase in _VOCABULARY.phrases.items() if phrase != category}
"""Category -> its words in a prompt."""
COCO_NAMES = {category: name for category, name in _VOCABULARY.detector_names.items() if name and name != category}
"""Category -> COCO's name."""
