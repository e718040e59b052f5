"""Logged models: from code, without a pickle, loaded by MLflow only; rules for champions; refused models."""

import importlib.util
import json
import py_compile
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import diffground
from diffground.diffusion.generator import Generator
from diffground.errors import UserError
from diffground.grounding.checkpoint import Sampling, save_grounding
from diffground.grounding.fit import spec_for
from diffground.runtime.fingerprint import checkpoint_fingerprint
from diffground.tracking import benchmark_of, grounding_entry, load_model, segmenter_entry, start_run
from diffground.tracking.champion import Standing, takes_alias
from diffground.tracking.models import GROUNDING, SEGMENTER, save_model
from diffground.tracking.store import open_client
from tests.unit.tracking.toy_models import judge, save_segmenter

MODEL_FILES = {
    "MLmodel",
    "artifacts/synthetic/README.md",
    "artifacts/synthetic/config.json",
    "artifacts/synthetic/model.safetensors",
    "code_model.py",
    "conda.yaml",
    "input_example.json",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
}


@pytest.fixture(autouse=True)
def without_system_metrics(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)


def champions(params):
    """Alias -> SHA-256 of the weights that it names."""
    client = open_client(params.tracking.uri)
    aliases = client.get_registered_model(SEGMENTER).aliases
    return {a: client.get_model_version(SEGMENTER, v).tags["diffground.sha256"] for a, v in aliases.items()}


