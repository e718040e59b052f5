"""data/real -> data/prompts: prompt records of the vocabulary, and the contexts of the synthesis set."""

from __future__ import annotations

from collections import Counter
from typing import Any

from _stage import Params, TrackingRun, run_stage

from diffground.contexts.bank import write_bank
from diffground.data.voc import VocDataset, coappearing_labels
from diffground.prompts import GROUPS, write_prompts
from diffground.reproduction import paths
from diffground.reproduction.metrics import write_metrics
from diffground.reproduction.prompt_sets import sample_prompt_sets
from diffground.vocabulary import PAPER_NUM_PAIRS, is_built_in


def main(params: Params, run: TrackingRun) -> None:
    p = params.prompts
    vocabulary = params.vocabulary.load()
    paper_num_pairs = PAPER_NUM_PAIRS.get(vocabulary.name) if is_built_in(params.vocabulary.file) else None
    if params.vocabulary.pairs != "file":
        image_list = {"data": params.data.train_list, "data_val": params.data.val_list}[params.vocabulary.pairs]
        real = VocDataset(paths.REAL, image_list, num_categories=len(vocabulary.categories))
        vocabulary = vocabulary.with_pairs(
            (vocabulary.categories[a - 1], vocabulary.categories[b - 1]) for a, b in coappearing_labels(real)
        )
        print(
            f"sample_prompts: {len(vocabulary.pairs)} pairs of categories share an image of list '{image_list}' "
            f"(paper, all {len(vocabulary.categories)} categories: {paper_num_pairs or 'not counted'})"
        )
    sets = sample_prompt_sets(p, vocabulary)
    bank, contexts = None, dict[str, Any]()
    if p.contexts:
        # imported late: torch takes seconds
        from diffground.contexts.apply import apply_contexts
        from diffground.runtime.device import setup

        longer = apply_contexts(
            sets["synthesis"],
            vocabulary,
            contexts=p.contexts,
            frac=p.context_frac,
            seed=p.seed,
            generator=params.generator.config_from or params.generator.checkpoint,
            device=setup(params.runtime),
        )
        sets["synthesis"], bank, contexts = longer.records, longer.bank, longer.metrics
    write_bank(paths.CONTEXTS, bank)
    metrics: dict[str, Any] = {"num_pairs": len(vocabulary.pairs), "paper_num_pairs": paper_num_pairs}
    for name, records in sets.items():
        write_prompts(paths.PROMPTS[name], records)
        groups = Counter(record.group for record in records)
        metrics[name] = {"num_prompts": {group: groups[group] for group in GROUPS}}
    by_source = dict(Counter(record.source for record in sets["synthesis"]))
    metrics["synthesis"] |= {"num_prompts_by_source": by_source, **contexts}
    run.log_results(write_metrics("sample_prompts", metrics))


if __name__ == "__main__":
    run_stage("sample_prompts", main)
