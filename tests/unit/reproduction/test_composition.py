import re
from pathlib import Path

import pytest
import yaml

from diffground.errors import UserError
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.vocabulary import load_vocabulary

CONF = Path(__file__).parents[3] / "conf"
PAGE = CONF.parent / "docs/mini_world.md"
BUILT_IN = "src/diffground/vocabularies"
SPLITS = Path(__file__).parents[3] / "src/diffground/tables/category_splits.yaml"
PROFILES = ("mini", "mini_tuning", "smoke", "paper_voc", "paper_coco")


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_composes_to_valid_parameters(tmp_path, name):
    (tmp_path / "params.yaml").write_text(compose_params(name, conf=CONF))
    assert load_params(tmp_path / "params.yaml").profile == name


def test_these_are_all_profiles():
    assert sorted(p.stem for p in (CONF / "profile").iterdir()) == sorted(PROFILES)


def test_the_paper_profile_has_the_papers_numbers():
    params = yaml.safe_load(compose_params("paper_voc", conf=CONF))
    generator, grounding, segmenter, prompts = (
        params[section] for section in ("generator", "grounding", "segmenter", "prompts")
    )
    # arXiv 2301.05221 sections 3.3 and 4.1, supplementary; guidance of the released code
    assert (generator["num_steps"], generator["tapped_step"], generator["guidance_scale"]) == (50, 5, 5.0)
    assert (grounding["embed_dim"], grounding["num_layers"], grounding["num_heads"]) == (512, 3, 8)
    assert (grounding["iterations"], grounding["batch_size"], grounding["learning_rate"]) == (5000, 8, 1e-4)
    assert sum(grounding["reduced_channels"]) == 240
    assert (segmenter["image_size"], segmenter["iterations"], segmenter["batch_size"]) == (224, 40000, 8)
    assert (prompts["test_per_category"], prompts["test_per_pair"]) == (30, 5)
    assert (params["inversion"]["num_val"], params["inversion"]["fixed_point_iterations"]) == (1449, 0)
    assert (prompts["synthesis_per_category"], prompts["synthesis_per_pair"]) == (500, 71)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_splits_are_the_papers(split):
    # supplementary B.1
    expected = {
        1: {"tvmonitor", "car", "dog", "sofa", "train"},
        2: {"horse", "motorbike", "person", "pottedplant", "sheep"},
        3: {"bus", "cat", "chair", "cow", "diningtable"},
    }
    params = yaml.safe_load(compose_params("mini", conf=CONF, overrides=[f"split=pascal_split{split}"]))
    assert set(params["vocabulary"]["unseen"]) == expected[split]


def test_the_coco_profile_has_the_papers_numbers():
    params = yaml.safe_load(compose_params("paper_coco", conf=CONF))
    prompts, num_pairs, num_categories = params["prompts"], 1559, 79
    # supplementary B.1: 5,488 test prompts; section 4.1: 118,500 images of one object, 109,130 of two
    assert num_categories * prompts["test_per_category"] + num_pairs * prompts["test_per_pair"] == 5488
    assert num_categories * prompts["synthesis_per_category"] == 118_500
    assert num_pairs * prompts["synthesis_per_pair"] == 109_130
    assert (params["vocabulary"]["file"], params["data"]["source"]) == (f"{BUILT_IN}/coco.yaml", "coco")
    assert params["data"]["num_train"] == params["data"]["num_val"] == 0


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_coco_splits_are_the_papers(split):
    table = yaml.safe_load((SPLITS).read_text())["COCO-sim"]
    vocabulary = yaml.safe_load(compose_params("paper_coco", conf=CONF, overrides=[f"split=coco_split{split}"]))[
        "vocabulary"
    ]
    assert vocabulary["unseen"] == table["unseen"][f"split{split}"]
    assert len(vocabulary["unseen"]) == 14 and vocabulary["seen"] == []


