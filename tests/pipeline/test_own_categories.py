"""README's "Your own categories" at smoke size: from words to a segmenter, without real images."""

import json

import pytest
from pycocotools.coco import COCO

from tests.pipeline.conftest import smoke_repository


@pytest.mark.slow
def test_from_words_to_a_segmenter_without_real_images(tmp_path, components):
    repository = smoke_repository(tmp_path / "repository", components=components)
    words = ("--seen", "dog,cat", "--unseen", "bird,moon base")
    said = repository.run("diffground", "new", "own", "--base", "smoke", *words)
    assert "2 seen, 2 unseen categories" in said and "UNet passes" in said
    repository.run("diffground", "profile", "own", "prompts.synthesis_per_category=8")
    said = repository.run("dvc", "repro")
    assert "no label for moon base" in said and "scores are on held-out synthetic ones" in said
    metrics = repository.root / "reports/metrics"
    zs3 = json.loads((metrics / "evaluate_zs3.json").read_text())
    num_synthetic = sum(json.loads((metrics / "sample_prompts.json").read_text())["synthesis"]["num_prompts"].values())
    assert zs3["num_images"] == num_synthetic // 10
    trained_on = json.loads((metrics / "train_maskformer.json").read_text())["synthetic"]["num_images"]
    assert trained_on == num_synthetic - num_synthetic // 10
    page = (repository.root / "reports/index.html").read_text()
    assert "They are no substitute for scores on real images" in page and "Table 1 of the paper" not in page
    assert "Data and pipelines are up to date" in repository.run("dvc", "repro")
    formats = ("--format", "coco", "--format", "hf", "--split", "0.8,0.1,0.1")
    repository.run("diffground", "export", "data/synthetic", *formats, "-o", "exported")
    splits = [COCO(path) for path in sorted((repository.root / "exported/coco/annotations").glob("instances_*.json"))]
    assert sum(len(split.imgs) for split in splits) == num_synthetic
    assert {entry["name"] for entry in splits[0].loadCats(splits[0].getCatIds())} == {"dog", "cat", "bird", "moon base"}
    picture = next((repository.root / "exported/coco/images").rglob("*.png"))
    repository.run("diffground", "segment", str(picture), "--with", "models/segmenter/synthetic", "-o", "masks")
    assert len(list((repository.root / "masks").glob("*.mask.png"))) == 1
