"""Continue the mini generator on a GPU machine without network, in one command of less than eight minutes.

    python pretrain/gpu.py --pack DIR                              # with network: what the GPU machine lacks
    python pretrain/gpu.py --packed DIR --out OUT                  # on the GPU machine
    python pretrain/gpu.py --packed DIR --out OUT --tiny --device cpu    # all of it in a minute or two

Scenes are composed on all CPU cores and encoded on the GPU. UNet and text encoder start from models/mini/diffusion and
keep their sizes and tokenizer. The training has large batches, bfloat16, torch.compile and averaged weights; settings:
section gpu of params.yaml. Quality is measured before and after with the prompts of evaluate_quality.py.

--work gets the whole pipeline (diffusion/) and the resumable state. --out gets at most 8 files of less than 16 MiB: the
weights that changed, quality.json, log.jsonl and samples.png. Both are renewed while it trains, so a killed run keeps
what it has. Started again with the same --work, it trains further from there.

The GPU machine needs Python 3.11 or newer, torch 2.11, torchvision, transformers 5.17 and accelerate; diffusers and
annotated-types may come with --packed, and diffground is read from this clone.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

START_S = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "pretrain"
# where nothing is installed, the library and the benchmarks are read from the clone
sys.path[:0] = [path for path in (str(HERE), str(ROOT), str(ROOT / "src")) if path not in sys.path]

from benchmarks._wheels import download_wheels, install_wheels  # noqa: E402
from benchmarks.gpu import PACKED  # noqa: E402
from diffground.atomic import atomic_file  # noqa: E402
from diffground.errors import UserError  # noqa: E402

SPRITES = HERE / "data" / "sprites.npz"
LIMIT_MIB = 64
"""Of the working tree and what is packed, which are copied to the GPU machine together."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main() -> None:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, metavar="DIR", help="put wheels and artworks into DIR, train nothing")
    parser.add_argument("--packed", type=Path, metavar="DIR", help="use what --pack has put there")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--work", type=Path, metavar="DIR", default=HERE / "state" / "gpu", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, help="of the whole command; default: as in params.yaml")
    parser.add_argument("--tiny", action="store_true", help="few scenes, steps and images")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    try:
        arguments = parser.parse_args()
        if arguments.pack is not None:
            pack(arguments.pack)
            return
        check(arguments)
        with tempfile.TemporaryDirectory() as target:
            if arguments.packed is not None:
                install_wheels(
                    arguments.packed,
                    target=Path(target),
                    option="--packed",
                    command="python pretrain/gpu.py --pack",
                )
            require_packages()
            from gpu_run import run

            run(
                out=arguments.out,
                work=arguments.work,
                sprites=artworks(arguments),
                device_name=arguments.device,
                tiny=arguments.tiny,
                minutes=arguments.minutes,
                start_s=START_S,
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def check(arguments: argparse.Namespace) -> None:
    """Raises: UserError for arguments that cannot be followed, before anything is installed."""
    if arguments.out is None:
        raise UserError("--out: missing; give the folder for the results")
    if arguments.out.resolve() == arguments.work.resolve():
        raise UserError(f"--out {arguments.out}: must be another folder than --work")
    if arguments.device == "cpu" and not arguments.tiny:
        raise UserError("--device cpu: takes hours for a few steps; give --tiny too, or use train_diffusion.py")
    if arguments.minutes is not None and not arguments.minutes > 0:
        raise UserError(f"--minutes must be more than 0, got {arguments.minutes:g}")
    require_artworks(artworks(arguments))


def artworks(arguments: argparse.Namespace) -> Path:
    return SPRITES if arguments.packed is None else arguments.packed / SPRITES.name


def require_artworks(sprites: Path) -> None:
    """Raises: UserError where the file is missing."""
    if not sprites.is_file():
        raise UserError(
            f"{sprites}: missing; make it with `python -m dvc --cd pretrain repro sprites` (needs Node.js) or --pack"
        )


def require_packages() -> None:
    """Raises: UserError where a package of PACKED can neither be imported here nor came with --packed."""
    missing = [name for name in PACKED if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed; run `python pretrain/gpu.py --pack DIR` where there is network, "
            "copy DIR here and give --packed DIR"
        )


def pack(folder: Path) -> None:
    """Put the wheels of PACKED and the artworks into `folder`; print them, and their size with the working tree.

    Raises: UserError for more than LIMIT_MIB, for missing artworks, and where pip fails.
    """
    travelling_mib(folder)
    require_artworks(SPRITES)
    download_wheels(PACKED, lock=ROOT / "requirements.lock", folder=folder)
    with atomic_file(folder / SPRITES.name) as partial:
        shutil.copyfile(SPRITES, partial)
    total_mib = travelling_mib(folder)
    for path in sorted(folder.iterdir()):
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
    print(f"with the working tree: {total_mib:.1f} of {LIMIT_MIB} MiB")


def travelling_mib(folder: Path) -> float:
    """Size of the working tree, without what git ignores, and of `folder`.

    Raises: UserError for more than LIMIT_MIB.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        raise UserError(f"{ROOT}: git cannot list its files; run this in a clone")
    tree = {ROOT / name for name in listed.stdout.split("\0") if name}
    packed = {path.resolve() for path in folder.rglob("*")} - tree
    tree_mib, packed_mib = _mib(tree), _mib(packed)
    if tree_mib + packed_mib > LIMIT_MIB:
        raise UserError(
            f"--pack {folder}: {packed_mib:.1f} MiB, with the working tree's {tree_mib:.1f} more than {LIMIT_MIB}; "
            "delete or ignore what the training does not need"
        )
    return tree_mib + packed_mib


def _mib(paths: Iterable[Path]) -> float:
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20


if __name__ == "__main__":
    main()
