"""Settings of profile mini are chosen on other prompts, noises and scenes than those that are reported."""

from __future__ import annotations

from pathlib import Path

import yaml

from diffground.data.stickers.dataset import compose_dataset
from diffground.prompts import sample_synthesis_prompts, sample_test_prompts, sample_training_prompts
from diffground.reproduction.catalogue import read_catalogue
from diffground.reproduction.composition import compose_params
from diffground.vocabulary import load_vocabulary


def params_of(profile: str, overrides: tuple[str, ...] = ()) -> dict:
    return yaml.safe_load(compose_params(profile, conf=Path("conf"), overrides=overrides))


def noises(params: dict) -> set[int]:
    v, p = params["vocabulary"], params["prompts"]
    vocabulary = load_vocabulary(v["file"], unseen=v["unseen"], seen=v["seen"])
    records = [
        *sample_training_prompts(vocabulary, num_one=p["num_train_one"], num_two=p["num_train_two"], seed=p["seed"]),
        *sample_test_prompts(
            vocabulary,
            per_category=p["test_per_category"],
            per_pair=p["test_per_pair"],
            min_per_group=p["test_min_per_group"],
            seed=p["seed"],
        ),
        *sample_synthesis_prompts(
            vocabulary, per_category=p["synthesis_per_category"], per_pair=p["synthesis_per_pair"], seed=p["seed"]
        ),
    ]
    assert len(records) > 3000
    return {record.seed for record in records}


def scenes(params: dict, folder: Path) -> set[bytes]:
    compose_dataset(
        folder, categories=["dog", "car", "bird"], num_train=30, num_val=30, image_size=32, seed=params["data"]["seed"]
    )
    images = {path.read_bytes() for path in folder.rglob("JPEGImages/*")}
    assert len(images) == 60
    return images


def test_no_noise_is_both_tuned_on_and_reported() -> None:
    assert not noises(params_of("mini")) & noises(params_of("mini_tuning"))


def test_no_real_scene_is_both_tuned_on_and_reported(tmp_path: Path) -> None:
    assert not scenes(params_of("mini"), tmp_path / "reported") & scenes(params_of("mini_tuning"), tmp_path / "tuning")


def test_the_tuning_run_differs_in_nothing_else() -> None:
    reported, tuning = params_of("mini"), params_of("mini_tuning")
    for section in ("prompts", "data"):
        assert reported[section].pop("seed") != tuning[section].pop("seed")
    assert {**reported, "profile": "mini_tuning"} == tuning


def test_all_experiments_report_the_same_split() -> None:
    reported = params_of("mini")
    catalogue = read_catalogue()
    names = [name for name, experiment in catalogue.items() if experiment.exists_for("mini")]
    assert len(names) > 15
    for name in names:
        params = params_of("mini", catalogue[name].overrides)
        assert [params[section]["seed"] for section in ("prompts", "data")] == [
            reported[section]["seed"] for section in ("prompts", "data")
        ], name