def files_of(folder):
    """All files except those that Python compiled when MLflow ran the script in the folder."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def test_a_trained_and_evaluated_segmenter_is_loaded_by_mlflow_only(params, components, images, runs_of):
    import mlflow

    segmenter = save_segmenter(Path("synthetic"), components)
    entry = segmenter_entry(Path("synthetic"), params)
    with start_run("train_maskformer", params) as run:
        run.log_model(entry)
    judge(params, Path("synthetic"), 43.6)
    client = open_client(params.tracking.uri)
    (version,) = client.search_model_versions(f"name = '{SEGMENTER}'")
    assert version.run_id == runs_of("train_maskformer")[0].info.run_id
    judged = client.get_run(runs_of("evaluate_zs3")[0].info.run_id)
    (model,) = client.search_logged_models([judged.info.experiment_id])
    assert [used.model_id for used in judged.inputs.model_inputs] == [model.model_id]
    assert (
        version.tags.items()
        >= {
            "diffground.profile": "smoke",
            "harmonic": "43.6",
            "seen": "50.0",
            "diffground.training_set": "synthetic",
            "diffground.sha256": checkpoint_fingerprint(Path("synthetic")),
        }.items()
    )
    shutil.rmtree("synthetic")
    mlflow.set_tracking_uri(params.tracking.uri)
    served = mlflow.pyfunc.load_model(f"models:/{SEGMENTER}@champion", suppress_warnings=True)
    expected = np.stack([scores.argmax(axis=0) for scores in segmenter.predict(list(images))])
    for given in (images, list(images), images.tolist()):
        labels = served.predict(given)
        assert (labels.dtype, labels.shape) == (np.uint8, (2, 40, 56))
        assert np.array_equal(labels, expected)
    sizes = [labels.shape for labels in served.predict([images[0], images[1, :32]])]
    assert sizes == [(40, 56), (32, 56)]
    with pytest.raises(UserError, match=r"image 0 must be whole numbers \(H, W, 3\), got float64"):
        served.predict(images / 255)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{SEGMENTER}/1"))
    assert files_of(folder) <= MODEL_FILES | {"registered_model_meta"}
    for name in ("requirements.txt", "conda.yaml", "python_env.yaml", "MLmodel"):
        text = (folder / name).read_text()
        assert "://" not in text and "index" not in text
        assert str(Path().resolve()) not in text and str(Path(diffground.__file__).parent) not in text
    assert "diffground" in (folder / "requirements.txt").read_text()
    ours = load_model(f"models:/{SEGMENTER}@champion", tracking_uri=params.tracking.uri)
    assert np.array_equal(ours.predict(images), expected)


def test_a_grounding_module_gives_images_and_masks(params, components):
    import mlflow

    p = replace(params.generator, checkpoint=str(components / "diffusion"))
    params = replace(params, generator=p)
    generator = Generator.load(p.checkpoint, device=torch.device("cpu"), dtype=torch.float32, image_size=p.image_size)
    spec = spec_for(generator, params.grounding, sampling=Sampling(p.num_steps, p.guidance_scale, p.tapped_step))
    torch.manual_seed(0)
    save_grounding(Path("grounding"), spec.build(), spec, card="card")
    with start_run("train_grounding", params) as run:
        run.log_model(grounding_entry(Path("grounding"), params))
    record = {"prompt": "a photograph of a dog and a cat", "categories": ["dog", "cat"], "seed": 3}
    mlflow.set_tracking_uri(params.tracking.uri)
    (answer,) = mlflow.pyfunc.load_model(f"models:/{GROUNDING}/1", suppress_warnings=True).predict([record])
    size = p.image_size
    assert (answer["image"].shape, answer["image"].dtype) == ((size, size, 3), np.uint8)
    assert (answer["masks"].shape, answer["masks"].dtype) == ((2, size, size), np.bool_)
    assert not answer["masks"].all(axis=0).any(), "masks are disjoint"
    samples = generator.sample([record["prompt"]], [3], p.sampling)
    assert np.array_equal(answer["image"], samples.images[0])
    ours = load_model(f"models:/{GROUNDING}/1", tracking_uri=params.tracking.uri)
    with pytest.raises(UserError, match="does not contain the words 'cow'"):
        ours.predict([{**record, "categories": ["cow"]}])
    other = shutil.copytree(components / "diffusion", "other")
    index = Path(other) / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_diffusers_version": "0.0.0"}))
    with pytest.raises(UserError, match="was trained on generator"):
        load_model(f"models:/{GROUNDING}/1", model_config={"generator": "other"})


def test_the_champion_moves_only_to_a_better_version(params, components):
    folders = [Path(name) for name in ("a", "b", "c")]
    for seed, folder in enumerate(folders):
        save_segmenter(folder, components, seed=seed)
    a, b, c = map(checkpoint_fingerprint, folders)
    judge(params, folders[0], 40.0)
    assert champions(params) == {"champion-smoke": a, "champion": a}
    judge(params, folders[1], 39.9)
    assert champions(params) == {"champion-smoke": a, "champion": a}
    judge(params, folders[2], 99.0, contends=False)
    assert champions(params) == {"champion-smoke": a, "champion": a}
    judge(params, folders[2], 40.1)
    judge(params, folders[1], None)
    assert champions(params) == {"champion-smoke": c, "champion": c}
    judge(params, folders[0], 40.0)  # evaluated again: no second version
    client = open_client(params.tracking.uri)
    assert len(client.search_model_versions(f"name = '{SEGMENTER}'")) == 3
    assert b not in champions(params).values()


SMOKE, MINI, VOC = (Standing(profile, "x", 50.0) for profile in ("smoke", "mini", "paper_voc"))


@pytest.mark.parametrize(
    ("alias", "candidate", "holder", "takes"),
    [
        ("champion", SMOKE, None, True),
        ("champion", MINI, SMOKE, True),  # trained weights go before random ones, whatever the score
        ("champion", replace(VOC, score=1.0), MINI, True),  # photographs before drawings
        ("champion", replace(MINI, score=99.0), VOC, False),
        ("champion", replace(VOC, profile="paper_coco", score=99.0), VOC, False),  # not comparable
        ("champion", replace(MINI, score=50.1), MINI, True),
        ("champion", MINI, MINI, False),
        ("champion", replace(MINI, score=49.9), MINI, False),
        ("champion", replace(MINI, score=99.0, benchmark="y"), MINI, False),  # other images
        ("champion-mini", replace(MINI, score=50.1), MINI, True),
        ("champion-mini", replace(MINI, score=99.0, benchmark="y"), MINI, False),
        ("champion-mini", replace(VOC, score=99.0), MINI, False),
    ],
)
def test_who_takes_an_alias(alias, candidate, holder, takes):
    assert takes_alias(alias, candidate, holder) is takes


def test_a_batch_size_does_not_make_another_benchmark(params):
    generator = replace(params.generator, batch_size=99)
    assert benchmark_of(replace(params, generator=generator), "generator") == benchmark_of(params, "generator")
    other = replace(params, generator=replace(params.generator, num_steps=99))
    assert benchmark_of(other, "generator") != benchmark_of(params, "generator")


class Planted:
    """Unpickling it writes a file."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.fixture
