"""The model card of a trained grounding module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffground.config import GroundingConfig
from diffground.vocabulary import Vocabulary


def grounding_card(
    metrics: Mapping[str, Any], *, config: GroundingConfig, checkpoint: str, vocabulary: Vocabulary
) -> str:
    """README.md of the model folder; `metrics` as in train_grounding.json."""
    extras = "with word attention" if config.word_attention else "the paper's module, without word attention"
    return f"""# Grounding module

Masks for words, from the features of a text-to-image model ({extras}).

- **Generator**: `{checkpoint}`; the module reads the features of this one only.
- **Data**: {metrics["num_samples"]} images that the generator made of {len(vocabulary.seen)} seen categories
  ({", ".join(vocabulary.seen)}), labelled by an off-the-shelf detector. It missed {metrics["num_skipped_queries"]} of
  {metrics["num_queries"]} named objects; training type `{config.training_type}`.
- **Never seen in training**: {", ".join(vocabulary.unseen) or "nothing"}.
- **Recipe**: {config.iterations} iterations, batch {config.batch_size}, Adam, learning rate {config.learning_rate:g},
  seed {config.seed}; {metrics["num_weights"]} weights; final loss {metrics["final_loss"]:.4f}.
- **Made by**: `dvc repro train_grounding`; scores in `reports/metrics/evaluate_grounding.json`.
- **Limits**: masks are only as good as the generator's images and the detector's masks.
- **Licence**: Apache-2.0.
"""
