"""What each file of conf/experiment changes, and that it changes nothing else."""

import functools
from pathlib import Path

import pytest
import yaml

from diffground.errors import UserError
from diffground.profile import compose_params
from diffground.report.experiments import differing, effective_params
from diffground.vocabulary import load_vocabulary

CONF = Path(__file__).parents[3] / "conf"
SPLITS = {  # supplementary B.1 of the paper
    2: ["horse", "motorbike", "person", "pottedplant", "sheep"],
    3: ["bus", "cat", "chair", "cow", "diningtable"],
}
SPLIT1 = ["tvmonitor", "car", "dog", "sofa", "train"]
SEEN = {
    5: {"aeroplane", "boat", "cat", "diningtable", "person"},
    10: {"aeroplane", "boat", "cat", "diningtable", "person", "bird", "bus", "cow", "motorbike", "sheep"},
}
# against mini: 500 + 700 training prompts, 20 x 60 + 142 x 5 = 1910 synthetic images, step 1
EXPECTED = {
    "table1_split2": {"vocabulary.unseen": SPLITS[2]},
    "table1_split3": {"vocabulary.unseen": SPLITS[3]},
    "table2_model_a": {
        "prompts.synthesis_per_category": 96,
        "prompts.synthesis_per_pair": 0,
        "segmenter.training_sets": ["synthetic"],
    },
    "table2_model_b": {
        "prompts.synthesis_per_category": 0,
        "prompts.synthesis_per_pair": 13,
        "segmenter.training_sets": ["synthetic"],
    },
    "table2_model_c": {},
    "table2_model_d": {"segmenter.training_sets": ["synthetic_and_real_seen"]},
    "training_normal": {"grounding.training_type": "normal"},
    "objects_one": {"prompts.num_train_one": 1200, "prompts.num_train_two": 0},
    "objects_two": {"prompts.num_train_one": 0, "prompts.num_train_two": 1200},
    "data_sim_quarter": {
        "prompts.num_train_one": 125,
        "prompts.num_train_two": 175,
    },
    "timestep_01": {},
    **{f"timestep_{step:02d}": {"generator.tapped_step": step} for step in (2, 3, 4, 6, 8, 10, 12)},
}

WITH_OTHER_STAGES = {
    "data_real": {"grounding.training_data": "real", "inversion.num_train": 1500},
    "data_both": {"grounding.training_data": "both", "inversion.num_train": 1500},
    "table2_model_e": {
        "prompts.contexts": "src/diffground/tables/contexts_stickers.yaml",
        "segmenter.training_sets": ["synthetic_and_real_seen"],
    },
    "text2mask": {"text2mask.num_images": 1500, "segmenter.training_sets": ["text2mask"]},
}


@functools.cache
def compose(profile, experiment=None):
    overrides = [f"experiment={experiment}"] if experiment else []
    return effective_params(yaml.safe_load(compose_params(profile, conf=CONF, overrides=overrides)))


@pytest.mark.parametrize("name", [*EXPECTED, *WITH_OTHER_STAGES])
def test_an_experiment_changes_what_its_name_says(name):
    assert differing(compose("mini", name), compose("mini")) == {**EXPECTED, **WITH_OTHER_STAGES}[name]


def test_no_experiment_is_without_a_test():
    names = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert names == {*EXPECTED, *WITH_OTHER_STAGES, *(f"seen_{number:02d}" for number in SEEN)}


@pytest.mark.parametrize("number", SEEN)
def test_fewer_seen_categories_are_nested_and_keep_the_unseen_of_split_1(number):
    changed = differing(compose("mini", f"seen_{number:02d}"), compose("mini"))
    assert list(changed) == ["vocabulary.unseen"]
    unseen = changed["vocabulary.unseen"]
    vocabulary = load_vocabulary("pascal", unseen=unseen)
    assert set(vocabulary.seen) == SEEN[number]
    assert unseen[:5] == SPLIT1 and len(unseen) == 20 - number
    assert any(set(pair) <= SEEN[number] for pair in vocabulary.pairs), "training prompts of two need a pair"
    assert SEEN[5] < SEEN[10]


@pytest.mark.parametrize("profile", ["mini", "paper_voc", "smoke"])
def test_objects_in_a_prompt_change_and_the_number_of_prompts_does_not(profile):
    plain, one, two, quarter = (
        compose(profile, name) for name in (None, "objects_one", "objects_two", "data_sim_quarter")
    )
    total = plain["prompts.num_train_one"] + plain["prompts.num_train_two"]
    assert (one["prompts.num_train_one"], one["prompts.num_train_two"]) == (total, 0)
    assert (two["prompts.num_train_one"], two["prompts.num_train_two"]) == (0, total)
    assert quarter["prompts.num_train_one"] + quarter["prompts.num_train_two"] == total / 4


@pytest.mark.parametrize("profile", ["mini", "paper_voc", "smoke"])
def test_models_a_and_b_have_about_as_many_images_as_c(profile):
    plain = compose(profile)
    vocabulary = load_vocabulary("pascal", unseen=plain["vocabulary.unseen"], seen=plain["vocabulary.seen"])
    num_categories, num_pairs = len(vocabulary.seen) + len(vocabulary.unseen), len(vocabulary.pairs)
    a, b, c = (
        num_categories * params["prompts.synthesis_per_category"] + num_pairs * params["prompts.synthesis_per_pair"]
        for params in (compose(profile, "table2_model_a"), compose(profile, "table2_model_b"), plain)
    )
    assert a == pytest.approx(c, rel=0.04) and b == pytest.approx(c, rel=0.04)


@pytest.mark.parametrize("name", [n for n in EXPECTED if not n.startswith("timestep")])
@pytest.mark.parametrize("profile", ["paper_voc", "smoke"])
def test_an_experiment_goes_with_the_other_profiles(profile, name):
    changed = differing(compose(profile, name), compose(profile))
    assert set(EXPECTED[name]) - {"segmenter.training_sets"} <= set(changed)
    assert changed.get("segmenter.training_sets") == EXPECTED[name].get("segmenter.training_sets")


@pytest.mark.parametrize("name", ["table1_split2", "table1_split3", "seen_05", "seen_10"])
def test_an_experiment_on_pascals_categories_does_not_go_with_coco(name):
    with pytest.raises(UserError, match=f"experiment={name} is about the categories of 'pascal', profile 'paper_coco'"):
        compose("paper_coco", name)


@pytest.mark.parametrize("name", ["table2_model_a", "table2_model_e", "objects_one", "training_normal", "text2mask"])
def test_an_experiment_on_any_categories_goes_with_coco(name):
    changed = differing(compose("paper_coco", name), compose("paper_coco"))
    assert changed and all(not key.startswith("vocabulary.") for key in changed)