def logged(params, components):
    """A folder as MLflow gets it."""
    save_segmenter(Path("synthetic"), components)
    values = {"registered": SEGMENTER, "config": {"device": "cpu"}, "tags": {}}
    save_model(Path("logged"), Path("synthetic"), values)
    return Path("logged")


def test_limits_can_be_set_where_a_model_is_served(logged, monkeypatch):
    from mlflow.pyfunc.scoring_server import load_model_with_mlflow_config

    monkeypatch.setenv("SERVING_MODEL_CONFIG", '{"max_pixels": 63}')
    served = load_model_with_mlflow_config(str(logged))
    example = json.loads((logged / "serving_input_example.json").read_text())
    with pytest.raises(UserError, match=r"too many pixels \(8 x 8\), at most 63"):
        served.predict(example["inputs"], params=example["params"])
    monkeypatch.setenv("SERVING_MODEL_CONFIG", '{"max_pixels": 64}')
    (answer,) = load_model_with_mlflow_config(str(logged)).predict(example["inputs"], params=example["params"])
    assert (answer["width"], answer["height"]) == (8, 8)


def refused(folder, expected):
    with pytest.raises(UserError, match=expected) as error:
        load_model(str(folder))
    assert "\n" not in str(error.value)
    assert not Path("executed").exists()


def test_a_pickled_model_is_refused_before_it_runs(params):
    import cloudpickle
    import mlflow

    class Model(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input

    mlflow.pyfunc.save_model("pickled", python_model=Model(), pip_requirements=["diffground"])
    Path("pickled/python_model.pkl").write_bytes(cloudpickle.dumps(Planted()))
    refused(Path("pickled"), r"^pickled: not a model from code; loading it would run a pickle, so it is refused$")


def test_foreign_models_and_files_are_refused(logged):
    for name, spoil, expected in (
        ("pickle", lambda f: (f / "artifacts/synthetic/x.pkl").write_bytes(b""), "holds other files"),
        ("outside", lambda f: edit(f, "artifacts/synthetic", ".."), "holds other files"),
        ("loader", lambda f: edit(f, "mlflow.pyfunc.loaders.code_model", "mlflow.sklearn"), "not a model from code"),
        ("other", lambda f: edit(f, f"model: {SEGMENTER}", "model: other"), "not a model from code"),
        ("meta", lambda f: (f / "MLmodel").write_text("[]"), "no MLflow model of this package"),
    ):
        folder = Path(shutil.copytree(logged, name))
        spoil(folder)
        refused(folder, expected)
    refused("models:/nobody@champion", "no such model")


def compile_planted(folder):
    """Compiled code that Python would take for that of the script."""
    Path("planted.py").write_text("open('executed', 'w')")
    compiled = importlib.util.cache_from_source(str(folder / "code_model.py"))
    py_compile.compile("planted.py", compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


@pytest.mark.parametrize(
    "plant",
    [
        lambda folder: (folder / "code_model.py").write_text("open('executed', 'w')"),
        compile_planted,
        lambda folder: edit(folder, "    streamable: false", "    streamable: false\n    data: artifacts"),
    ],
    ids=["script", "compiled script", "data"],
)
def test_no_code_in_the_folder_of_a_model_is_run(logged, images, plant):
    expected = load_model(str(logged)).predict(images)
    assert expected.shape == (2, 40, 56)
    plant(logged)
    assert np.array_equal(load_model(str(logged)).predict(images), expected)
    assert not Path("executed").exists()


def edit(folder, old, new):
    text = (folder / "MLmodel").read_text()
    assert old in text
    (folder / "MLmodel").write_text(text.replace(old, new))
