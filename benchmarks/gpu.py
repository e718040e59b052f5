"""Labelled images per second on a GPU at the sizes of Stable Diffusion 1.5 and XL, with random weights.

    python -m benchmarks.gpu --pack DIR              # with network: downloads the wheels that the GPU machine lacks
    python benchmarks/gpu.py --wheels DIR            # on the GPU machine, without network: at most eight minutes
    python -m benchmarks gpu --tiny --device cpu     # all of it with few channels, about a minute

The paper's module with the settings of profile paper_voc (50 steps, guidance), in bfloat16, at the batch size with the
most images per second: doubled until memory ends or nothing is gained. In the same run, at that batch size: plain
diffusers, images without masks, and the bare UNet and VAE passes. The released way, 50 guided steps of one image per
training sample, is computed from one such step and one decoded image. Writes reports/benchmarks/gpu.json and gpu.md
after every measurement, so that a run that is cut keeps what it has.

The GPU machine needs Python 3.11, torch 2.11, torchvision, transformers 5.17 and accelerate; diffusers and
annotated-types may come with --wheels, and diffground is read from this clone.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
# where nothing is installed, both are read from the clone
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "src")) if path not in sys.path]

from diffground.errors import UserError  # noqa: E402

if TYPE_CHECKING:
    import torch

    from diffground.grounding.config import GroundingConfig
    from diffground.report.tables import Table

PACKED = ("diffusers", "annotated-types")
"""What the GPU machine lacks; neither has compiled code. What else diffusers needs comes with transformers."""
MODELS = {"sd15": "Stable Diffusion 1.5, 512 px", "sdxl": "Stable Diffusion XL, 1024 px"}
BUDGETS_S = {"sd15": 150.0, "sdxl": 250.0}
"""Seconds per model from the beginning of its build; together with the start less than eight minutes."""
IMAGE_SIZES = {"sd15": 512, "sdxl": 1024}
TINY_IMAGE_SIZE, TINY_STEPS, TINY_MAX_BATCH = 64, 5, 2
MAX_BATCH = 256
COLUMNS = {
    "labelled images per second": "{:.2f}",
    "overhead over plain diffusers, %": "{:.1f}",
    "share of the UNet and VAE passes, %": "{:.1f}",
    "labelled images against the released way at batch 1, times": "{:.1f}",
    "training samples against the released way, one epoch, times": "{:.1f}",
}
NOT_MEASURED = "not measured"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, metavar="DIR", help="download the wheels into DIR, measure nothing")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="install these wheels for this run")
    parser.add_argument("--tiny", action="store_true", help="few channels and steps")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/benchmarks/gpu")
    arguments = parser.parse_args()
    try:
        if arguments.pack is not None:
            from benchmarks._wheels import download_wheels

            for wheel in download_wheels(PACKED, lock=ROOT / "requirements.lock", folder=arguments.pack):
                print(wheel)
            return
        with tempfile.TemporaryDirectory() as target:
            if arguments.wheels is not None:
                from benchmarks._wheels import install_wheels

                install_wheels(arguments.wheels, target=Path(target))
            require_packages()
            run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def require_packages() -> None:
    """Raises: UserError where a package of PACKED can neither be imported here nor came with --wheels."""
    missing = [name for name in PACKED if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed; run `python -m benchmarks.gpu --pack DIR` where there is network, "
            f"copy DIR here and give --wheels DIR"
        )


def run(arguments: argparse.Namespace) -> None:
    """Measure the models of the command line, one after another.

    Raises: UserError for a device that is not there.
    """
    import torch

    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {arguments.device}: torch sees no GPU; give --device cpu with --tiny")
    from benchmarks import _gpu_case, _random_pipelines
    from benchmarks._record import machine, write
    from diffground.diffusion.sampling import Sampling
    from diffground.runtime.device import pick_device, setup_torch

    setup_torch(num_threads=arguments.threads)
    device = pick_device(arguments.device)
    results: dict[str, Any] = {
        "machine": {**machine(num_threads=arguments.threads), "device": _name(device)},
        "dtype": "bfloat16",
        "tiny": arguments.tiny,
        "models": {},
    }
    builders = {"sd15": _random_pipelines.build_sd15, "sdxl": _random_pipelines.build_sdxl}
    for model in arguments.models:
        start_s = time.monotonic()
        build = partial(builders[model], tiny=arguments.tiny)
        pipeline = _gpu_case.build_on(build, device=device, dtype=torch.bfloat16)
        setting = _gpu_case.Setting(
            image_size=TINY_IMAGE_SIZE if arguments.tiny else IMAGE_SIZES[model],
            sampling=Sampling(TINY_STEPS if arguments.tiny else 50, guidance_scale=5.0, tapped_step=5),
            grounding=paper_module(len(pipeline.unet.config.block_out_channels)),
            device=device,
            max_batch=TINY_MAX_BATCH if arguments.tiny else MAX_BATCH,
            deadline_s=start_s + BUDGETS_S[model],
        )
        for found in _gpu_case.measure(pipeline, setting):
            results["models"][model] = found
            write(arguments.out, results, as_table(results["models"]), text=in_text(results))
            print(f"{MODELS[model]}: {found}", file=sys.stderr, flush=True)
        del pipeline, setting
        gc.collect()
    print(as_table(results["models"]).to_markdown())


def paper_module(num_sizes: int) -> GroundingConfig:
    """conf/grounding/paper.yaml, with its finest `num_sizes` widths: XL has one feature size less."""
    import yaml

    from diffground.grounding.config import GroundingConfig

    values: dict[str, Any] = yaml.safe_load((ROOT / "conf/grounding/paper.yaml").read_text(encoding="utf-8"))
    values["reduced_channels"] = tuple(values["reduced_channels"][-num_sizes:])
    values["gain_timesteps"] = tuple(values["gain_timesteps"])
    return GroundingConfig(**values)


def as_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row per model of MODELS; 'not measured' where there is no result."""
    from diffground.report.tables import Table

    rows = []
    for model, title in MODELS.items():
        found = models.get(model, {})
        ratios = found.get("ratios", {})
        cells = [pattern.format(ratios[name]) if name in ratios else NOT_MEASURED for name, pattern in COLUMNS.items()]
        memory = found.get("peak_memory_gib")
        rows.append(
            (title, str(found.get("batch_size", NOT_MEASURED)), *cells, NOT_MEASURED if memory is None else f"{memory}")
        )
    return Table(
        header=("random weights, bfloat16, 50 steps", "batch size", *COLUMNS, "peak memory, GiB"), rows=tuple(rows)
    )


def in_text(results: Mapping[str, Any]) -> str:
    """The line before the table: the machine, and whether this was tiny."""
    from benchmarks._record import in_words

    found = results["machine"]
    tiny = f" With few channels, {TINY_STEPS} steps and {TINY_IMAGE_SIZE} px (--tiny)." if results["tiny"] else ""
    return f"{found['device']}; {in_words(found)}{tiny}"


def _name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "processor only"


if __name__ == "__main__":
    main()
