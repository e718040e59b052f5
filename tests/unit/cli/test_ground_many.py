"""`diffground ground` for several prompts and seeds, with the shipped mini models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diffground import GroundedPipeline
from diffground.cli.main import main
from diffground.errors import UserError
from diffground.interface.words import gather_prompts, read_prompt_file, words_of_prompts
from diffground.prompts import check_words, words_in

ROOT = Path(__file__).parents[3]
PAIR = "a photograph of a dog and a sofa"
PHRASES = {"dog": "dog", "pottedplant": "potted plant", "sofa": "sofa"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with params.yaml of profile mini, its models, and prompts.txt with Windows line ends."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["runtime"] |= {"device": "cpu", "num_threads": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mini").symlink_to(ROOT / "models/mini")
    (tmp_path / "prompts.txt").write_bytes("\ufeff# kinds\r\n\r\na photograph of a dog\r\n  a red car \r\n".encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ground(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, list[str]]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["ground", *arguments])
    told = capsys.readouterr()
    return ended.value.code, told.out, told.err.splitlines()


def records(folder: str) -> dict[tuple[str, int], tuple[dict, Path]]:
    found = [(json.loads(path.read_text()), path.parent) for path in Path(folder).rglob("meta.json")]
    return {(record["prompt"], record["seed"]): (record, path) for record, path in found}


def test_each_prompt_and_seed_gives_the_image_and_the_masks_of_the_library(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [PAIR, "--prompts", "prompts.txt", "-n", "2", "--seed", "5", "-c", "dog", "-c", "car", "-c", "sofa"]
    code, out, _ = ground(capsys, *asked, "-o", "out", "--batch-size", "1")
    assert code == 0 and out.endswith("out: 6 images done\n")
    found = records("out")
    words = {PAIR: ["dog", "sofa"], "a photograph of a dog": ["dog"], "a red car": ["car"]}
    assert set(found) == {(prompt, seed) for prompt in words for seed in (5, 6)}
    pipe = GroundedPipeline.from_pretrained("models/mini/diffusion", grounding="models/mini/grounding", device="cpu")
    for (prompt, seed), (record, folder) in found.items():
        [sample] = pipe(prompt, words=words[prompt], seeds=[seed])
        assert [entry["word"] for entry in record["words"]] == words[prompt]
        np.testing.assert_array_equal(np.array(Image.open(folder / "image.png")), np.asarray(sample.image))
        label = np.array(Image.open(folder / "mask.png"))
        for i, mask in enumerate(sample.masks):
            np.testing.assert_array_equal(label == i + 1, mask)
        np.testing.assert_array_equal(np.array(Image.open(folder / "overlay.png")), np.asarray(sample.overlay()))
        assert record["settings"]["sampling"]["num_steps"] == 6 and record["settings"]["mask_threshold"] == 0.5
        assert set(record["versions"]) >= {"torch", "diffusers"}


def test_a_second_run_makes_only_what_is_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["a photograph of a dog", "a red car", "-o", "out"]
    code, out, _ = ground(capsys, *asked)
    assert code == 0
    assert out.startswith("words: dog (a photograph of a dog)\nwords: car (a red car)\n")
    assert out.endswith("out: 2 images done\n")
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    _, out, _ = ground(capsys, *asked, "-n", "2")
    assert "skipped: 2 finished with these settings before" in out and out.endswith("out: 2 images done\n")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(records("out")) == 4
    assert ground(capsys, *asked, "--threshold", "0.3")[1].endswith("out: 2 images done\n")
    assert ground(capsys, *asked, "--threshold", "0.3", "--overwrite")[1].endswith("out: 2 images done\n")


def test_one_prompt_without_c_uses_its_words_and_writes_the_files_of_one_image(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = ground(capsys, PAIR, "-o", "found.png")
    assert (code, out.splitlines()[0]) == (0, "words: dog, sofa")
    assert ground(capsys, PAIR, "-c", "dog", "-c", "sofa", "-o", "asked.png")[0] == 0
    assert {path.name for path in Path().glob("found*")} == {
        "found.png",
        "found.image.png",
        "found.dog.png",
        "found.sofa.png",
    }
    assert Path("found.png").read_bytes() == Path("asked.png").read_bytes()


def test_a_name_without_an_ending_is_a_folder_for_one_image_too(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ground(capsys, PAIR, "-o", "out")[1].endswith("out: 1 image done\n")
    assert {path.name for path in Path("out").rglob("*.*")} == {"image.png", "mask.png", "overlay.png", "meta.json"}


def test_a_prompt_that_only_the_tokenizer_finds_too_long_ends_the_run_before_the_first_image(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = ground(capsys, "a photograph of a dog", "a dog " + "qzx" * 40, "-c", "dog", "-o", "out")
    assert code == 2
    assert errors[-1].startswith("error: prompt must fit into 32 tokens, got ")
    assert not list(Path("out").rglob("*.png"))


BAD = [
    ([], "there is no prompt; write one or more, or give --prompts FILE"),
    (["", "-c", "dog"], "the prompt is empty"),
    ([PAIR, "-c", " "], "-c must not be empty"),
    ([PAIR, "-c", "dog", "-c", "dog"], "words name 'dog' twice; name it once"),
    (["two dogs", "-c", "dog"], "does not contain the words 'dog'; did you mean 'dogs'?"),
    (["a photograph of a unicorn"], "names no word of the vocabulary; give -c/--category WORDS"),
    ([PAIR, "a red car", "-c", "dog"], "the prompt 'a red car' contains none of the words 'dog'"),
    ([PAIR, "a dog", "-c", "dog", "-c", "bus"], "none of the 2 prompts contains the words 'bus'"),
    (["dog " + "very " * 1999, "-c", "dog"], "prompt must fit into 32 tokens, got 2002 or more: 'dog very"),
    (["x" * 10000, "-c", "dog"], "does not contain the words 'dog'"),
    ([PAIR, "-n", "0"], "-n must be 1 to 1000000, got 0"),
    ([PAIR, "-n", "1000001"], "-n must be 1 to 1000000, got 1000001"),
    ([PAIR, "--seed", "-1"], "--seed must not be negative, got -1"),
    ([PAIR, "--seed", str(2**63)], "--seed must be at most 9223372036854775807"),
    ([PAIR, "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    ([PAIR, "--threshold", "nan"], "--threshold must be above 0 and at most 1, got nan"),
    ([PAIR, "-n", "2", "-o", "out.png"], "--out must be a folder for several images, got 'out.png'"),
    ([PAIR, "-o", "out.jpg"], "--out must end in .png, got 'out.jpg'"),
    ([PAIR, "-o", "folder.png"], "--out must be a file, but 'folder.png' is a folder"),
    ([PAIR, "-o", "params.yaml/out.png"], "params.yaml: cannot be written (File exists)"),
    ([PAIR, "-n", "2", "-o", "params.yaml"], "params.yaml: cannot be written (File exists)"),
    (["--prompts", "none.txt"], "--prompts none.txt: cannot be read (No such file or directory)"),
    (["--prompts", "empty.txt"], "--prompts empty.txt: no prompt there; write one per line"),
    (["--prompts", "latin.txt"], "--prompts latin.txt: must be UTF-8 text"),
    ([PAIR, "--grounding", "none"], "none: no grounding module (config.json is missing)"),
    ([PAIR, "--word", "cat.safetensors"], "cat.safetensors: no such file"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_arguments_are_one_line_before_torch_is_imported(place: Path, arguments: list[str], message: str) -> None:
    Path("empty.txt").write_text("# nothing\n\n")
    Path("latin.txt").write_bytes("a café".encode("latin-1"))
    Path("folder.png").mkdir()
    code = (
        "import sys; sys.modules.update(torch=None, diffusers=None, transformers=None)\n"
        "from diffground.cli.main import main; main(sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, "ground", *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1 and len(done.stderr) < 600
    assert not Path("ground.png").exists() and not Path("grounded").exists()


def test_prompts_of_a_file_follow_those_of_the_command_line_and_each_is_used_once(place: Path) -> None:
    assert read_prompt_file(Path("prompts.txt")) == ["a photograph of a dog", "a red car"]
    prompts, notes = gather_prompts([PAIR, "a red car"], Path("prompts.txt"))
    assert prompts == [PAIR, "a red car", "a photograph of a dog"]
    assert notes == ["prompts that are named more than once: 1; each is used once"]


@pytest.mark.parametrize(
    ("prompt", "asked", "expected"),
    [
        ("a potted plant and a Dog", [], ["potted plant", "dog"]),
        ("a hot dog on a sofa", [], ["sofa"]),
        ("a hot dog on a sofa", ["dog"], ["dog"]),
        ("a hot dog and a dog", ["hot dog", "dog"], ["hot dog", "dog"]),
    ],
)
def test_words_are_those_asked_for_or_those_of_the_vocabulary(prompt, asked, expected) -> None:
    assert words_of_prompts([prompt], asked, phrases=PHRASES, has_inversions=False) == [expected]


def test_each_of_several_prompts_has_the_words_that_it_contains() -> None:
    prompts, asked = ["a dog and a cat", "a hot dog", "a cat"], ["cat", "dog", "hot dog"]
    found = words_of_prompts(prompts, asked, phrases=PHRASES, has_inversions=False)
    assert found == [["cat", "dog"], ["hot dog"], ["cat"]]
    assert words_in("a hot dog", asked) == ["hot dog"]


def test_with_words_of_one_s_own_the_words_must_be_named() -> None:
    with pytest.raises(UserError, match="with --word, say which words to find"):
        words_of_prompts(["a <cat> and a dog"], [], phrases=PHRASES, has_inversions=True)


@pytest.mark.parametrize(
    ("prompt", "word", "offered"),
    [
        ("two Dogs, asleep", "dog", "did you mean 'Dogs'?"),
        ("three potted plants.", "potted plant", "did you mean 'potted plants'?"),
        ("a motorbike", "motor bike", "did you mean 'motorbike'?"),
        ("a photograph of a sofa", "bus", "write them as in the prompt"),
        ("", "dog", "write them as in the prompt"),
    ],
)
def test_a_word_that_is_not_in_the_prompt_gets_the_closest_one_offered(prompt: str, word: str, offered: str) -> None:
    with pytest.raises(UserError, match="does not contain the words") as caught:
        check_words(prompt, [word])
    assert str(caught.value).rpartition("'; ")[2] == offered
