from collections import Counter

import pytest

from diffground.errors import UserError
from diffground.prompts import (
    PromptRecord,
    check_words,
    group_of,
    read_prompts,
    sample_synthesis_prompts,
    sample_test_prompts,
    sample_training_prompts,
    token_spans,
    write_prompts,
)
from diffground.reproduction.smoke import build_tokenizer
from diffground.vocabulary import load_vocabulary, photograph_of


@pytest.fixture
def vocabulary():
    return load_vocabulary("pascal", unseen=["tvmonitor", "car", "dog", "sofa", "train"])


def test_training_prompts_name_seen_categories_only(vocabulary):
    records = sample_training_prompts(vocabulary, num_one=30, num_two=50, seed=0)
    assert len(records) == 80
    assert Counter(r.group for r in records) == {"one_seen": 30, "two_seen": 50}
    assert {c for r in records for c in r.categories} <= set(vocabulary.seen)
    assert all(tuple(sorted(r.categories)) in vocabulary.pairs for r in records if len(r.categories) == 2)


def test_training_prompts_take_the_categories_in_turn(vocabulary):
    records = sample_training_prompts(vocabulary, num_one=32, num_two=0, seed=0)
    assert sorted(Counter(r.categories for r in records).values()) == [2] * 13 + [3] * 2  # 32 = 2 x 15 + 2


def test_training_prompts_of_one_and_two_are_mixed(vocabulary):
    groups = [r.group for r in sample_training_prompts(vocabulary, num_one=40, num_two=40, seed=0)]
    assert len(set(groups[:20])) == 2


def test_protocol_1_of_the_paper_has_1310_prompts(vocabulary):
    # supplementary: 30 a category and 5 a pair, 20 x 30 + 142 x 5
    records = sample_test_prompts(vocabulary, per_category=30, per_pair=5, seed=0)
    assert len(records) == 1310
    assert Counter(r.group for r in records)["one_unseen"] == 150


def test_the_papers_synthetic_set_has_20082_prompts(vocabulary):
    records = sample_synthesis_prompts(vocabulary, per_category=500, per_pair=71, seed=0)
    assert len(records) == 10_000 + 10_082
    assert len({r.id for r in records}) == len(records)


def test_a_pair_is_named_in_both_orders(vocabulary):
    records = sample_test_prompts(vocabulary, per_category=0, per_pair=40, seed=0)
    orders = Counter(r.categories for r in records if set(r.categories) == {"cat", "dog"})
    assert min(orders["cat", "dog"], orders["dog", "cat"]) >= 5
    by_order = {r.categories: r.prompt for r in records}
    assert by_order["dog", "cat"] == "a photograph of a dog and a cat"
    assert by_order["person", "tvmonitor"] == "a photograph of a person and a tv monitor"


def test_sampling_seeds_differ_between_and_within_the_sets(vocabulary):
    seeds = []
    for seed in (0, 1):
        seeds += [r.seed for r in sample_training_prompts(vocabulary, num_one=20, num_two=20, seed=seed)]
        seeds += [r.seed for r in sample_test_prompts(vocabulary, per_category=2, per_pair=1, seed=seed)]
        seeds += [r.seed for r in sample_synthesis_prompts(vocabulary, per_category=2, per_pair=1, seed=seed)]
    assert len(set(seeds)) == len(seeds) == 2 * (40 + 182 + 182)


def test_the_same_seed_gives_the_same_bytes_another_seed_others(vocabulary, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_prompts(tmp_path / name, sample_training_prompts(vocabulary, num_one=9, num_two=9, seed=seed))
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_what_is_written_is_read_back(vocabulary, tmp_path):
    records = sample_test_prompts(vocabulary, per_category=1, per_pair=1, seed=0)
    write_prompts(tmp_path / "new" / "p.jsonl", records)
    assert read_prompts(tmp_path / "new" / "p.jsonl") == records
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        "{}",
        '{"id": "a", "prompt": "p", "categories": ["dog"], "group": "one_seen", "seed": "1", "source": "template"}',
        '{"id": "a", "prompt": "p", "categories": ["dog"], "group": "three", "seed": 1, "source": "template"}',
        '{"id": "a", "prompt": "p", "categories": ["dog"], "group": "one_seen", "seed": 1, "source": "x", "more": 1}',
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line):
    good = PromptRecord("a", "p", ("dog",), "one_unseen", 1, "template")
    path = tmp_path / "p.jsonl"
    write_prompts(path, [good])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"p\.jsonl, line 2: not a prompt record"):
        read_prompts(path)


