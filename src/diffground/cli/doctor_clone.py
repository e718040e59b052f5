"""Checks of `diffground doctor` on the current folder: git and DVC, and the weights and data of the profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffground.cli.findings import Check, Finding, is_clone, is_installed
from diffground.errors import UserError
from diffground.model_folders import check_grounding_folder, check_pipeline_folder
from diffground.reproduction import paths
from diffground.runtime.fingerprint import is_hub_id

_RESTORE = "run `git checkout -- models`, or `diffground profile smoke` for the folders of models/smoke"


def repository() -> Iterator[Finding]:
    if not is_clone(Path()):
        missing = " and ".join(name for name in ("dvc.yaml", "params.yaml") if not Path(name).is_file())
        found = f"{Path().resolve()} is not the root of a clone of the repository ({missing} missing)"
        fix = "the pipeline runs in a clone only; the library does not need one"
        if Path("dvc.yaml").is_file():
            fix = "run `diffground profile mini`"
        yield Finding("fail", "repository", found, fix)
        return
    yield from _git()
    yield from _dvc()


def _git() -> Iterator[Finding]:
    from diffground.reproduction.commands import git

    try:
        top = git("rev-parse", "--show-toplevel", cwd=Path())
        commit = git("rev-parse", "--short", "HEAD", cwd=Path())
        changed = git("status", "--porcelain", cwd=Path())
    except UserError as error:
        if "no_scm" in _text(Path(".dvc/config")) + _text(Path(".dvc/config.local")):
            yield Finding("ok", "git", "not a git repository; DVC is set to run without (core.no_scm)")
        else:
            fix = "clone it with git, or run `git init && git add -A && git commit -m start` here"
            yield Finding("fail", "git", str(error), fix)
        return
    if Path(top) != Path().resolve():
        yield Finding("fail", "git", f"the root of the git repository is {top}", "run it there, or clone anew")
        return
    num_changed = len(changed.splitlines())
    yield Finding("ok", "git", f"commit {commit}, {num_changed} files changed since")
    lock = Path(git("rev-parse", "--git-path", "index.lock", cwd=Path()))
    if lock.exists():
        yield Finding("warn", "git lock", f"{lock} is there", f"if no git command is running, delete it: rm {lock}")


def _dvc() -> Iterator[Finding]:
    from diffground.reproduction.commands import check_dvc_is_idle
    from diffground.reproduction.recovery import LOCK, RWLOCK, is_json, is_whole

    if not Path(".dvc").is_dir():
        yield Finding("fail", "dvc", "no folder .dvc", "run `git checkout -- .dvc`")
        return
    try:
        check_dvc_is_idle(Path())
    except UserError as error:
        yield Finding("warn", "dvc", str(error))
        return
    text = _text(LOCK)
    if RWLOCK.is_file() and not is_json(RWLOCK):
        yield Finding("fail", "dvc lock", f"{RWLOCK} is damaged", "run `diffground recover`")
    if text and not is_whole(text):
        yield Finding("fail", "dvc", f"{LOCK} is damaged", "run `diffground recover`")
    else:
        yield Finding("ok", "dvc", f"idle, {LOCK} is {'whole' if text else 'not there yet'}")


def weights() -> Iterator[Finding]:
    if not is_clone(Path()):
        return
    from diffground.reproduction.config import load_params

    params = load_params(paths.PARAMS)
    yield Finding("ok", "profile", params.profile)
    generator = params.generator.checkpoint
    try:
        check_pipeline_folder(generator, config_from=params.generator.config_from, loras=params.generator.loras)
    except UserError as error:
        yield Finding("fail", "generator", str(error), _RESTORE)
    else:
        yield _of_the_hub("generator", generator, "model_index.json", "run `diffground fetch sd15`")
    yield _detector(params.detector.backend, params.detector.checkpoint)
    yield from _segmenter_backend(params.segmenter.backend)
    backbone = params.segmenter.backbone
    if Path(backbone).is_dir() or not is_hub_id(backbone):
        yield _folder("segmenter's backbone", Path(backbone))
    else:
        yield _of_the_hub("segmenter's backbone", backbone, "config.json", "the stage downloads it at its first run")
    yield from _trained()


def _trained() -> Iterator[Finding]:
    for folder in (paths.GROUNDING_MODEL, paths.SHIPPED / "grounding"):
        try:
            check_grounding_folder(folder)
        except UserError:
            continue
        yield Finding("ok", "grounding module", str(folder))
        return
    fix = "run `dvc repro train_grounding`, or `git checkout -- models/mini`"
    yield Finding("warn", "grounding module", "none, so that `ground` and `segment` cannot find words", fix)


def _detector(backend: str, checkpoint: str) -> Finding:
    if backend == "detectron2":
        return _detectron2(Path(checkpoint))
    path = Path(checkpoint)
    if path.exists() or ("/" in checkpoint and not is_hub_id(checkpoint)):
        return _folder("detector", path) if not path.is_file() else Finding("ok", "detector", checkpoint)
    if backend == "transformers":
        return _of_the_hub("detector", checkpoint, "config.json", "the stage downloads it at its first run")
    if backend == "torchvision":
        from diffground.reproduction.fetch import DETECTOR, plan_fetch

        if checkpoint == DETECTOR and not all(source.is_complete() for source in plan_fetch("detector").sources):
            return Finding("fail", "detector", f"{checkpoint} is not downloaded", "run `diffground fetch detector`")
    return Finding("ok", "detector", checkpoint)


def _detectron2(folder: Path) -> Finding:
    if not is_installed("detectron2"):
        fix = "run `make detectron2 SOURCES=…`, see docs/detectron2.md, or set detector.backend"
        return Finding("fail", "detector", "detector.backend is 'detectron2', which is not installed", fix)
    from diffground.detection.detectron2_files import find_weights

    try:
        return Finding("ok", "detector", str(find_weights(folder)))
    except UserError as error:
        return Finding("fail", "detector", str(error))


def _segmenter_backend(backend: str) -> Iterator[Finding]:
    missing = [name for name in ("detectron2", "mask_former") if not is_installed(name)]
    if backend == "official" and missing:
        found = f"segmenter.backend is 'official', which needs {' and '.join(missing)}, not installed"
        fix = "run `make detectron2 SOURCES=…`, see docs/detectron2.md, or set segmenter.backend"
        yield Finding("fail", "segmenter", found, fix)


def _folder(what: str, folder: Path) -> Finding:
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        return Finding("fail", what, f"{folder}: {' and '.join(missing)} missing", _RESTORE)
    return Finding("ok", what, str(folder))


def _of_the_hub(what: str, checkpoint: str, file: str, fix: str) -> Finding:
    """A folder that was found, or a hub id, which may be in the hub's cache."""
    if Path(checkpoint).exists():
        return Finding("ok", what, checkpoint)
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(checkpoint, file), str):
        return Finding("ok", what, f"{checkpoint}, in the hub's cache")
    return Finding("warn", what, f"{checkpoint} is not downloaded yet", fix)


def data() -> Iterator[Finding]:
    if not is_clone(Path()):
        return
    from diffground.reproduction.config import load_params

    settings = load_params(paths.PARAMS).data
    if settings.source == "stickers":
        yield Finding("ok", "data", "scenes are composed from installed art, nothing to download")
        return
    if settings.source == "none":
        yield Finding("ok", "data", "no real images: segmenters are scored on held-out synthetic ones")
        return
    root = Path(settings.root)
    needed = {
        "voc": ("JPEGImages", settings.label_folder, "ImageSets/Segmentation"),
        "coco": ("train2017", "val2017", "annotations"),
    }.get(settings.source, ())
    missing = [name for name in needed if not (root / name).is_dir()]
    if missing:
        fix = f"run `diffground fetch {'voc2012' if settings.source == 'voc' else 'coco2017'}`, or set data.root"
        yield Finding("fail", "data", f"data.root '{root}': {', '.join(missing)} missing", fix)
    else:
        yield Finding("ok", "data", str(root))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


CHECKS: tuple[Check, ...] = (repository, weights, data)
