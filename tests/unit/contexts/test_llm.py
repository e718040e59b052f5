"""Contexts of a language model: the check on strings; tiny GPT-2s with random and with trained weights."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from diffground.contexts.apply import apply_contexts
from diffground.contexts.lengthen import TokenLimit
from diffground.contexts.llm import LanguageModel, check_continuation, write_contexts
from diffground.errors import UserError
from diffground.prompts import sample_synthesis_prompts
from diffground.reproduction.smoke import build_tokenizer
from diffground.vocabulary import load_vocabulary, photograph_of

VOCABULARY = load_vocabulary("pascal", unseen=["dog"], seen=["cat", "person"])
LIMIT = TokenLimit(build_tokenizer())
CPU = torch.device("cpu")
NUM_ANSWERS = 4


@pytest.mark.parametrize(
    ("answer", "context"),
    [
        (" in the rain\nMore", "in the rain"),
        (" running, barking. And then", "running, barking"),
        (", covered in mud,", "covered in mud"),
        (" beside another dog", "beside another dog"),
        (" in a child's room", None),  # a child is a person
        (" with two cats", None),
        (" near the dining tables", None),
        ("house in the rain", None),  # a doghouse
        ("s in the rain", None),
        (" in", None),  # one word
        (" is big and brown", None),  # no context
        (" red and blue", None),  # nor this, though it ends in "ed"
        (" in 1985 or so", None),
        (" In The Rain", None),
        ("", None),
        (" in the very long grass of a wide field at noon", None),  # too long behind the longest template
    ],
)
def test_what_passes_the_check(answer, context):
    others = [category for category in VOCABULARY.categories if category != "dog"]
    checked = check_continuation(
        answer,
        beginning="a photograph of a dog",
        words="dog",
        others=others,
        longest="a photograph of a cat and a person",
        limit=LIMIT,
    )
    assert checked == context


def build_model():
    """A GPT-2 of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={token: i for i, token in enumerate([*alphabet, "<end>"])}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=1024,
        n_embd=32,
        n_layer=1,
        n_head=2,
        eos_token_id=len(alphabet),
        bos_token_id=len(alphabet),
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    return GPT2LMHeadModel(config), tokenizer


def teach(model, tokenizer, ending):
    """Train the model to go on with `ending`, whatever the category."""
    language = LanguageModel(model, tokenizer, device=CPU)
    beginnings = [photograph_of(words) for words in ("cat", "dog", "person", "thing")]
    texts = [tokenizer(language._request(b) + ending, return_tensors="pt").input_ids for b in beginnings]
    model.requires_grad_(True).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        for ids in texts:
            labels = ids.clone()
            labels[:, : -len(ending)] = -100
            model(ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "random"
    for part in build_model():
        part.save_pretrained(folder)
    return folder


def test_random_weights_leave_every_prompt_to_the_template(random_model, tmp_path):
    build_tokenizer().save_pretrained(tmp_path / "generator/tokenizer")
    records = sample_synthesis_prompts(VOCABULARY, per_category=2, per_pair=1, seed=0)
    result = apply_contexts(
        records,
        VOCABULARY,
        contexts=f"llm:{random_model}",
        frac=1.0,
        seed=0,
        generator=str(tmp_path / "generator"),
        device=CPU,
    )
    assert result.records == records
    assert result.metrics == {"num_contexts": 0, "num_dropped_answers": 12 * 4}


def test_a_trained_model_writes_a_bank():
    model, tokenizer = build_model()
    teach(model, tokenizer, " in the rain\n")
    written = write_contexts(
        LanguageModel(model, tokenizer, device=CPU), VOCABULARY, seed=0, limit=LIMIT, num_answers=NUM_ANSWERS
    )
    assert written.bank.source == "llm"
    assert list(written.bank.contexts) == ["cat", "dog", "person", "any"]
    assert all("in the rain" in contexts for contexts in written.bank.contexts.values())
    assert written.num_dropped == 4 * NUM_ANSWERS - written.bank.num_contexts


def test_answers_depend_on_the_seed_alone(random_model):
    model = LanguageModel.load(str(random_model), device=CPU)
    torch.manual_seed(1)
    first = model.continuations("a photograph of a dog", num=2, seed=5)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert model.continuations("a photograph of a dog", num=2, seed=5) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.continuations("a photograph of a dog", num=2, seed=6) != first
    assert first[0] != first[1]


def test_a_chat_model_goes_on_with_its_answer():
    model, tokenizer = build_model()
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<end>{% endfor %}"
    request = LanguageModel(model, tokenizer, device=CPU)._request("a photograph of a dog")
    assert request.startswith("[user] ")
    assert request.endswith("[assistant] a photograph of a dog")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(UserError, match="chat template cannot continue an answer"):
        LanguageModel(model, tokenizer, device=CPU)._request("a photograph of a dog")


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_what_is_no_model_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match="must name a model folder or a hub id"):
        LanguageModel.load(name, device=CPU)
    with pytest.raises(UserError, match="does not load as a language model") as caught:
        LanguageModel.load(str(tmp_path), device=CPU)
    assert "\n" not in str(caught.value)
