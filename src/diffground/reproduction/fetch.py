"""Downloads for the paper's profiles: data sets, Stable Diffusion, the detector.

Files that you placed by hand are not downloaded again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diffground.errors import UserError
from diffground.reproduction.download import RemoteFile, download

ARTIFACTS = {
    "voc2012": "PASCAL VOC 2012",
    "coco2017": "COCO 2017, training and validation",
    "coco2017_val": "COCO 2017, validation only: the paper's 5,000 test images",
    "sd15": "Stable Diffusion 1.5",
    "detector": "Mask R-CNN trained on COCO",
}
"""Name -> description of what can be fetched."""

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
DETECTOR = "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1"

# COCO publishes no checksums. These are the checksums of its archives, unchanged since 2017. Its addresses are http, so
# only the checksum protects the content.
_COCO_URL = "http://images.cocodataset.org"
_COCO_ANNOTATIONS = RemoteFile(
    url=f"{_COCO_URL}/annotations/annotations_trainval2017.zip",
    checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    size_mb=252.907541,
)
_COCO_IMAGES = {
    "val2017": RemoteFile(
        url=f"{_COCO_URL}/zips/val2017.zip",
        checksum="sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        size_mb=815.585330,
    ),
    "train2017": RemoteFile(
        url=f"{_COCO_URL}/zips/train2017.zip",
        checksum="sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        size_mb=19336.861798,
    ),
}
_VOC_SIZE_MB = 1999.639040

# The repository also has pickles, half-precision and single-file copies of the same weights, and the safety checker
_STABLE_DIFFUSION_FILES = (
    "model_index.json",
    "README.md",
    "feature_extractor/*.json",
    "scheduler/*.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/*.json",
    "tokenizer/*.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
_STABLE_DIFFUSION_SIZE_MB = 4270.0


@dataclass(frozen=True)
class FileSource:
    """One file, kept as it is."""

    file: RemoteFile
    path: Path

    def describe(self) -> str:
        return f"{self.file.url} ({self.file.size_mb:.0f} MB) -> {self.path}"

    def is_complete(self) -> bool:
        return self.path.is_file()

    def fetch(self) -> None:
        download(self.file, self.path)


@dataclass(frozen=True)
class ArchiveSource:
    """A zip or tar, kept in `root`; `members` of it are unpacked to the same places under `root`, each atomically."""

    file: RemoteFile
    root: Path
    members: tuple[str, ...]

    def describe(self) -> str:
        return f"{self.file.url} ({self.file.size_mb:.0f} MB) -> {', '.join(str(self.root / m) for m in self.members)}"

    def is_complete(self) -> bool:
        return all((self.root / member).exists() for member in self.members)

    def fetch(self) -> None:
        from torchvision.datasets.utils import extract_archive

        archive = self.root / PurePosixPath(self.file.url).name
        download(self.file, archive)
        partial = self.root / f"{archive.name}.unpacked"
        shutil.rmtree(partial, ignore_errors=True)
        extract_archive(str(archive), str(partial))
        for member in self.members:
            target = self.root / member
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                (partial / member).replace(target)
        shutil.rmtree(partial)


@dataclass(frozen=True)
class HubSource:
    """Files of a model repository, in the hub's cache or in `folder`; the hub's client resumes and verifies them."""

    repository: str
    patterns: tuple[str, ...]
    folder: Path | None
    size_mb: float

    def describe(self) -> str:
        place = self.folder or "the hub's cache"
        return f"{self.repository} on the Hugging Face hub ({self.size_mb:.0f} MB, safetensors only) -> {place}"

    def is_complete(self) -> bool:
        return not self._missing()

    def fetch(self) -> None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HTTPError

        reason = ""
        try:
            snapshot_download(self.repository, allow_patterns=list(self.patterns), local_dir=self.folder)
        except (OSError, HTTPError) as error:
            reason = str(error).partition("\n")[0][:200]
        if missing := self._missing():
            raise UserError(
                f"{self.repository}: {missing[0]} could not be downloaded from the Hugging Face hub"
                f"{f' ({reason})' if reason else ''}; run this again later (finished files are kept), or place the "
                "pipeline folder (safetensors, json, txt) anywhere by hand and set generator.checkpoint to it"
            )

    def _missing(self) -> list[str]:
        """Files without a wildcard in their name that are not there yet."""
        from huggingface_hub import try_to_load_from_cache

        named = [pattern for pattern in self.patterns if "*" not in pattern]
        if self.folder is not None:
            return [name for name in named if not (self.folder / name).is_file()]
        return [name for name in named if not isinstance(try_to_load_from_cache(self.repository, name), str)]


@dataclass(frozen=True)
class Plan:
    sources: tuple[FileSource | ArchiveSource | HubSource, ...]
    """`is_complete`: nothing is left to fetch. `fetch` raises UserError when something cannot be downloaded."""
    next_step: str
    """The parameters to set so that the pipeline finds it."""

    def describe(self) -> list[str]:
        """One line per source: from where, to where, and whether it is there already."""
        return [f"{'there' if source.is_complete() else 'fetch'}: {source.describe()}" for source in self.sources]

    def run(self) -> None:
        """Fetch what is not there yet. Raises: UserError as the sources do."""
        for source in self.sources:
            if not source.is_complete():
                source.fetch()


def plan_fetch(name: str, *, root: Path | None = None) -> Plan:
    """The downloads of artifact `name`. Data sets go to `root` ('data' by default), weights to the caches of their
    libraries, or below `root` if it is given.

    Raises: UserError for an unknown name.
    """
    if name not in ARTIFACTS:
        raise UserError(f"fetch: must be one of {', '.join(ARTIFACTS)}, got '{name}'")
    if name == "voc2012":
        return _plan_voc(root or Path("data"))
    if name == "sd15":
        return _plan_stable_diffusion(root)
    if name == "detector":
        return _plan_detector(root)
    return _plan_coco((root or Path("data")) / "coco2017", only_val=name == "coco2017_val")


def _plan_voc(root: Path) -> Plan:
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    known = DATASET_YEAR_DICT["2012"]
    file = RemoteFile(url=known["url"], checksum=f"md5:{known['md5']}", size_mb=_VOC_SIZE_MB)
    folder = known["base_dir"]
    return Plan((ArchiveSource(file, root, (folder,)),), f"set data.source=voc data.root={root / folder}")


def _plan_coco(root: Path, *, only_val: bool) -> Plan:
    splits = ("val2017",) if only_val else ("val2017", "train2017")
    annotations = tuple(f"annotations/instances_{split}.json" for split in splits)
    images = [ArchiveSource(_COCO_IMAGES[split], root, (split,)) for split in splits]
    next_step = f"the validation split is in {root}" if only_val else f"set data.source=coco data.root={root}"
    return Plan((ArchiveSource(_COCO_ANNOTATIONS, root, annotations), *images), next_step)


def _plan_stable_diffusion(root: Path | None) -> Plan:
    folder = root / PurePosixPath(STABLE_DIFFUSION).name if root else None
    source = HubSource(STABLE_DIFFUSION, _STABLE_DIFFUSION_FILES, folder, _STABLE_DIFFUSION_SIZE_MB)
    return Plan((source,), f"set generator.checkpoint={folder or STABLE_DIFFUSION}")


def _plan_detector(root: Path | None) -> Plan:
    import torch
    from torchvision.models import get_weight

    weights = get_weight(DETECTOR)
    name = PurePosixPath(weights.url).name
    digits = PurePosixPath(name).stem.rpartition("-")[2]  # torchvision's convention: <model>-<first digits of SHA-256>
    file = RemoteFile(weights.url, f"sha256:{digits}", size_mb=weights.meta["_file_size"] * 2**20 / 10**6)
    cache = root / "hub" if root else Path(torch.hub.get_dir())
    place = f", environment variable TORCH_HOME={root}" if root else ""
    return Plan((FileSource(file, cache / "checkpoints" / name),), f"set detector.checkpoint={DETECTOR}{place}")
