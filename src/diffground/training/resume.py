"""The state from which a killed training resumes, and a finished one is not repeated: one file, written atomically."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffground.atomic import atomic_file
from diffground.errors import in_one_line
from diffground.runtime.code_digest import code_digest
from diffground.runtime.fingerprint import checkpoint_fingerprint
from diffground.runtime.instruction_set import limits
from diffground.runtime.rank import is_main_process

logger = logging.getLogger(__name__)

_FILE = "state.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """A training between two of its iterations."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    """Whatever JSON holds."""


@dataclass
class Unfinished:
    """A folder for the last state of a training. It is not an output of a stage, so DVC does not delete it.

    A state is only good for the same `fingerprint`: all that the result of the training depends on, as JSON. The last
    one stays after the training's end, until a training with another fingerprint drops it.
    """

    folder: Path
    fingerprint: Mapping[str, Any]
    every_s: float
    """Seconds between two states."""
    _saved_s: float = field(default_factory=time.monotonic, init=False)

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_s >= self.every_s

    def save(self, state: TrainingState) -> None:
        """Replace the previous state. Tensors may be on any device."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        content = {"fingerprint": self.fingerprint, "sha256": _digest(tensors), "values": state.values}
        for partial in self.folder.glob(f"{_FILE}.*.partial"):  # of processes that were killed
            partial.unlink(missing_ok=True)
        with atomic_file(self.folder / _FILE) as path:
            # the JSON stands in the header, so that both appear at once
            save_file(tensors, path, metadata={"state": json.dumps(content, sort_keys=True)})
        self._saved_s = time.monotonic()

    def load(self) -> TrainingState | None:
        """The last state, on the CPU; None where there is none. One that is damaged or of another training is deleted,
        with a warning in the log.
        """
        path = self.folder / _FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                content = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
            problem = _problem(content, tensors, json.loads(json.dumps(self.fingerprint)))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            problem = f"is damaged ({in_one_line(error)})"
        if problem:
            logger.warning(f"{path}: {problem}; it is deleted and training starts again from its beginning")
            self.remove()
            return None
        return TrainingState(tensors=tensors, values=content["values"])

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def training_fingerprint(
    *, code: str, parameters: Mapping[str, Any], data: Iterable[Path | str], device: torch.device
) -> dict[str, Any]:
    """What the result of a training depends on, as JSON. Of several processes the main one reads the data; the others
    get {}, and from `diffground.training.loop.train` what the main one has.

    Args:
        code: the module that trains; those that it imports count too.
        parameters: section of params.yaml -> its dataclass.
        data: folders, files or hub ids of what is trained on and of the models it starts from; their content counts.
    """
    if not is_main_process():
        return {}
    return {
        "code": code_digest(code),
        "parameters": {name: asdict(section) for name, section in parameters.items()},
        "data": {str(path): checkpoint_fingerprint(path) for path in data},
        "device": device.type,
        **limits(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }


def _problem(content: Mapping[str, Any], tensors: Mapping[str, Tensor], fingerprint: Mapping[str, Any]) -> str:
    """The reason why a state cannot be used; '' if it can."""
    if content["sha256"] != _digest(tensors):
        return "is damaged (its digest is another one)"
    saved = content["fingerprint"]
    differing = sorted(key for key in {*saved, *fingerprint} if saved.get(key) != fingerprint.get(key))
    return f"is of a training with other {', '.join(differing)}" if differing else ""


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}\0{tuple(tensors[name].shape)}\0".encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
