"""`diffground ground` with words of one's own and with DAAM, on a tiny real pipeline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from diffground.baselines.daam import sample_with_maps
from diffground.cli.actions import parse_inversion
from diffground.cli.main import main
from diffground.data.shards import decode_mask
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.diffusion.textual_inversion import spell_out
from diffground.grounding.prediction import Grounder
from tests.unit.diffusion.architectures import build_sdxl
from tests.unit.diffusion.conftest import IMAGE_SIZE, checkpoint, generator
from tests.unit.toy_grounding import save_toy_grounding

__all__ = ["checkpoint", "generator"]

ROOT = Path(__file__).parents[2]
PROMPT = "a photograph of a <my-cat> and a dog"
VECTOR = torch.linspace(-20, 20, 16)


@pytest.fixture
def place(checkpoint: Path, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with params.yaml, a grounding module with random weights, and my-cat.safetensors."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["generator"] |= {
        "checkpoint": str(checkpoint),
        "image_size": IMAGE_SIZE,
        "sampler": "ddim",
        "num_steps": 3,
        "timesteps": [],
        "guidance_interval": [],
        "tapped_step": 1,
        "dtype": "float32",
    }
    params["runtime"] |= {"device": "cpu", "num_threads": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    save_toy_grounding(
        tmp_path / "models/grounding",
        generator,
        generator_id=generator.generator_id,
        timestep=1,
        sampling=Sampling(3, 3.0, 1),
    )
    save_file({"<my-cat>": VECTOR}, tmp_path / "my-cat.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ground(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, list[str]]:
    """Exit code, what was printed, and the lines of errors."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["ground", *arguments])
    told = capsys.readouterr()
    return ended.value.code, told.out, told.err.splitlines()


