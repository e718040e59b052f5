"""What is committed: model folders with cards and without pickles, results that README and docs repeat, no private
places."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import diffground
from diffground.report.experiments import comparable_experiments, read_records
from diffground.report.readme import marked_tables, read_tables
from diffground.report.write import result_tables
from diffground.reproduction.config import load_params
from diffground.reproduction.metrics import read_metrics

ROOT = Path(__file__).parents[2]
MINI = ROOT / "models" / "mini"
PICKLES = {".bin", ".ckpt", ".pkl", ".pt", ".pth"}
# spelt in parts, so that this file passes its own test
PRIVATE = re.compile(
    "|".join(["/" + r"(work|tmp|root|home|opt)/", "py" + r"pi\.org", "python" + "hosted", "npm" + "js"])
)


def repository_files():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


FILES = repository_files()


def test_no_file_names_a_place_of_one_machine_or_a_registry():
    assert len(FILES) > 50
    found = []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in PRIVATE.finditer(text)]
    assert found == []


def test_nothing_pickled_is_committed():
    assert [str(path.relative_to(ROOT)) for path in FILES if path.suffix in PICKLES] == []


@pytest.mark.parametrize("name", ["diffusion", "detector", "backbone", "grounding", "segmenter"])
def test_a_mini_checkpoint_has_safetensors_and_a_card(name):
    folder = MINI / name
    assert list(folder.rglob("*.safetensors"))
    card = (folder / "README.md").read_text(encoding="utf-8").lower()
    trained_on_art = name in ("diffusion", "detector", "backbone")
    for word in ("data", "licen", "limit", *(("twemoji", "openmoji") if trained_on_art else ())):
        assert word in card, f"{folder / 'README.md'} says nothing of '{word}'"


def test_the_mini_checkpoints_are_small():
    assert sum(path.stat().st_size for path in MINI.rglob("*") if path.is_file()) <= 64 * 2**20


def test_tables_are_those_of_the_committed_metrics(monkeypatch):
    monkeypatch.chdir(ROOT)  # the generator's checkpoint is named relative to it
    metrics = {path.stem: read_metrics(path.stem) for path in Path("reports/metrics").glob("*.json")}
    params = load_params()
    experiments = comparable_experiments(params)
    tables = result_tables(metrics, params, experiments)
    written = read_tables()
    assert {name: table.to_markdown() for name, table in tables.items()} == written


def test_committed_records_of_experiments_are_of_experiments_that_are_there():
    names = {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")}
    records = read_records(ROOT / "reports/experiments")
    assert records and {re.sub(r"_seed[1-9]\d*$", "", record.experiment) for record in records} <= names


def test_readme_repeats_the_committed_tables():
    tables = read_tables(ROOT / "reports/tables")
    repeated = marked_tables((ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(repeated) == {"protocol1", "spread_zs3"}
    for name, body in repeated.items():
        assert body == tables[name], "run `make readme`"


def test_the_docs_repeat_how_good_the_mini_checkpoints_are():
    metrics = read_metrics("mini_diffusion", folder=ROOT / "reports/metrics")
    page = " ".join((ROOT / "docs/mini_world.md").read_text(encoding="utf-8").split())
    quality = read_metrics("mini_quality", folder=ROOT / "reports/metrics")
    generated, real, prompts = (
        quality["generated"]["detector"],
        quality["real"]["detector"],
        quality["generated"]["num_prompts"],
    )
    held_out = {"pascal_one_object": "real_val_found", "pascal_two_objects": "real_val_two_objects_found"}
    for name in ("pascal_one_object", "pascal_two_objects", "coloured", "placed", "further_one_object"):
        found = [generated[f"{name}_found"], real[f"{name}_found"]]
        found += [metrics[held_out[name]]] if name in held_out else []
        cells = " | ".join(f"{100 * value:.1f}" for value in found)
        assert f"| {prompts[name]} | {cells} |" in page
    copies = quality["neighbours"]
    for said in (
        f"The colour is right in {100 * quality['generated']['colours_obeyed']:.1f} %",
        f"The place is right in {100 * quality['generated']['places_obeyed']:.1f} %",
        f"AP50 of {metrics['detector_mask_ap50']:.2f}",
        f"{copies['num_images'] * copies['copied']['generated']:.0f} of {copies['num_images']} are",
        f"finds {100 * copies['copied']['planted']:.0f} % of planted copies",
    ):
        assert said in page


def test_the_ratios_in_readme_are_those_of_the_benchmarks():
    speed, sd15, samples = (
        json.loads((ROOT / f"reports/benchmarks/{name}.json").read_text(encoding="utf-8"))["ratios"]
        for name in ("speed", "sd15", "training_samples")
    )
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    paper = "overhead of masks of the paper's module, %"
    for said in (
        f"masks of the paper's module take {speed[paper]:.1f} % longer",
        f"at the size of Stable Diffusion 1.5 {sd15[paper]:.1f} % longer",
        f"with `mini`'s module they take {speed['overhead of masks of profile mini, %']:.1f} % longer",
        f"{samples['each used once']['median']:.1f} times as fast",
    ):
        assert said in page


def test_readme_has_at_most_150_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_version_is_that_of_changelog_and_citation():
    changelog, citation = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), (ROOT / "CITATION.cff").read_text()
    version, date = re.findall(r"^## \[([\d.]+)\] - ([\d-]+)$", changelog, re.MULTILINE)[0]
    assert diffground.__version__ == version
    assert f"version: {version}\n" in citation and f'date-released: "{date}"' in citation


def test_pictures_of_readme_are_committed():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    assert [picture for picture in pictures if ROOT / picture not in FILES] == []


def test_readme_credits_the_art():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for credit in ("Twemoji", "CC-BY 4.0", "OpenMoji", "CC BY-SA 4.0", "2301.05221"):
        assert credit in readme
