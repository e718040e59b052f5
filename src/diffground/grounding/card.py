"""The model cards of grounding modules: trained here, or imported from the authors' checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffground.grounding.config import GroundingConfig
from diffground.vocabulary import Vocabulary

_IMAGES = {
    "sim": "images that the generator made, labelled by an off-the-shelf detector",
    "real": "real images with their own labels, inverted by DDIM",
    "both": "images: the generator's, labelled by an off-the-shelf detector, and real ones, with their own labels",
}


def grounding_card(
    metrics: Mapping[str, Any], *, config: GroundingConfig, checkpoint: str, vocabulary: Vocabulary
) -> str:
    """README.md of the model folder; `metrics` as in train_grounding.json."""
    extras = "with word attention" if config.word_attention else "the paper's module, without word attention"
    return f"""# Grounding module

Masks for words, from the features of a text-to-image model ({extras}).

- **Generator**: `{checkpoint}`; the module reads the features of this one only.
- **Data**: {metrics["num_samples"]} {_IMAGES[config.training_data]}; {len(vocabulary.seen)} seen categories
  ({", ".join(vocabulary.seen)}). {metrics["num_skipped_queries"]} of {metrics["num_queries"]} named objects were not
  found; training type `{config.training_type}`.
- **Never seen in training**: {", ".join(vocabulary.unseen) or "nothing"}.
- **Recipe**: {config.iterations} iterations, batch {config.batch_size}, Adam, learning rate {config.learning_rate:g},
  seed {config.seed}; {metrics["num_weights"]} weights; final loss {metrics["final_loss"]:.4f}.
- **Made by**: `dvc repro train_grounding`; scores in `reports/metrics/evaluate_grounding.json`.
- **Limits**: masks are only as good as the images and masks that it was trained on.
- **Licence**: Apache-2.0.
"""


def released_card(file_name: str, *, sha256: str) -> str:
    """README.md of the model folder made of the authors' checkpoint."""
    return f"""# Grounding module of the paper's authors

Masks for words, from the features of a text-to-image model: the published weights of
[arXiv 2301.05221](https://arxiv.org/abs/2301.05221), unchanged, in another file format.

- **Made by**: `diffground import-released {file_name}`; SHA-256 of that file: `{sha256}`.
- **Generator**: Stable Diffusion 1.x at 512 px; features of both guidance branches, unconditional first, read where
  the authors trained it: at the last of 50 steps (`generator.tapped_step: 1`).
- **Data, categories, scores**: see the paper and the authors' repository; nothing was trained or measured here.
- **Limits**: here the module normalises with its stored statistics, so that a sample's masks depend only on that
  sample; in the authors' demo it stays in training mode and normalises with those of the image at hand.
- **Licence**: the authors' terms.
"""
