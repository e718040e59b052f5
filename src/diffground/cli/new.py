"""`diffground new`: own categories -> a vocabulary file and a profile, checked, with what a run of it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.prompts import PromptRecord
from diffground.reproduction.composition import compose_params, require_known
from diffground.reproduction.config import DetectorConfig, Params
from diffground.reproduction.params import build_params
from diffground.reproduction.prompt_sets import sample_prompt_sets
from diffground.vocabulary import Vocabulary, closest, load_vocabulary

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Wish:
    """A category that was asked for."""

    name: str
    detector: str
    """The detector's name for it."""
    unseen: bool | None
    """None: unseen if the detector does not know it."""


@dataclass(frozen=True)
class NewProfile:
    """What `new` wrote, and what it noticed."""

    vocabulary_file: Path
    profile_file: Path
    params: Params
    prompts: dict[str, list[PromptRecord]]
    """Of the sets train, test and synthesis."""
    notes: tuple[str, ...]


def parse_wishes(texts: Sequence[str], *, unseen: bool) -> list[Wish]:
    """ "dog,tv set=tv" -> the categories "dog" and "tv set", which the detector calls "dog" and "tv"."""
    wishes = []
    for entry in ",".join(texts).split(","):
        name, _, detector = (part.strip() for part in entry.partition("="))
        if name:
            wishes.append(Wish(name, detector or name, unseen))
        elif texts:
            raise UserError(
                f"--{'unseen' if unseen else 'seen'}: an empty name in '{','.join(texts)}'; name categories"
            )
    return wishes


def write_new(
    name: str, wishes: Sequence[Wish], *, base: str, pairs: str, real: Path | None = None, conf: Path = Path("conf")
) -> NewProfile:
    """Write conf/vocabulary/NAME.yaml and conf/profile/NAME.yaml, and check that they compose.

    Args:
        base: the profile whose checkpoints and settings are taken.
        pairs: 'all' or 'none': whether any two categories may appear together in a prompt.
        real: folder of real images to score segmenters on: a VOC devkit, or as diffground.data.folder describes.
    Raises: UserError, and nothing is written, for a name that is in use or unfit, a base that does not exist, no seen
        category, one named twice, seen ones that the detector does not know, and words that do not fit into a prompt.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"the name must be of letters, digits, - and _, got '{name}'")
    require_known(base, conf=conf)
    vocabulary_file, profile_file = conf / "vocabulary" / f"{name}.yaml", conf / "profile" / f"{name}.yaml"
    for path in (vocabulary_file, profile_file):
        if path.exists():
            raise UserError(f"{path}: exists; edit it, or delete it and run this again")
    base_params = build_params(yaml.safe_load(compose_params(base, conf=conf)), Params, source=f"profile '{base}'")
    known = detector_labels(base_params.detector)
    entries, notes = _entries(wishes, known)
    try:
        write_atomically(vocabulary_file, _vocabulary_text(entries, pairs=pairs))
        vocabulary = load_vocabulary(vocabulary_file)
        notes += _word_notes(vocabulary, base_params)
        settings = _settings(base_params, vocabulary, vocabulary_file, real)
        write_atomically(profile_file, _profile_text(name, base, conf, settings))
        params = build_params(yaml.safe_load(compose_params(name, conf=conf)), Params, source=f"profile '{name}'")
    except UserError:
        for path in (vocabulary_file, profile_file):
            path.unlink(missing_ok=True)
        raise
    prompts = sample_prompt_sets(params.prompts, params.vocabulary.load())
    return NewProfile(vocabulary_file, profile_file, params, prompts, tuple(notes))


def detector_labels(detector: DetectorConfig) -> tuple[str, ...] | None:
    """What the detector can find, without loading its weights; None where only these tell."""
    config = Path(detector.checkpoint) / "config.json"
    if config.is_file():
        content = json.loads(config.read_text(encoding="utf-8"))
        labels = content.get("category_names") or list(content.get("id2label", {}).values())
        return tuple(labels) or None
    if detector.backend == "torchvision" and not Path(detector.checkpoint).exists():
        from torchvision.models import get_weight

        try:
            return tuple(get_weight(detector.checkpoint).meta["categories"])
        except (ValueError, KeyError):
            return None
    return None


def _entries(wishes: Sequence[Wish], known: tuple[str, ...] | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Entries of the vocabulary file, and notes. Raises: UserError for seen categories that the detector lacks."""
    entries, notes, missing = list[dict[str, Any]](), list[str](), list[Wish]()
    for wish in wishes:
        is_known = known is None or wish.detector in known
        unseen = not is_known if wish.unseen is None else wish.unseen
        if not unseen and not is_known:
            missing.append(wish)
        entry: dict[str, Any] = {"name": wish.name}
        if is_known and wish.detector != wish.name:
            entry["detector"] = wish.detector
        if not is_known:
            entry["detector"] = None
            notes.append(f"{wish.name}: the detector does not know it, so Protocol I does not judge it")
        if unseen:
            entry["status"] = "unseen"
        entries.append(entry)
    if missing:
        near = "; ".join(f"closest to '{wish.name}': {closest(wish.detector, known or ())}" for wish in missing)
        raise UserError(
            f"--seen: the detector does not know {', '.join(wish.name for wish in missing)} ({near}); write "
            f"'{missing[0].name}=NAME' with its name for it, or give it with --unseen"
        )
    if known is None:
        notes.append("which categories the detector knows shows only when it is loaded, in stage detect")
    return entries, notes


