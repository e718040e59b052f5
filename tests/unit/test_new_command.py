"""`diffground new`: own categories as a vocabulary and a profile."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from diffground.cli.cost import Rates, as_lines, estimate
from diffground.cli.main import main
from diffground.errors import UserError
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.reproduction.prompt_sets import sample_prompt_sets

ROOT = Path(__file__).parents[2]
SNACKS = ("new", "snacks", "--seen", "dog,cat,person", "--unseen", "pizza,unicorn,rocket", "--no-estimate")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mini").symlink_to(ROOT / "models/mini")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def composed(name):
    Path("params.yaml").write_text(compose_params(name, conf=Path("conf")))
    return load_params()


def test_a_vocabulary_and_a_profile_that_compose(clone, capsys):
    assert run(*SNACKS) == 0
    said = capsys.readouterr().out
    assert "conf/vocabulary/snacks.yaml: 3 seen, 3 unseen categories" in said
    assert "prompts: 1,200 train, 675 test, 1,920 synthesis" in said
    assert said.splitlines()[-1] == "Next: diffground profile snacks && dvc repro"
    params = composed("snacks")
    vocabulary = params.vocabulary.load()
    assert vocabulary.seen == ("dog", "cat", "person") and vocabulary.unseen == ("pizza", "unicorn", "rocket")
    assert len(vocabulary.pairs) == 15
    assert (params.profile, params.data.source, params.segmenter.training_sets) == ("snacks", "none", ("synthetic",))
    mini = yaml.safe_load(compose_params("mini", conf=Path("conf")))
    own = yaml.safe_load(compose_params("snacks", conf=Path("conf")))
    changed = {"profile", "vocabulary", "data", "inversion", "prompts", "segmenter"}
    assert {section for section in own if own[section] != mini[section]} == changed


def test_a_base_with_groups_of_its_own_keeps_them(clone):
    assert run(*SNACKS, "--base", "paper_voc", "--pairs", "none") == 0
    params, paper = composed("snacks"), yaml.safe_load(compose_params("paper_voc", conf=Path("conf")))
    assert params.generator.checkpoint == paper["generator"]["checkpoint"]
    assert params.grounding.iterations == paper["grounding"]["iterations"]
    assert params.vocabulary.load().pairs == () and params.prompts.num_train_two == 0


def test_the_detectors_own_name_goes_with_an_equals_sign(clone, capsys):
    assert run("new", "sofas", "--seen", "settee=couch,dog", "--unseen", "moon base", "--no-estimate") == 0
    vocabulary = composed("sofas").vocabulary.load()
    assert vocabulary.detector_names == {"settee": "couch", "dog": "dog", "moon base": None}
    said = capsys.readouterr().out
    assert "note: moon base: the detector does not know it, so Protocol I does not judge it" in said
    assert "note: moon base: the generator's tokenizer breaks it into 4 pieces" in said
    assert "note: dog" not in said


def test_categories_of_a_coco_file_a_devkit_and_a_list(clone):
    Path("coco.json").write_text(
        json.dumps({"categories": [{"id": 90, "name": "forklift"}, {"id": 3, "name": "dog"}]}), encoding="utf-8"
    )
    Path("list.txt").write_text("# own\ndog\r\n\r\nforklift\n", encoding="utf-8-sig")
    Path("devkit/Annotations").mkdir(parents=True)
    Path("devkit/Annotations/1.xml").write_text(
        "<annotation><object><name>forklift</name></object><object><name>dog</name></object></annotation>"
    )
    Path("labelled").mkdir()
    Path("labelled/labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3::\n")
    for i, source in enumerate(
        (["--from-coco", "coco.json"], ["--from-list", "list.txt"], ["--from-voc", "devkit"]), start=1
    ):
        assert run("new", f"own{i}", *source, "--no-estimate") == 0
        vocabulary = composed(f"own{i}").vocabulary.load()
        assert (vocabulary.seen, vocabulary.unseen) == (("dog",), ("forklift",))
    assert run("new", "own4", "--from-voc", "labelled", "--unseen", "cat", "--no-estimate") == 0
    assert composed("own4").vocabulary.load().categories == ("dog", "cat")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["new", "x"], "no category is given; give --seen and --unseen"),
        (["new", "a b", "--seen", "dog"], "the name must be of letters, digits, - and _, got 'a b'"),
        (["new", "../x", "--seen", "dog"], "the name must be of letters, digits, - and _, got '../x'"),
        (["new", "mini", "--seen", "dog"], "conf/profile/mini.yaml: exists; edit it, or delete it"),
        (["new", "x", "--seen", "dogg"], "the detector does not know dogg (closest to 'dogg': dog); write 'dogg=NAME'"),
        (["new", "x", "--seen", "dog,,cat"], "--seen: an empty name in 'dog,,cat'"),
        (["new", "x", "--seen", "dog", "--unseen", "dog"], "categories has 'dog' twice; name it once"),
        (["new", "x", "--unseen", "dog"], "all 1 categories in use are unseen; at least one must be seen"),
        (
            ["new", "x", "--seen", "dog", "--base", "mni"],
            "profile must be one of mini, mini_tuning, paper_coco, paper_voc, smoke",
        ),
        (["new", "x", "--seen", "dog", "--on", "h100"], "--on h100: not measured"),
        (
            ["new", "x", "--seen", "dog", "--real", "conf"],
            "--real conf: must be a VOC devkit (JPEGImages …) or have the folders",
        ),
        (["new", "x", "--from-coco", "none.json"], "none.json: no such file; give a COCO annotation file"),
        (["new", "x", "--from-list", "none.txt"], "none.txt: cannot be read; give a text file"),
        (["new", "x", "--from-voc", "none"], "none: has neither labelmap.txt nor Annotations/*.xml"),
        (["new", "x", "--seen", "dog", "--unseen", "a/b"], "must not be empty and have no slash, got 'a/b'"),
        (["new", "x", "--seen", "dog", "--unseen", "x" * 61], "name has 61 bytes, at most 60 fit"),
        (["new", "x", "--seen", "dog", "--unseen", " ".join("qwertyuiopasdfghjklzxcvb")], "do not fit into the"),
        (["new", "x", "--seen", ",".join(f"a{i}=dog" for i in range(255))], "255 categories are in use, at most 254"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(clone, capsys, arguments, expected):
    before = sorted(clone.rglob("*.yaml"))
    assert run(*arguments, "--no-estimate") == 2
    error = capsys.readouterr().err
    assert expected in error and error.startswith("error: ") and error.count("\n") == 1
    assert sorted(clone.rglob("*.yaml")) == before


def test_real_images_are_those_of_a_folder_or_a_devkit(clone):
    Path("photos/images").mkdir(parents=True)
    Path("devkit/JPEGImages").mkdir(parents=True)
    for source, folder in (("folder", "photos"), ("voc", "devkit")):
        assert run("new", folder, "--seen", "dog,cat", "--real", folder, "--no-estimate") == 0
        data = composed(folder).data
        assert (data.source, data.root, data.val_list) == (source, folder, "val")


def test_a_second_run_keeps_what_was_edited(clone, capsys):
    assert run(*SNACKS) == 0
    Path("conf/vocabulary/snacks.yaml").write_text("mine")
    assert run(*SNACKS) == 2
    assert "conf/vocabulary/snacks.yaml: exists" in capsys.readouterr().err
    assert Path("conf/vocabulary/snacks.yaml").read_text() == "mine"


def test_the_estimate_counts_every_pass(clone):
    assert run(*SNACKS) == 0
    params = composed("snacks")
    prompts = sample_prompt_sets(params.prompts, params.vocabulary.load())
    costs = {cost.stage: cost for cost in estimate(params, prompts, Rates("cpu", 0.01, 0.02, 0.1, 0.2))}
    # six steps, of which four have guidance: ten passes; for two words three passes at each of three timesteps
    two = sum(len(record.categories) == 2 for record in prompts["synthesis"])
    assert costs["generate"].num_passes == 10 * (1200 + 675)
    assert costs["synthesize"].num_passes == 10 * 1920 + 9 * two
    assert costs["train_grounding"].num_passes == 1200 + 9 * 700
    # DAAM samples again, the two others need one pass
    assert costs["evaluate_baselines"].num_passes == 12 * (128 + 675)
    assert costs["generate"].time_s == pytest.approx(18_750 * 0.01 + 1875 * 0.02)
    assert costs["train_maskformer"].time_s == pytest.approx(800 * 0.2)
    assert as_lines(list(costs.values()), Rates("cpu", 0, 0, 0, 0))[-2].startswith("total")


def test_params_without_real_images_must_not_need_them(clone):
    assert run(*SNACKS) == 0
    for override, expected in (
        ("inversion.num_val=3", "inversion.num_val must be 0 where data.source is 'none'"),
        ("text2mask.num_images=3", "text2mask.num_images must be 0 where data.source is 'none'"),
        ("vocabulary.pairs=data", "vocabulary.pairs must be 'file' where data.source is 'none'"),
        ("segmenter.training_sets=[real_all]", "segmenter.training_sets must be [synthetic] where data.source is"),
    ):
        with pytest.raises(UserError) as caught:
            compose_params("snacks", conf=Path("conf"), overrides=[override])
        assert expected in str(caught.value)