def test_each_pixel_goes_to_the_likelier_word_from_the_threshold_on(
    place: Path, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt, words = "a photograph of a dog and a potted plant", ["dog", "potted plant"]
    asked = [prompt, "-c", words[0], "-c", words[1], "--seed", "3", "-o", "out/u.png"]
    params = yaml.safe_load(Path("params.yaml").read_text())
    samples = generator.sample([prompt], [3], Sampling(3, params["generator"]["guidance_scale"], 1))
    probs = (
        Grounder.load(Path("models/grounding"), generator=generator, device=torch.device("cpu"))
        .probs(
            latents=samples.latents, prompts=[prompt], words=[words], timestep=samples.timestep, image_size=IMAGE_SIZE
        )[0]
        .numpy()
    )
    names = {"u.png", "u.image.png", "u.dog.png", "u.potted_plant.png"}
    middle = float(np.median(probs.max(axis=0)))
    for threshold, options in ((params["grounding"]["mask_threshold"], []), (middle, ["--threshold", repr(middle)])):
        code, _, errors = ground(capsys, *asked, *options)
        assert (code, errors) == (0, [])
        assert {path.name for path in Path("out").iterdir()} == names
        for q, name in enumerate(("dog", "potted_plant")):
            expected = (probs[q] >= threshold) & (probs[q] > probs[1 - q])
            np.testing.assert_array_equal(decode_mask(Path(f"out/u.{name}.png").read_bytes()), expected)
        assert 0 < ((probs >= middle).any(axis=0)).mean() < 1


def test_a_word_of_one_s_own_is_generated_and_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"emb_params": -VECTOR[None]}, place / "other=cat.safetensors")
    pictures = []
    for word in ("my-cat.safetensors", "<my-cat>=other=cat.safetensors"):
        code, out, errors = ground(capsys, PROMPT, "--word", word, "-c", "<my-cat>", "-c", "dog", "-o", "out/u.png")
        assert (code, errors) == (0, [])
        assert [line.split(":")[0] for line in out.splitlines()] == ["<my-cat>", "dog", "out/u.png"]
        names = {"u.png", "u.image.png", "u.<my-cat>.png", "u.dog.png"}
        assert {path.name for path in Path("out").iterdir()} == names
        pictures.append(Path("out/u.image.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_a_word_of_several_vectors_is_written_as_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"emb_params": torch.stack([VECTOR, -VECTOR, 2 * VECTOR])}, place / "three.safetensors")
    whole = "<my-cat> <my-cat>_1 <my-cat>_2"
    contents = []
    for written in ("<my-cat>", whole):
        code, _, errors = ground(
            capsys,
            f"a photograph of a {written} and a dog",
            "--word",
            "<my-cat>=three.safetensors",
            "-c",
            written,
            "-o",
            "u.png",
        )
        assert (code, errors) == (0, [])
        contents.append(Path("u.png").read_bytes())
    assert contents[0] == contents[1]
    assert Path("u.<my-cat>.png").read_bytes() == Path("u.<my-cat>_<my-cat>_1_<my-cat>_2.png").read_bytes()


def test_of_several_prompts_some_may_have_a_word_of_one_s_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [PROMPT, "a photograph of a dog", "--word", "my-cat.safetensors", "-c", "<my-cat>", "-c", "dog"]
    code, out, errors = ground(capsys, *asked, "-o", "out", "--batch-size", "1")
    assert (code, errors[:-1], out.splitlines()[-1]) == (0, [], "out: 2 images done")
    words = {}
    for path in Path("out").rglob("meta.json"):
        record = json.loads(path.read_text())
        words[record["prompt"]] = [entry["word"] for entry in record["words"]]
    assert words == {PROMPT: ["<my-cat>", "dog"], "a photograph of a dog": ["dog"]}


def test_spelling_out_gives_the_tokens_that_diffusers_does(checkpoint: Path, tmp_path: Path) -> None:
    save_file({"emb_params": torch.stack([VECTOR, -VECTOR])}, tmp_path / "two.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    pipeline.load_textual_inversion(torch.stack([VECTOR, -VECTOR]), token="<my-cat>")
    ids = pipeline.tokenizer(pipeline.maybe_convert_prompt(PROMPT, pipeline.tokenizer)).input_ids
    spelt = spell_out(PROMPT, {"<my-cat>": "<my-cat> <my-cat>_1"})
    assert spelt == "a photograph of a <my-cat> <my-cat>_1 and a dog"
    assert pipeline.tokenizer(spelt).input_ids == ids
    assert spell_out(spelt, {"<my-cat>": "<my-cat> <my-cat>_1"}) == spelt
    assert spell_out("catalogue of a cat", {"cat": "cat cat_1"}) == "catalogue of a cat cat_1"


def test_a_word_inside_one_s_own_is_another_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = ["--word", "<my-dog>=my-cat.safetensors"]
    code, _, errors = ground(capsys, "a photograph of a <my-dog>", *word, "-c", "dog")
    assert code == 2
    assert errors[-1].startswith("error: the prompt 'a photograph of a <my-dog>' does not contain the words 'dog'")
    code, out, _ = ground(capsys, "a photograph of a <my-dog> and a dog", *word, "-c", "dog")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == ["dog", "ground.png"]


def test_daam_needs_no_grounding_module(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("models/grounding").iterdir():
        path.unlink()
    words = ["<my-cat>", "dog"]
    asked = [PROMPT, "--word", "my-cat.safetensors", "-c", words[0], "-c", words[1], "--seed", "3", "--method", "daam"]
    code, _, errors = ground(capsys, *asked)
    assert code == 2
    assert errors == [
        "error: reports/metrics/evaluate_grounding.json: no daam_threshold there; give --threshold, or run `dvc repro "
        "evaluate_grounding`, which fits it"
    ]
    assert ground(capsys, *asked, "--threshold", "0.4", "-o", "given.png")[0] == 0
    Path("reports/metrics").mkdir(parents=True)
    Path("reports/metrics/evaluate_grounding.json").write_text(json.dumps({"daam_threshold": 0.4}))
    assert ground(capsys, *asked, "-o", "fitted.png")[0] == 0
    assert Path("given.png").read_bytes() == Path("fitted.png").read_bytes()
    params = yaml.safe_load(Path("params.yaml").read_text())["generator"]
    pipeline = StableDiffusionPipeline.from_pretrained(params["checkpoint"], safety_checker=None)
    pipeline.load_textual_inversion(VECTOR, token="<my-cat>")
    _, [heat] = sample_with_maps(
        Generator(pipeline, image_size=IMAGE_SIZE, generator_id=""),
        [PROMPT],
        [3],
        [words],
        Sampling(3, params["guidance_scale"], 1),
    )
    for q, word in enumerate(words):
        expected = (heat[q] >= 0.4) & ((heat[q] > heat[1 - q]) | ((heat[q] == heat[1 - q]) & (q == 0)))
        assert expected.any()
        np.testing.assert_array_equal(decode_mask(Path(f"fitted.{word}.png").read_bytes()), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--word", "none.safetensors"], "none.safetensors: no such file; give the safetensors file"),
        (["--word", "<x>=none.safetensors"], "none.safetensors: no such file;"),
        (["--word", "learned.bin"], "learned.bin: must be a .safetensors file;"),
        (["--word", "pickled.safetensors"], "pickled.safetensors: not a safetensors file"),
        (["--word", "folder.safetensors"], "folder.safetensors: cannot be read ("),
        (["--word", "wide.safetensors"], "wide.safetensors: its vectors have 24 numbers, those of this text encoder"),
        (
            ["--word", "<rex>=my-cat.safetensors"],
            f"the prompt '{PROMPT}' does not contain '<rex>', a textual inversion;",
        ),
        (["--word", "dog=my-cat.safetensors"], "my-cat.safetensors: 'dog' is a word of the tokenizer already;"),
        (["--word", "my-cat.safetensors", "-c", "bus"], f"the prompt '{PROMPT}' does not contain the words 'bus';"),
        (["--word", "my-cat.safetensors", "--threshold", "1.5"], "--threshold must be above 0 and at most 1, got 1.5"),
        (["-c", "dog"], "words name 'dog' twice; name it once"),
        (["-o", "u.jpg"], "--out must end in .png, got 'u.jpg'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: list[str], message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("learned.bin", "pickled.safetensors"):
        torch.save({"<my-cat>": VECTOR}, place / name)
    save_file({"<my-cat>": torch.zeros(24)}, place / "wide.safetensors")
    (place / "folder.safetensors").mkdir()
    code, _, errors = ground(capsys, PROMPT, "-c", "dog", *arguments)
    assert code == 2
    assert [line for line in errors if line.startswith("error: ")] == errors[-1:]
    assert errors[-1].startswith(f"error: {message}")
    assert not list(place.glob("*.png"))


def test_two_text_encoders_take_no_word_of_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_sdxl().save_pretrained(place / "xl")
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["generator"] |= {"checkpoint": "xl", "image_size": 128}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, _, errors = ground(capsys, PROMPT, "-c", "dog", "--word", "my-cat.safetensors")
    assert code == 2
    assert errors[-1].startswith(
        "error: my-cat.safetensors: must hold clip_l and clip_g, as this generator has two text encoders,"
    )


def test_a_file_named_with_an_equals_sign_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "lr=1.safetensors").touch()
    name = str(tmp_path / "lr=1.safetensors")
    assert parse_inversion(name) == (None, Path(name))
    assert parse_inversion(f"<cat>={name}") == ("<cat>", Path(name))
    assert parse_inversion("cat.safetensors") == (None, Path("cat.safetensors"))


def test_before_a_reproduction_the_shipped_module_is_used(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["a photograph of a dog", "-c", "dog"]
    assert ground(capsys, *asked, "-o", "own.png")[0] == 0
    Path("models/mini").mkdir(parents=True)
    Path("models/grounding").rename("models/mini/grounding")
    assert ground(capsys, *asked, "-o", "shipped.png")[0] == 0
    assert Path("shipped.png").read_bytes() == Path("own.png").read_bytes()
    shutil.rmtree("models/mini/grounding")
    code, _, errors = ground(capsys, *asked)
    assert code == 2
    assert errors[-1].startswith("error: models/grounding: no grounding module (config.json is missing)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "bus"], "does not contain the words 'bus'"),
        (["-c", "dog", "--grounding", "none"], "none: no grounding module (config.json is missing)"),
        (["-c", "dog", "--threshold", "2"], "--threshold must be above 0 and at most 1, got 2"),
        (["-c", "dog", "-o", "dog.jpg"], "--out must end in .png"),
        (["-c", "dog", "--word", "none.safetensors"], "none.safetensors: no such file"),
        (["-c", "dog", "--seed", "-1"], "--seed must not be negative"),
    ],
)
def test_bad_arguments_are_reported_before_torch_is_imported(place, arguments, message):
    code = (
        "import sys; sys.modules.update(torch=None, diffusers=None, transformers=None)\n"
        "from diffground.cli.main import main; main(sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, "ground", "a photograph of a dog", *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_checkpoint_is_reported_before_torch_is_imported(place):
    params = yaml.safe_load((place / "params.yaml").read_text())
    params["generator"]["checkpoint"] = "models/none"
    (place / "params.yaml").write_text(yaml.safe_dump(params))
    test_bad_arguments_are_reported_before_torch_is_imported(place, ["-c", "dog"], "'models/none': no such folder")