def _vocabulary_text(entries: Iterable[dict[str, Any]], *, pairs: str) -> str:
    def line(entry: dict[str, Any]) -> str:
        short = yaml.safe_dump(
            entry["name"] if len(entry) == 1 else entry,
            default_flow_style=True,
            allow_unicode=True,
            sort_keys=False,
            width=10_000,
        )
        return f"  - {short.splitlines()[0]}"

    return (
        "# Categories in label order: the first has label 1. Keys of an entry: name, words (in prompts, several are\n"
        "# used in turn), detector (its name for it; null: it has none), status (seen, unseen, off), colour.\n"
        "categories:\n" + "".join(f"{line(entry)}\n" for entry in entries) + f"pairs: {pairs}\n"
    )


def _word_notes(vocabulary: Vocabulary, params: Params) -> list[str]:
    """What the generator's tokenizer makes of the words. Raises: UserError for words that do not fit into a prompt."""
    folder = Path(params.generator.checkpoint) / "tokenizer"
    if not folder.is_dir():
        return ["whether all words fit into a prompt shows only when the generator is downloaded"]
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    notes = []
    words = [word for category in vocabulary.used for word in vocabulary.words[category]]
    lengths = {word: len(tokenizer(word, add_special_tokens=False).input_ids) for word in words}
    longest = sum(sorted(lengths.values())[-2:]) + 8  # template, articles, "and", start and end
    if longest > tokenizer.model_max_length:
        word = max(lengths, key=lambda word: lengths[word])
        raise UserError(
            f"'{word}' has {lengths[word]} tokens: two categories do not fit into the generator's "
            f"{tokenizer.model_max_length}; take shorter words"
        )
    for word, length in lengths.items():
        parts = word.split()
        if length > max(len(parts), sum(map(len, parts)) / 3):
            notes.append(f"{word}: the generator's tokenizer breaks it into {length} pieces, so it may not know it")
    return notes


def _settings(base: Params, vocabulary: Vocabulary, file: Path, real: Path | None) -> dict[str, Any]:
    """What the profile changes of its base: about as many images in all, whatever the number of categories."""
    p, of_base = base.prompts, base.vocabulary.load()
    num_pairs = len(vocabulary.pairs)
    seen_pairs = [pair for pair in vocabulary.pairs if set(pair) <= set(vocabulary.seen)]

    def share(per: int, num_base: int, num: int) -> int:
        return -(-per * num_base // num) if num else 0

    base_pairs = len(of_base.pairs) or num_pairs
    num_train = p.num_train_one + p.num_train_two
    return {
        "vocabulary": {"file": file.as_posix(), "pairs": "file", "unseen": [], "seen": []},
        "data": _data(real),
        "inversion": {"num_train": 0, "num_val": 0},
        "grounding": {"training_data": "sim"},
        "text2mask": {"num_images": 0},
        "prompts": {
            "num_train_one": p.num_train_one if seen_pairs else num_train,
            "num_train_two": p.num_train_two if seen_pairs else 0,
            "test_per_category": share(p.test_per_category, len(of_base.used), len(vocabulary.used)),
            "test_per_pair": share(p.test_per_pair, base_pairs, num_pairs),
            "test_min_per_group": 0,
            "synthesis_per_category": share(p.synthesis_per_category, len(of_base.used), len(vocabulary.used)),
            "synthesis_per_pair": share(p.synthesis_per_pair, base_pairs, num_pairs),
        },
        "segmenter": {"training_sets": ["synthetic"]},
    }


def _data(real: Path | None) -> dict[str, Any]:
    """Where real images are. Raises: UserError for a folder of neither layout."""
    if real is None:
        return {"source": "none"}
    if (real / "JPEGImages").is_dir():
        return {"source": "voc", "root": real.as_posix()}
    if (real / "images").is_dir():
        return {"source": "folder", "root": real.as_posix()}
    raise UserError(f"--real {real}: must be a VOC devkit (JPEGImages …) or have the folders images and masks")


def _profile_text(name: str, base: str, conf: Path, settings: dict[str, Any]) -> str:
    """The base's own file, then the changes."""
    of_base = (conf / "profile" / f"{base}.yaml").read_text(encoding="utf-8")
    kept = [line for line in of_base.splitlines() if not line.startswith(("#", "profile:"))]
    return (
        f"# @package _global_\n# Own categories: conf/vocabulary/{name}.yaml. All else as in profile {base}.\n"
        + "".join(f"{line}\n" for line in kept)
        + yaml.safe_dump({**settings, "profile": name}, sort_keys=False, allow_unicode=True)
    )
