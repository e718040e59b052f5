"""The prompts of the quality report, and real scenes of the same content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pascal import PHRASES
from quality import Asked

from diffground.data.stickers.backgrounds import PLACES
from diffground.data.stickers.colours import COLOURS
from diffground.data.stickers.scenes import compose_scene
from diffground.data.stickers.sprites import SpriteBook
from diffground.prompts import sample_test_prompts
from diffground.vocabulary import load_vocabulary, photograph_of


def evaluation_prompts(book: SpriteBook, params: dict[str, Any]) -> list[Asked]:
    """quality_prompts with the settings of params.yaml."""
    e, p = params["evaluation"], params["quality"]
    return quality_prompts(
        book,
        per_category=e["per_category"],
        per_pair=e["per_pair"],
        per_further=p["per_further"],
        num_further_pairs=p["num_further_pairs"],
        per_colour=p["per_colour"],
        per_place=p["per_place"],
        seed=e["seed"],
    )


def quality_prompts(
    book: SpriteBook,
    *,
    per_category: int,
    per_pair: int,
    per_further: int,
    num_further_pairs: int,
    per_colour: int,
    per_place: int,
    seed: int,
) -> list[Asked]:
    """Plain prompts of the 20 categories and their co-appearing pairs as in Protocol I, then those of `book.further`
    and of pairs with one of them, then prompts with a colour word and with a place.

    The first of a further pair and the objects of colours and places are all concepts in turn, each round in another
    random order, so that every word meets many of them.
    """
    records = sample_test_prompts(
        load_vocabulary("pascal", unseen=()), per_category=per_category, per_pair=per_pair, seed=seed
    )
    rng = np.random.default_rng(seed)
    further, concepts = list(book.further), [*book.train, *book.further]

    def in_turn(names: Sequence[str], num: int) -> list[str]:
        rounds = -(-num // len(names))
        return [str(name) for _ in range(rounds) for name in rng.permutation(names)][:num]

    wishes: list[tuple[tuple[str, ...], str | None, str | None]] = [
        ((category,), None, None) for category in further for _ in range(per_further)
    ]
    for category in in_turn(further, num_further_pairs):
        pair = rng.permutation([category, rng.choice([c for c in concepts if c != category])])
        wishes.append((tuple(str(c) for c in pair), None, None))
    colours, places = list(COLOURS) * per_colour, list(PLACES) * per_place
    wishes += [((c,), colour, None) for c, colour in zip(in_turn(concepts, len(colours)), colours, strict=True)]
    wishes += [((c,), None, place) for c, place in zip(in_turn(concepts, len(places)), places, strict=True)]
    first_seed = records[-1].seed + 1
    return [Asked(prompt=record.prompt, categories=record.categories, seed=record.seed) for record in records] + [
        Asked(prompt=_prompt(*wish), categories=wish[0], colour=wish[1], place=wish[2], seed=first_seed + i)
        for i, wish in enumerate(wishes)
    ]


def _prompt(categories: Sequence[str], colour: str | None, place: str | None) -> str:
    """As the captions of the training scenes: "a photograph of a blue potted plant", "… of a dog on the grass"."""
    phrases = [PHRASES.get(category, category) for category in categories]
    named = [f"{colour} {phrase}" for phrase in phrases] if colour else phrases
    return photograph_of(*named) + (f" {place}" if place else "")


def real_scenes(
    book: SpriteBook, asked: Sequence[Asked], *, image_size: int, mirrored_frac: float, seed: int
) -> tuple[list[Asked], np.ndarray]:
    """One real scene per prompt, of its categories and colour in a random place, uint8 (N, S, S, 3).

    `mirrored_frac`: chance that an artwork is mirrored, as in the generator's training.

    The prompts that come with them name the scene's place, where they name one.
    """
    artworks = book.train | book.further
    shown, images = [], []
    for i, wish in enumerate(asked):
        rng = np.random.default_rng([seed, i])
        sprites = [artworks[c][rng.integers(len(artworks[c]))] for c in wish.categories]
        scene = compose_scene(
            rng,
            sprites=sprites,
            colours=(wish.colour,) * len(sprites),
            image_size=image_size,
            mirrored_frac=mirrored_frac,
        )
        place = scene.place if wish.place else None
        shown.append(replace(wish, prompt=_prompt(wish.categories, wish.colour, place), place=place))
        images.append(scene.image)
    return shown, np.stack(images)
