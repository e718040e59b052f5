"""What each file of conf/experiment changes, and that it changes nothing else."""

import functools
import shutil
from pathlib import Path

import pytest
import yaml

from diffground.errors import UserError
from diffground.report.experiments import differing, effective_params
from diffground.reproduction.catalogue import read_catalogue
from diffground.reproduction.composition import compose_params
from diffground.vocabulary import load_vocabulary

CONF = Path(__file__).parents[3] / "conf"
CATALOGUE = read_catalogue(CONF / "experiment")
PROFILES = ("mini", "smoke", "paper_voc", "paper_coco")
SPLITS = {  # supplementary B.1 of the paper
    2: ["horse", "motorbike", "person", "pottedplant", "sheep"],
    3: ["bus", "cat", "chair", "cow", "diningtable"],
}
SPLIT1 = ["tvmonitor", "car", "dog", "sofa", "train"]
UNSEEN = {
    5: [*SPLIT1, "bicycle", "bird", "bottle", "bus", "chair", "cow", "horse", "motorbike", "pottedplant", "sheep"],
    10: [*SPLIT1, "bicycle", "bottle", "chair", "horse", "pottedplant"],
}
COCO_SEEN = (5, 20, 35, 50)  # of the paper; 65 is the default run
STEPS = (1, 2, 3, 4, 6)
PAPER_STEPS = (
    8,
    10,
    12,
    20,
    30,
    40,
    50,
)  # beyond the 6 of mini; the paper sweeps up to 50, and 5 is the default run there
# against mini: 500 + 700 training prompts, 20 x 60 + 142 x 5 = 1910 synthetic images, step 1
EXPECTED = {
    "table1_split2": {"vocabulary.unseen": SPLITS[2]},
    "table1_split3": {"vocabulary.unseen": SPLITS[3]},
    "seen_05": {"vocabulary.unseen": UNSEEN[5]},
    "seen_10": {"vocabulary.unseen": UNSEEN[10]},
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
    "module_both": {},
    "table2_model_d": {"segmenter.training_sets": ["synthetic_and_real_seen"]},
    "training_normal": {"grounding.training_type": "normal"},
    "objects_one": {"prompts.num_train_one": 1200, "prompts.num_train_two": 0},
    "objects_two": {"prompts.num_train_one": 0, "prompts.num_train_two": 1200},
    "data_sim_quarter": {
        "prompts.num_train_one": 125,
        "prompts.num_train_two": 175,
    },
    "timestep_01": {},
    **{f"timestep_{step:02d}": {"generator.tapped_step": step} for step in STEPS[1:]},
}

MODULES = {
    "module_paper": {"grounding.word_attention": False, "grounding.gain_timesteps": [], "grounding.text_drop": 0.0},
    "module_attention": {"grounding.gain_timesteps": []},
}
EXPECTED |= MODULES

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
    of_paper_profiles = {
        *(f"seen_{number:02d}" for number in COCO_SEEN),
        *(f"timestep_{step:02d}" for step in PAPER_STEPS),
    }
    assert set(CATALOGUE) == {*EXPECTED, *WITH_OTHER_STAGES, *of_paper_profiles}


@pytest.mark.parametrize("profile", ["paper_voc", "paper_coco"])
def test_the_papers_profiles_sweep_the_timestep_over_all_of_their_steps(profile):
    plain = compose(profile)
    swept = {
        name for name, experiment in CATALOGUE.items() if name.startswith("timestep") and experiment.exists_for(profile)
    }
    assert swept == {f"timestep_{step:02d}" for step in (*STEPS, *PAPER_STEPS)}
    assert max(PAPER_STEPS) == plain["generator.num_steps"]
    for step in (*STEPS, *PAPER_STEPS):
        assert differing(compose(profile, f"timestep_{step:02d}"), plain) == {"generator.tapped_step": step}


@pytest.mark.parametrize(("name", "profile"), [(e.name, p) for e in CATALOGUE.values() for p in PROFILES])
def test_an_experiment_exists_for_the_profiles_that_it_says_and_for_no_others(tmp_path, name, profile):
    experiment = CATALOGUE[name]
    if experiment.exists_for(profile):
        composed = compose(profile, name)  # with the check that load_params makes
        assert (composed["profile"], composed["vocabulary.file"]) == (profile, compose(profile)["vocabulary.file"])
        return
    line = f"^experiment {name} exists for profile {experiment.profiles}, not for '{profile}'$"
    with pytest.raises(UserError, match=line):
        compose(profile, name)
    if name in MODULES:  # the others could have it, but have no second module to compare with
        return
    shutil.copytree(CONF, tmp_path / "conf")
    path = tmp_path / f"conf/experiment/{name}.yaml"
    path.write_text(path.read_text().replace(f"# profiles: {experiment.profiles}", "# profiles: all"))
    with pytest.raises(UserError, match=r"cannot be composed|must be"):
        compose_params(profile, conf=tmp_path / "conf", overrides=[f"experiment={name}"])


@pytest.mark.parametrize(
    ("profile", "numbers", "total"), [("mini", (5, 10), 20), ("paper_voc", (5, 10), 20), ("paper_coco", COCO_SEEN, 79)]
)
def test_fewer_seen_categories_are_nested_and_keep_the_unseen_of_split_1(profile, numbers, total):
    plain = compose(profile)
    name, split1 = plain["vocabulary.file"], plain["vocabulary.unseen"]
    larger = set(load_vocabulary(name, unseen=split1).seen)
    for number in reversed(numbers):
        changed = differing(compose(profile, f"seen_{number:02d}"), plain)
        assert list(changed) == ["vocabulary.unseen"]
        unseen = changed["vocabulary.unseen"]
        vocabulary = load_vocabulary(name, unseen=unseen)
        assert len(vocabulary.seen) == number and len(unseen) == total - number
        assert unseen[: len(split1)] == split1 and set(vocabulary.seen) < larger
        larger = set(vocabulary.seen)
    assert "person" in larger, "what shares images with most others: training prompts of two need a pair"


@pytest.mark.parametrize("split", [2, 3])
def test_on_coco_table_1_has_its_own_splits(split):
    table = yaml.safe_load((CONF.parent / "src/diffground/tables/category_splits.yaml").read_text())["COCO-sim"]
    changed = differing(compose("paper_coco", f"table1_split{split}"), compose("paper_coco"))
    assert changed == {"vocabulary.unseen": table["unseen"][f"split{split}"]}


@pytest.mark.parametrize("name", ["data_real", "data_both"])
def test_on_coco_as_many_real_images_are_inverted_as_are_generated(name):
    plain = compose("paper_coco")
    changed = differing(compose("paper_coco", name), plain)
    assert changed == {
        "grounding.training_data": name.removeprefix("data_"),
        "inversion.num_train": plain["prompts.num_train_one"] + plain["prompts.num_train_two"],
    }


@pytest.mark.parametrize("profile", PROFILES)
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


@pytest.mark.parametrize(
    ("profile", "name"),
    [(p, n) for p in PROFILES[1:] for n in EXPECTED if CATALOGUE[n].exists_for(p) and not n.startswith("timestep")],
)
def test_an_experiment_is_about_the_same_on_the_other_profiles(profile, name):
    changed = differing(compose(profile, name), compose(profile))
    assert set(EXPECTED[name]) - {"segmenter.training_sets"} <= set(changed)
    assert changed.get("segmenter.training_sets") == EXPECTED[name].get("segmenter.training_sets")