def test_a_missing_prompt_file_names_the_stage(tmp_path):
    with pytest.raises(UserError, match="run `dvc repro sample_prompts`"):
        read_prompts(tmp_path / "train.jsonl")


@pytest.mark.parametrize(
    ("categories", "group"),
    [
        (["cat"], "one_seen"),
        (["dog"], "one_unseen"),
        (["cat", "cow"], "two_seen"),
        (["dog", "cat"], "two_seen_unseen"),
        (["dog", "car"], "two_unseen"),
    ],
)
def test_group(vocabulary, categories, group):
    assert group_of(categories, vocabulary) == group


def test_no_group_for_none_three_unknown_or_unused_categories(vocabulary):
    for categories in ([], ["cat", "cow", "dog"], ["zebra"]):
        with pytest.raises(UserError):
            group_of(categories, vocabulary)
    with pytest.raises(UserError, match="neither seen nor unseen"):
        group_of(["cow"], load_vocabulary("pascal", unseen=["dog"], seen=["cat"]))


def test_negative_counts_are_refused(vocabulary):
    with pytest.raises(UserError, match=r"prompts\.num_train_two must not be negative, got -1"):
        sample_training_prompts(vocabulary, num_one=1, num_two=-1, seed=0)
    with pytest.raises(UserError, match=r"prompts\.test_per_category must not be negative, got -2"):
        sample_test_prompts(vocabulary, per_category=-2, per_pair=0, seed=0)
    with pytest.raises(UserError, match=r"prompts\.synthesis_per_pair must not be negative, got -2"):
        sample_synthesis_prompts(vocabulary, per_category=0, per_pair=-2, seed=0)


def test_small_groups_of_the_test_set_get_more_prompts(vocabulary):
    few = sample_test_prompts(vocabulary, per_category=2, per_pair=1, seed=0)
    same = sample_test_prompts(vocabulary, per_category=2, per_pair=1, min_per_group=1, seed=0)
    assert same == few
    more = sample_test_prompts(vocabulary, per_category=2, per_pair=1, min_per_group=20, seed=0)
    before, after = (Counter(record.group for record in records) for records in (few, more))
    for group, num in before.items():
        assert after[group] == num if num >= 20 else 20 <= after[group] < 20 + num
    assert any(num < 20 for num in before.values()) and any(num >= 20 for num in before.values())
    numbers = Counter(frozenset(record.categories) for record in more if record.group == "one_unseen")
    assert len(set(numbers.values())) == 1  # equally many of each


def test_pairs_wanted_but_none_appear_together():
    lonely = load_vocabulary("pascal", unseen=["dog"], seen=["cat"])
    with pytest.raises(UserError, match="no two seen categories appear together"):
        sample_training_prompts(lonely, num_one=1, num_two=1, seed=0)


def span_text(tokenizer, prompt: str, phrase: str) -> str:
    ids = tokenizer(prompt, truncation=True).input_ids
    (positions,) = token_spans(tokenizer, prompt, [phrase])
    return "".join(tokenizer.convert_ids_to_tokens([ids[i] for i in positions])).replace("</w>", " ").strip()


@pytest.mark.parametrize(
    ("prompt", "phrase"),
    [
        ("a photograph of a dog", "dog"),
        ("a photograph of a dog and a potted plant", "potted plant"),
        ("dog", "dog"),
        ("a catfish, a cat", "cat"),  # not inside another word
        ("a cat-like dog, dogs.", "dog"),
        ("the dog is in the doghouse", "the dog"),
    ],
)
def test_the_span_covers_the_words(prompt, phrase):
    # letters are tokens here, so words have several: positions cannot be a fixed offset
    assert span_text(build_tokenizer(), prompt, phrase) == phrase


def test_the_span_agrees_with_the_tokenizers_character_offsets():
    tokenizer, prompt = build_tokenizer(), "a photograph of a dining table and a dog on the road"
    offsets = tokenizer(prompt, return_offsets_mapping=True).offset_mapping
    start = prompt.index("dining table")
    expected = [i for i, (a, b) in enumerate(offsets) if a >= start and b <= start + len("dining table") and b > a]
    assert len(expected) == 11
    assert token_spans(tokenizer, prompt, ["dining table"]) == [expected]


