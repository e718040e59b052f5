"""params.yaml: what is wrong is said in one line that names the key and the remedy."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from diffground.errors import UserError
from diffground.reproduction.config import Params, load_params
from diffground.reproduction.params import flat_params

ROOT = Path(__file__).parents[3]


@pytest.fixture
def values() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def load(tmp_path: Path, values: object) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return load_params(path)


def message(tmp_path: Path, values: object) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, values)
    text = str(caught.value)
    assert "\n" not in text
    assert "params.yaml" in text
    return text


def test_the_committed_file_is_read_into_dataclasses(tmp_path, values):
    params = load(tmp_path, values)
    assert params.vocabulary.unseen == ("tvmonitor", "car", "dog", "sofa", "train")
    assert params.generator.guidance_scale == values["generator"]["guidance_scale"]
    assert isinstance(params.grounding.reduced_channels, tuple)


def test_a_misspelt_key_is_named_with_the_closest_right_one(tmp_path, values):
    values["generator"]["num_step"] = values["generator"].pop("num_steps")
    text = message(tmp_path, values)
    assert "'generator.num_step' is not a parameter; did you mean 'generator.num_steps'?" in text


def test_a_misspelt_section_is_named_with_the_closest_right_one(tmp_path, values):
    values["grouding"] = values.pop("grounding")
    assert "'grouding' is not a parameter; did you mean 'grounding'?" in message(tmp_path, values)


def test_a_key_like_none_known_gets_the_list_of_known_ones(tmp_path, values):
    values["daam"]["xyz"] = 1
    assert "known here: num_calibration, batch_size" in message(tmp_path, values)


def test_a_missing_key_is_named(tmp_path, values):
    del values["detector"]["mask_threshold"]
    assert "'detector.mask_threshold' is missing" in message(tmp_path, values)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("generator", "num_steps", "twenty", "generator.num_steps must be a whole number, got text 'twenty'"),
        ("generator", "num_steps", 20.5, "generator.num_steps must be a whole number, got a number 20.5"),
        ("generator", "num_steps", True, "generator.num_steps must be a whole number, got true or false True"),
        ("generator", "num_steps", None, "generator.num_steps must be a whole number, got nothing"),
        ("generator", "guidance_scale", "4,0", "generator.guidance_scale must be a number, got text '4,0'"),
        ("generator", "checkpoint", 5, "generator.checkpoint must be text, got a whole number 5"),
        ("tracking", "enabled", "yes", "tracking.enabled must be true or false, got text 'yes'"),
        ("grounding", "reduced_channels", 32, "grounding.reduced_channels must be a list of a whole number"),
        ("grounding", "reduced_channels", [32, "x"], "reduced_channels[1] must be a whole number, got text 'x'"),
        ("vocabulary", "unseen", "dog", "vocabulary.unseen must be a list of text, got text 'dog'"),
    ],
)
def test_a_wrong_type_is_named_with_the_right_one_and_the_value(tmp_path, values, section, key, value, expected):
    values[section][key] = value
    assert expected in message(tmp_path, values)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("generator", "num_steps", 0, "generator.num_steps must be at least 1, got 0"),
        ("generator", "tapped_step", 0, "generator.tapped_step must be at least 1, got 0"),
        ("generator", "tapped_step", 21, "generator.tapped_step must be at most generator.num_steps (6), got 21"),
        ("generator", "guidance_scale", -0.1, "generator.guidance_scale must not be negative, got -0.1"),
        ("generator", "guidance_scale", float("nan"), "generator.guidance_scale must be a finite number, got nan"),
        ("generator", "checkpoint", "", "generator.checkpoint must not be empty"),
        ("prompts", "num_train_one", -1, "prompts.num_train_one must not be negative, got -1"),
        ("prompts", "test_per_pair", -3, "prompts.test_per_pair must not be negative, got -3"),
        ("prompts", "context_frac", 1.5, "prompts.context_frac must be in 0..1, got 1.5"),
        ("data", "num_val", -1, "data.num_val must not be negative, got -1"),
        ("detector", "score_threshold", 1.01, "detector.score_threshold must be in 0..1, got 1.01"),
        ("detector", "score_threshold", -0.01, "detector.score_threshold must be in 0..1, got -0.01"),
        ("grounding", "learning_rate", 0.0, "grounding.learning_rate must be greater than 0, got 0.0"),
        ("grounding", "reduced_channels", [32, 0, 96], "grounding.reduced_channels[1] must be at least 1, got 0"),
        ("grounding", "gain_timesteps", [5, -1], "grounding.gain_timesteps[1] must not be negative, got -1"),
        (
            "generator",
            "guidance_interval",
            [700, 690],
            "[700, 690] contains none of generator.timesteps, so there would",
        ),
        ("grounding", "num_heads", 7, "grounding.embed_dim must be a multiple of grounding.num_heads (7), got 128"),
        ("inversion", "num_train", -1, "inversion.num_train must not be negative, got -1"),
        ("inversion", "fixed_point_iterations", -1, "inversion.fixed_point_iterations must not be negative, got -1"),
        ("inversion", "min_area_frac", 1.5, "inversion.min_area_frac must be in 0..1, got 1.5"),
        ("inversion", "batch_size", 0, "inversion.batch_size must be at least 1, got 0"),
        ("grounding", "training_data", "reel", "must be one of sim, real, both, got 'reel'; did you mean 'real'?"),
        ("grounding", "training_data", "real", "num_train must be at least 1 where grounding.training_data is 'real'"),
        ("grounding", "training_data", "both", "num_train must be at least 1 where grounding.training_data is 'both'"),
        ("runtime", "num_threads", 0, "runtime.num_threads must be at least 1, got 0"),
        ("runtime", "num_workers", 0, "runtime.num_workers must be at least 1, got 0"),
        ("runtime", "backend", "rey", "runtime.backend must be one of local, ray, got 'rey'; did you mean 'ray'?"),
        ("grounding", "branches", "condtional", "got 'condtional'; did you mean 'conditional'?"),
        ("text2mask", "threshold", 0, "text2mask.threshold must be greater than 0, got 0.0"),
        ("text2mask", "threshold", 1.1, "text2mask.threshold must be in 0..1, got 1.1"),
        ("text2mask", "threshold_from", "generate", "did you mean 'generated'?"),
        ("text2mask", "num_images", -1, "text2mask.num_images must not be negative, got -1"),
        ("text2mask", "crf_colour_scale", 0, "text2mask.crf_colour_scale must be greater than 0, got 0.0"),
        ("segmenter", "training_sets", ["text2mask"], "text2mask.num_images must be at least 1 where 'text2mask' is"),
        ("data", "source", "voc", "data.root must not be empty where data.source is 'voc'"),
        (
            "data",
            "source",
            "coco",
            "data.root must not be empty where data.source is 'coco'; name the folder of COCO 2017",
        ),
        ("data", "source", "web", "data.source must be one of none, stickers, voc, coco, folder, got 'web'"),
        ("data", "source", "folder", "data.root must not be empty where data.source is 'folder'; name the folder that"),
        (
            "data",
            "annotations",
            "keypoints",
            "data.annotations must be instances, panoptic or a path that ends in .json",
        ),
        ("data", "annotations", "instance", "got 'instance'; did you mean 'instances'?"),
        ("data", "binary_label", "dog", "data.binary_label must be '' where data.source is 'stickers', which has no"),
        ("data", "source", "none", "inversion.num_val must be 0 where data.source is 'none': there are no real images"),
        ("data", "train_list", "val", "data.train_list and data.val_list must differ, got 'val' for both"),
        ("vocabulary", "file", "coco", "data.source 'stickers' has no art of 'fire hydrant'; take another source"),
        (
            "vocabulary",
            "file",
            "cocoo",
            "or one of coco, pascal, sticker_coco; did you mean 'coco'",
        ),
        (
            "vocabulary",
            "file",
            "conf/none.yaml",
            "conf/none.yaml: no such vocabulary file; `diffground new`",
        ),
        ("vocabulary", "unseen", ["dgo"], "'dgo' is not one of the 20 categories; closest: dog. Known: aeroplane"),
        ("vocabulary", "seen", ["cat", "dog"], "'dog' is both seen and unseen"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_rule(tmp_path, values, section, key, value, expected):
    values[section][key] = value
    assert expected in message(tmp_path, values)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("generator", "num_steps", 1),  # equal to tapped_step
        ("generator", "guidance_scale", 4),  # a whole number where a number is wanted
        ("detector", "score_threshold", 0),
        ("detector", "score_threshold", 1),
        ("prompts", "test_per_pair", 0),
        ("grounding", "gain_timesteps", [0]),
        ("vocabulary", "unseen", []),
        ("inversion", "num_val", 0),
        ("text2mask", "num_images", 0),
        ("text2mask", "crf_iterations", 0),
    ],
)
def test_the_ends_of_a_range_belong_to_it(tmp_path, values, section, key, value):
    values[section][key] = value
    load(tmp_path, values)


@pytest.mark.parametrize("data", ["real", "both"])
def test_real_training_data_go_with_one_real_image_and_more(tmp_path, values, data):
    values["grounding"]["training_data"] = data
    values["inversion"]["num_train"] = 1
    assert load(tmp_path, values).grounding.training_data == data


@pytest.mark.parametrize("pairs", ["data", "data_val"])
def test_the_mini_world_goes_with_both_of_its_tables_and_with_no_other(tmp_path, values, pairs):
    values["vocabulary"] |= {"file": "sticker_coco", "pairs": pairs}
    assert load(tmp_path, values).data.source == "stickers"
    values["vocabulary"]["file"] = "coco"
    assert "coco: data.source 'stickers' has no art of 'fire hydrant'" in message(tmp_path, values)


def test_tables_are_parsed_once_per_file_and_not_per_category(tmp_path, values, monkeypatch):
    parsed, parse = [], yaml.safe_load
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(yaml, "safe_load", lambda text: parsed.append(text) or parse(text))
    load_params(tmp_path / "params.yaml")
    assert 1 <= len(parsed) < len(values["vocabulary"]["unseen"]), "the vocabulary and the art of its 20 categories"


def test_1e_4_without_a_point_is_a_number(tmp_path, values):
    values["grounding"]["learning_rate"] = "LR"
    assert load(tmp_path, yaml.safe_dump(values).replace("LR", "1e-4")).grounding.learning_rate == 1e-4


def test_a_missing_file_says_which_command_writes_it(tmp_path):
    with pytest.raises(UserError, match="no such file; run `diffground profile mini`"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2\n", "a: ${nowhere}\n", "- 1\n", "", "\tx: 1", "just words"])
def test_a_file_that_is_no_parameters_is_one_line(tmp_path, text):
    message(tmp_path, text)


def leaves(kind: type, section: str = "") -> dict[str, object]:
    """'section.key' -> the type of a field, or of its entries, with its range."""
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if is_dataclass(hint):
            found |= leaves(hint, f"{name}.")
        else:
            found[f"{section}{name}"] = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return found


def test_every_parameter_has_a_range_unless_it_is_a_switch_or_a_text_that_may_be_empty():
    kinds = leaves(Params)
    assert len(kinds) > 100
    without = {key for key, kind in kinds.items() if kind is not bool and get_origin(kind) not in (Annotated, Literal)}
    assert without == {
        "data.root", "data.binary_label", "generator.config_from", "prompts.contexts", "runtime.ray_address",
    }  # fmt: skip


def test_a_number_in_quotes_is_text_and_a_choice_is_no_number(tmp_path, values):
    values["generator"]["num_steps"] = "12"
    assert "generator.num_steps must be a whole number, got text '12'" in message(tmp_path, values)
    values["generator"] |= {"num_steps": 12, "dtype": 16}
    assert "generator.dtype must be text, got a whole number 16" in message(tmp_path, values)


def test_a_list_names_the_entry_that_is_no_choice(tmp_path, values):
    values["segmenter"]["training_sets"] = ["synthetic", "real_al"]
    expected = "segmenter.training_sets[1] must be one of synthetic, synthetic_and_real_seen, real_seen_only, text2mask"
    text = message(tmp_path, values)
    assert expected in text
    assert "got 'real_al'; did you mean 'real_all'?" in text


def test_a_section_that_is_none_is_named(tmp_path, values):
    values["daam"] = [1]
    assert "daam must be a section of keys and values, got a list [1]" in message(tmp_path, values)


def test_flat_parameters_keep_values_order_and_what_is_no_section():
    sections = {"profile": "mini", "b": {"y": (1, 2), "x": None}, "a": {}, "c": {"z": 0.5}}
    expected = [("profile", "mini"), ("b.y", (1, 2)), ("b.x", None), ("c.z", 0.5)]
    assert list(flat_params(sections).items()) == expected


def test_a_file_from_before_single_files_and_loras_is_read(tmp_path, values):
    del values["generator"]["config_from"], values["generator"]["loras"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    generator = load_params(tmp_path / "params.yaml").generator
    assert (generator.config_from, generator.loras) == ("", ())
