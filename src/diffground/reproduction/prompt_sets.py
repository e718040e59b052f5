"""The prompts of stage sample_prompts, by set."""

from __future__ import annotations

from diffground.prompts import (
    PromptRecord,
    sample_synthesis_prompts,
    sample_test_prompts,
    sample_training_prompts,
)
from diffground.reproduction.config import PromptsConfig
from diffground.vocabulary import Vocabulary


def sample_prompt_sets(p: PromptsConfig, vocabulary: Vocabulary) -> dict[str, list[PromptRecord]]:
    """The records of the sets train, test and synthesis, without contexts. Raises: UserError as diffground.prompts."""
    return {
        "train": sample_training_prompts(vocabulary, num_one=p.num_train_one, num_two=p.num_train_two, seed=p.seed),
        "test": sample_test_prompts(
            vocabulary,
            per_category=p.test_per_category,
            per_pair=p.test_per_pair,
            min_per_group=p.test_min_per_group,
            seed=p.seed,
        ),
        "synthesis": sample_synthesis_prompts(
            vocabulary, per_category=p.synthesis_per_category, per_pair=p.synthesis_per_pair, seed=p.seed
        ),
    }
