"""benchmarks/scale.py in small: more prompts take no more memory, and all of them arrive in shards."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import diffground
from diffground.data.shards import count_samples, list_shards

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SIZES = (500, 6000)
SCRIPT = """
    import json, os, sys
    from pathlib import Path
    import numpy as np
    import scale, torch
    from diffground.diffusion.generate import generate_shards
    from diffground.prompts import PromptFile, write_prompts
    from diffground.runtime.backend import make_workers

    def main():
        peaks = {}
        with make_workers(scale.runtime_of(workers=2, backend="local"), torch.device("cpu")) as workers:
            for num in map(int, sys.argv[1:]):
                memory = Path(f"memory-{num}")
                memory.mkdir()
                write_prompts(Path(f"{num}.jsonl"), scale.records(num))
                generate_shards(
                    PromptFile(Path(f"{num}.jsonl")), out_dir=Path(f"shards-{num}"),
                    generator=scale.NoiseGenerator(memory), batch_size=scale.BATCH_SIZE, shard_size=128,
                    workers=workers, **scale.SETTINGS,
                )
                of_workers = [np.loadtxt(path, ndmin=2)[-1, 0] for path in memory.iterdir()]
                peaks[num] = {"parent": scale.peak_mb(), "workers": sorted(of_workers)}
        print(json.dumps(peaks))

    if __name__ == "__main__":
        main()
"""


def test_memory_stays_flat_and_the_output_is_complete(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    env = {**os.environ, "PYTHONPATH": f"{Path(diffground.__file__).parents[1]}{os.pathsep}{BENCHMARKS}"}
    call = [sys.executable, "script.py", *map(str, SIZES)]
    done = subprocess.run(call, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, check=True)
    few, many = json.loads(done.stdout).values()
    assert len(few["workers"]) == len(many["workers"]) == 2
    assert many["parent"] - few["parent"] < 5
    for before_mb, after_mb in zip(few["workers"], many["workers"], strict=True):
        assert after_mb - before_mb < 10
    for num in SIZES:
        shards = list_shards(tmp_path / f"shards-{num}")
        assert len(shards) == -(-num // 128)
        assert sum(map(count_samples, shards)) == num