@pytest.mark.parametrize("profile", ["mini", "smoke"])
@pytest.mark.parametrize(("split", "num"), [(1, 10), (2, 9), (3, 14)])
def test_the_splits_of_sticker_coco_are_cocos_without_what_it_lacks(profile, split, num):
    overrides = ["table=sticker_coco", f"split=sticker_coco_split{split}"]
    vocabulary = yaml.safe_load(compose_params(profile, conf=CONF, overrides=overrides))["vocabulary"]
    table, known = yaml.safe_load(SPLITS.read_text()), load_vocabulary("sticker_coco").categories
    assert vocabulary["unseen"] == [c for c in table["COCO-sim"]["unseen"][f"split{split}"] if c in known]
    assert len(vocabulary["unseen"]) == num and vocabulary["seen"] == []


def test_the_documented_command_for_sticker_coco_changes_table_split_images_and_prompts():
    (said,) = re.findall(r"`diffground (profile mini table=sticker_coco [^`]*)`", PAGE.read_text(encoding="utf-8"))
    _, profile, *overrides = said.split()
    expected = {
        # table=sticker_coco and its split 1: of the paper's 14 unseen categories those 10 that there is art of
        "vocabulary": {
            "file": f"{BUILT_IN}/sticker_coco.yaml",
            "pairs": "data_val",
            "unseen": [
                "aeroplane",
                "train",
                "cat",
                "bear",
                "suitcase",
                "frisbee",
                "fork",
                "sandwich",
                "hot dog",
                "toilet",
            ],
        },
        "data": {"num_train": 4500, "num_val": 1500},
        "prompts": {"test_per_category": 10, "test_per_pair": 1, "synthesis_per_category": 30, "synthesis_per_pair": 1},
    }
    plain = yaml.safe_load(compose_params("mini", conf=CONF))
    changed = yaml.safe_load(compose_params(profile, conf=CONF, overrides=overrides))
    assert set(changed) == set(plain)
    assert {
        section: {key: value for key, value in values.items() if value != plain[section][key]}
        for section, values in changed.items()
        if values != plain[section]
    } == expected
    vocabulary = load_vocabulary(**{key: changed["vocabulary"][key] for key in ("file", "unseen", "seen")})
    assert (len(vocabulary.seen), len(vocabulary.unseen)) == (54, 10)


def test_the_augmented_voc_takes_its_own_list_and_labels():
    data = yaml.safe_load(compose_params("paper_voc", conf=CONF, overrides=["data=voc2012_aug"]))["data"]
    assert (data["train_list"], data["label_folder"], data["val_list"]) == ("trainaug", "SegmentationClassAug", "val")


def test_an_override_changes_one_value():
    changed = yaml.safe_load(compose_params("mini", conf=CONF, overrides=["grounding.iterations=7"]))
    plain = yaml.safe_load(compose_params("mini", conf=CONF))
    assert changed["grounding"].pop("iterations") == 7
    plain["grounding"].pop("iterations")
    assert changed == plain


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("mni", [], "profile must be one of mini, mini_tuning, paper_coco, paper_voc, smoke, got 'mni'"),
        ("mini", ["generator.num_step=3"], "num_step"),
        ("mini", ["generator=nowhere"], "nowhere"),
        ("mini", ["generator.num_steps=0"], r"generator.num_steps must be at least 1, got 0 \(profile 'mini'\)"),
        ("mini", ["not an override"], "not an override"),
    ],
)
def test_what_cannot_be_composed_is_one_line(name, overrides, expected):
    with pytest.raises(UserError, match=expected) as caught:
        compose_params(name, conf=CONF, overrides=overrides)
    assert "\n" not in str(caught.value)


def test_outside_a_clone_it_says_where_to_run(tmp_path):
    with pytest.raises(UserError, match="run this in the root of a clone"):
        compose_params("mini", conf=tmp_path / "conf")


def test_the_inputs_of_profile_mini_can_be_added_to_the_papers_module():
    mini = yaml.safe_load(compose_params("mini", conf=CONF))["grounding"]
    paper = yaml.safe_load(compose_params("paper_voc", conf=CONF))["grounding"]
    plus = yaml.safe_load(compose_params("paper_voc", conf=CONF, overrides=["grounding=paper_plus"]))["grounding"]
    added = ("word_attention", "gain_timesteps", "text_drop")
    assert plus == {**paper, **{key: mini[key] for key in added}} != paper
