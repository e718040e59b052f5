from collections import Counter
from dataclasses import replace

import pytest

from diffground.contexts.apply import apply_contexts
from diffground.contexts.bank import ContextBank
from diffground.contexts.lengthen import TokenLimit, lengthen
from diffground.errors import UserError
from diffground.prompts import sample_synthesis_prompts, token_spans
from diffground.reproduction.smoke import build_tokenizer
from diffground.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("pascal", unseen=["dog"], seen=["cat", "person"])
RECORDS = sample_synthesis_prompts(VOCABULARY, per_category=12, per_pair=8, seed=0)  # 36 and 24
BANK = ContextBank(contexts={"dog": ("asleep", "at sea", "outside"), "any": ("in fog",)}, source="scene")
LIMIT = TokenLimit(build_tokenizer())


def longer(frac, seed=0, bank=BANK, limit=LIMIT):
    return lengthen(RECORDS, bank, frac=frac, seed=seed, limit=limit)


def test_nothing_else_changes():
    for before, after in zip(RECORDS, longer(1.0), strict=True):
        assert after.prompt.startswith(f"{before.prompt} ")
        assert after == replace(before, prompt=after.prompt, source="scene")


@pytest.mark.parametrize(("frac", "expected"), [(0.0, 0), (0.25, 15), (1.0, 60)])
def test_the_share_of_longer_prompts(frac, expected):
    result = longer(frac)
    assert Counter(r.source for r in result)["scene"] == expected
    assert [r.prompt for r in result if r.source == "template"] == [
        before.prompt for before, after in zip(RECORDS, result, strict=True) if after.source == "template"
    ]


def test_contexts_take_turns():
    ends = Counter(r.prompt.removeprefix("a photograph of a dog ") for r in longer(1.0) if r.categories == ("dog",))
    assert ends == {"asleep": 3, "at sea": 3, "outside": 3, "in fog": 3}


def test_the_same_seed_gives_the_same_prompts_another_seed_others():
    assert longer(0.5) == longer(0.5) != longer(0.5, seed=1)


def test_a_record_without_contexts_stays():
    bank = replace(BANK, contexts={"dog": ("asleep",)})
    assert Counter((r.categories, r.source) for r in longer(1.0, bank=bank) if len(r.categories) == 1) == {
        (("dog",), "scene"): 12,
        (("cat",), "template"): 12,
        (("person",), "template"): 12,
    }


def test_a_prompt_of_too_many_tokens_is_refused():
    # start and end token, 19 letters of "a photograph of a dog" less its spaces, and the context's
    room = LIMIT.most - 2 - len("aphotographofadog")
    fits = replace(BANK, contexts={"dog": ("x" * room,)})
    prompts = [r.prompt for r in longer(1.0, bank=fits) if r.categories == ("dog",)]
    assert {LIMIT.count(prompt) for prompt in prompts} == {64}
    assert token_spans(LIMIT.tokenizer, prompts[0], "dog")
    with pytest.raises(UserError, match="has 65 tokens, the generator reads 64; shorten it"):
        longer(1.0, bank=replace(BANK, contexts={"dog": ("x" * (room + 1),)}))


@pytest.fixture
def generator(tmp_path):
    build_tokenizer().save_pretrained(tmp_path / "generator/tokenizer")
    return str(tmp_path / "generator")


def apply(contexts, generator):
    import torch

    return apply_contexts(
        RECORDS, VOCABULARY, contexts=str(contexts), frac=1.0, seed=0, generator=generator, device=torch.device("cpu")
    )


def test_a_bank_or_a_file_of_prompts_by_its_name(tmp_path, generator):
    (tmp_path / "bank.yaml").write_text("cat: [asleep]\nany: [in fog]\n")
    result = apply(tmp_path / "bank.yaml", generator)
    assert result.bank is not None and result.metrics == {"num_contexts": 2}
    assert {r.source for r in result.records} == {"scene"}
    (tmp_path / "mine.txt").write_text("a cat at sea\na bus at night\n")
    result = apply(tmp_path / "mine.txt", generator)
    assert result.bank is None and result.metrics == {"num_unused_lines": 1}
    assert Counter(r.source for r in result.records) == {"file": 12, "template": 48}


def test_a_generator_without_a_tokenizer_is_one_line(tmp_path):
    (tmp_path / "bank.yaml").write_text("cat: [asleep]\n")
    with pytest.raises(UserError, match=r"generator\.checkpoint '.*nowhere' has no readable tokenizer") as caught:
        apply(tmp_path / "bank.yaml", str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)
