"""A clone with shards of known samples, and the Studio's server in it as a user starts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import diffground
from diffground.data.labelled import image_sample, oracle_sample
from diffground.data.shards import write_shard
from diffground.vocabulary import load_vocabulary

ROOT = Path(__file__).parents[2]
NAMES = load_vocabulary("pascal").categories
NUM_SYNTHETIC, NUM_TEST = 30, 6
SIZE = 64


def picture_of(number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Sample `number`: a dog on the left, in every third a cat on the right too, and their masks."""
    rng = np.random.default_rng(number)
    image = np.full((SIZE, SIZE, 3), rng.integers(120, 200, 3), np.uint8)
    image[rng.integers(0, 2, (SIZE, SIZE)) == 1] += 20
    masks = {"dog": np.zeros((SIZE, SIZE), bool)}
    masks["dog"][10:40, 4:24] = True
    if number % 3 == 0:
        masks["cat"] = np.zeros((SIZE, SIZE), bool)
        masks["cat"][20:50, 34:60] = True
    for mask, colour in zip(masks.values(), ((200, 60, 40), (40, 60, 200)), strict=False):
        image[mask] = colour
    return image, masks


def facts_of(number: int) -> dict[str, object]:
    """What a sample's record says, apart from its name."""
    _, masks = picture_of(number)
    group = "two_seen" if len(masks) > 1 else "one_unseen"
    return {"prompt": f"a photograph of a {' and a '.join(masks)}", "categories": list(masks), "group": group}


def synthetic_sample(number: int):
    """The higher the number, the lower the quality."""
    image, masks = picture_of(number)
    label = np.zeros((SIZE, SIZE), np.uint8)
    for name, mask in masks.items():
        label[mask] = NAMES.index(name) + 1
    return image_sample(
        id=f"synthesis-{number:06d}",
        **facts_of(number),
        settings={"generator": "0123"},
        image=image,
        label=label,
        mask_summary={name: {"area_frac": float(mask.mean()), "max_prob": 1.0} for name, mask in masks.items()},
        quality=round(1 - number / NUM_SYNTHETIC, 3),
    )


def write_synthetic(folder: Path, *, num: int = NUM_SYNTHETIC, per_shard: int = 8) -> Path:
    for shard, start in enumerate(range(0, num, per_shard)):
        numbers = range(start, min(start + per_shard, num))
        write_shard(folder / f"{shard:06d}.tar", map(synthetic_sample, numbers))
    return folder


def write_test_set(generated: Path, oracle: Path) -> None:
    """The detector found nothing in the last sample."""
    images, found = [], []
    for number in range(NUM_TEST):
        key = f"test-{number:06d}"
        image, masks = picture_of(number)
        images.append(image_sample(id=key, **facts_of(number), settings={}, image=image))
        seen = {} if number == NUM_TEST - 1 else masks
        scores = {name: round(0.9 - number / 100, 2) for name in seen}
        found.append(oracle_sample(key, categories=list(masks), masks=seen, scores=scores))
    write_shard(generated / "000000.tar", images)
    write_shard(oracle / "000000.tar", found)


def make_clone(folder: Path) -> Path:
    """What the Studio reads of a clone after a reproduction of profile mini."""
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "src/diffground/vocabularies", folder / "src/diffground/vocabularies")
    (folder / "models").mkdir()
    (folder / "models/mini").symlink_to(ROOT / "models/mini")
    for name in ("synthetic", "test"):
        (folder / "review" / name).mkdir(parents=True)
    (folder / "review/synthetic/mini.csv").write_text("id,prompt,look,verdict,note\n")
    write_synthetic(folder / "data/synthetic")
    write_test_set(folder / "data/generated/test", folder / "data/oracle/test")
    for name, text in (
        ("tables/table1.csv", "method,one seen\ngrounding module,84.3\n"),
        ("metrics/zs3.json", '{"seen": 50}'),
        ("index.html", "<title>report</title>"),
    ):
        (folder / "reports" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "reports" / name).write_text(text)
    return folder


class Server:
    """`diffground studio` in a clone; `url` ends with a slash."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
        self._log = (folder / "studio.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "diffground", "studio", "--port", "0", *arguments],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("diffground studio: http://"), self.errors()
        self.url = line.split()[-1] + "/"

    def errors(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._close()

    def stop(self) -> int:
        """As Ctrl-C does. Returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=20)
        finally:
            self._process.kill()
            self._close()

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.wait()
        self._process.stdout.close()
        self._log.close()