def test_all_occurrences_count():
    # start token, "a", then d o g; "and" and "a" are 4 letters before the second
    assert token_spans(build_tokenizer(), "a dog and a dog", ["dog", "a"]) == [[2, 3, 4, 9, 10, 11], [1, 8]]
    dog, hot_dog = token_spans(build_tokenizer(), "a hot dog, a hot dog, a dog", ["dog", "hot dog"])
    assert (len(dog), len(hot_dog)) == (3, 12) and dog[0] > hot_dog[-1]


@pytest.mark.parametrize(
    ("prompt", "word", "advice"),
    [
        ("two dogs on grass", "dog", "did you mean 'dogs'?"),
        ("a photograph of Dogs", "dog", "did you mean 'Dogs'?"),
        ("a hot dog", "hot dogs", "did you mean 'hot dog'?"),
        ("a tv-monitor and a cat", "tv monitor", "did you mean 'tv-monitor'?"),
        ("wine glasses on a table", "wine glass", "did you mean 'wine glasses'?"),
        ("a photograph of a sofa", "bus", "write them as in the prompt"),
    ],
)
def test_a_word_that_the_prompt_has_in_another_form_is_offered(prompt, word, advice):
    with pytest.raises(UserError) as caught:
        check_words(prompt, [word])
    assert str(caught.value) == f"the prompt '{prompt}' does not contain the words '{word}'; {advice}"


@pytest.mark.parametrize("phrase", ["cat", "do", "photograph dog", ""])
def test_words_that_the_prompt_lacks_have_no_tokens(phrase):
    assert token_spans(build_tokenizer(), "a photograph of a dog", [phrase, "dog"])[0] == []


@pytest.mark.parametrize(
    ("prompt", "phrases", "words"),
    [
        ("a hot dog and a dog", ["dog", "hot dog"], [5, 1]),
        ("a hot dog and a dog", ["hot dog", "dog"], [1, 5]),
        ("a dog and a hot dog", ["dog", "hot dog"], [1, 4]),
        ("a dog and a hot dog", ["Hot Dog", "DOG"], [4, 1]),
        ("a hot dog", ["hot dog", "dog"], [1, None]),  # there is no other dog
        ("a hot dog", ["dog"], [2]),  # asked for alone, it is this one
        ("a dog bed and a hot dog bed", ["dog", "dog bed", "hot dog bed", "bed"], [None, 1, 5, None]),
        ("a wine glass table", ["wine glass", "glass table"], [1, 2]),  # neither is part of the other
    ],
)
def test_a_word_inside_a_longer_one_asked_for_is_not_it(prompt, phrases, words):
    # `words`: the number of the prompt's word at which each phrase's tokens begin
    tokenizer = build_tokenizer()
    first_tokens = [1 + sum(len(word.strip(",")) + word.count(",") for word in prompt.split()[:i]) for i in range(9)]
    spans = token_spans(tokenizer, prompt, phrases)
    assert [first_tokens.index(span[0]) if span else None for span in spans] == words
    assert [len(span) for span in spans] == [
        0 if word is None else len(phrase.replace(" ", "")) for phrase, word in zip(phrases, words, strict=True)
    ]


def test_any_two_of_cocos_categories_have_tokens_of_their_own():
    phrases = load_vocabulary("coco", unseen=["bear"]).phrases.values()
    tokenizer = build_tokenizer()
    pairs = [(a, b) for a in phrases for b in phrases if a != b and (set(a.split()) & set(b.split()))]
    assert {("dog", "hot dog"), ("hot dog", "dog"), ("bear", "teddy bear"), ("teddy bear", "bear")} <= set(pairs)
    for pair in pairs:
        prompt = photograph_of(*pair)
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt).input_ids)
        spans = token_spans(tokenizer, prompt, pair)
        assert not set(spans[0]) & set(spans[1])
        found = ["".join(tokens[i] for i in span).replace("</w>", " ").strip() for span in spans]
        assert found == list(pair)
        assert token_spans(tokenizer, prompt, pair[::-1]) == spans[::-1]


def test_a_phrase_that_is_cut_off_is_an_error():
    tokenizer = build_tokenizer()
    room = tokenizer.model_max_length - 2 - len("dog")  # start token, end token
    fits, too_long = "x" * room + " dog", "x" * (room + 1) + " dog"
    assert token_spans(tokenizer, fits, ["dog"])[0][-1] == tokenizer.model_max_length - 2
    with pytest.raises(UserError, match="is cut at 64 tokens, before the end of 'dog'; shorten it"):
        token_spans(tokenizer, too_long, ["dog"])
