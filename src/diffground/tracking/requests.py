"""What a served model accepts over HTTP: records with base64 images, or with prompts, within limits."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from logging import getLogger
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from PIL import Image

from diffground.data.images import rgb_pixels
from diffground.errors import UserError, in_one_line
from diffground.prompts import check_words

_LOGGER = getLogger(__name__)

FORMATS = ("rle", "png")
"""Of the masks in an answer."""
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""PIL's names of what is read. Its other readers are left out: that of EPS runs another program."""

# set by MLflow's scoring server and by `mlflow models predict`
_IN_SERVER = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
_MAX_EXACT_FLOAT = 2**53  # pandas makes floats of a column in which a value is missing


@dataclass(frozen=True)
class Limits:
    """Of one request. They are in the config of a logged model, where `model_config` overrides them."""

    max_images: int = 16
    max_image_bytes: int = 16 * 2**20
    """Of one image file, before base64."""
    max_pixels: int = 4096 * 4096
    """Of one image, by its header."""
    max_prompts: int = 8
    max_prompt_chars: int = 1000
    """Of one prompt, and of its categories together."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Limits:
        """Those in `config`, defaults for the others. Raises: UserError for one that is not a whole number above 0."""
        given = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        for name, value in given.items():
            if type(value) is not int or value < 1:
                raise UserError(f"{name} must be a whole number above 0, got {value!r} (model_config)")
        return cls(**given)


DEFAULT_LIMITS: Mapping[str, int] = asdict(Limits())


class RequestError(UserError, MlflowException):
    """A refused request: MLflow's server answers with its code and its one line, Python callers see a UserError."""

    def __init__(self, message: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        MlflowException.__init__(self, in_one_line(message, limit=500), error_code=error_code)

    def serialize_as_json(self) -> str:
        # the server puts the whole request into `message` before it calls this
        self.message = str(self)
        return str(super().serialize_as_json())


@contextmanager
def one_line_errors() -> Iterator[None]:
    """UserErrors become RequestErrors, status 400; other errors status 500, their traceback in the log only."""
    try:
        yield
    except RequestError:
        raise
    except UserError as error:
        raise RequestError(str(error)) from None
    except Exception as error:
        _LOGGER.exception("a request failed")
        raise RequestError(
            f"the model failed ({type(error).__name__}); the server's log says where", INTERNAL_ERROR
        ) from error


def answer_format(params: Mapping[str, Any] | None) -> str | None:
    """How masks are answered: 'rle' or 'png'; None for arrays, which only Python callers get.

    Raises: RequestError for another format.
    """
    chosen = (params or {}).get("format")
    if chosen is None:
        return "rle" if os.environ.get(_IN_SERVER, "").lower() in ("true", "1") else None
    if chosen not in FORMATS:
        raise RequestError(f"params.format must be 'rle' or 'png', got {_shown(chosen)}")
    return str(chosen)


def records_of(model_input: Any, *, required: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The records of a request, as plain Python values; without keys whose value is missing.

    model_input: a list of objects (`inputs`), or a pandas DataFrame.
    Raises: RequestError for anything else, for missing and for unknown keys.
    """
    records = model_input.to_dict(orient="records") if hasattr(model_input, "to_dict") else model_input
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise RequestError(f"inputs must be a list of objects with {_named(required)}")
    if not records:
        raise RequestError(f"inputs is empty; send at least one object with {_named(required)}")
    plain = [{str(key): _plain(value) for key, value in record.items()} for record in records]
    present = [{key: value for key, value in record.items() if not _is_missing(value)} for record in plain]
    for i, record in enumerate(present):
        missing = [key for key in required if key not in record]
        if missing:
            raise RequestError(f"record {i} has no {_named(missing)}; it needs {_named(required)}")
        unknown = [key for key in record if key not in (*required, *optional)]
        if unknown:
            raise RequestError(
                f"record {i} has the unknown key {_shown(unknown[0])}; known: {_named([*required, *optional])}"
            )
    return present


def encoded_images(model_input: Any, limits: Limits) -> list[bytes]:
    """The image files of a request, not decoded: sizes in bytes and in pixels are checked.

    Raises: RequestError, which names the record.
    """
    records = records_of(model_input, required=["image"])
    if len(records) > limits.max_images:
        raise RequestError(
            f"{len(records)} images in one request, at most {limits.max_images} (max_images); send fewer"
        )
    files = [_image_file(record["image"], f"record {i}", limits) for i, record in enumerate(records)]
    for i, content in enumerate(files):
        open_header(content, f"record {i}", limits)
    return files


def decode_image(content: bytes, name: str, limits: Limits) -> np.ndarray:
    """An image file -> uint8 (H, W, 3), RGB, as data.images.read_image. Raises: UserError where it is damaged."""
    return rgb_pixels(open_header(content, name, limits), name=name, upright=True)


def open_header(content: bytes, name: str, limits: Limits) -> Image.Image:
    """The image, of which only the header was read. Raises: RequestError for no image, and for too many pixels."""
    try:
        image = Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError:
        raise RequestError(_too_many_pixels(name, "more than PIL's limit", limits)) from None
    except Exception:  # PIL's readers raise many kinds for damaged headers
        raise RequestError(
            f"{name}: 'image' is not an image that can be read; send PNG, JPEG, WebP, GIF, BMP or TIFF"
        ) from None
    if image.width * image.height > limits.max_pixels:
        raise RequestError(_too_many_pixels(name, f"{image.width} x {image.height}", limits))
    return image


@dataclass(frozen=True)
class PromptRecord:
    """One image to generate."""

    prompt: str
    categories: tuple[str, ...]
    seed: int


def prompt_records(model_input: Any, limits: Limits) -> list[PromptRecord]:
    """The prompts of a request, each with categories that it contains.

    Raises: RequestError, which names the record.
    """
    records = records_of(model_input, required=["prompt", "categories"], optional=["seed"])
    if len(records) > limits.max_prompts:
        raise RequestError(
            f"{len(records)} prompts in one request, at most {limits.max_prompts} (max_prompts); send fewer"
        )
    return [_prompt_record(record, f"record {i}", limits) for i, record in enumerate(records)]


def _prompt_record(record: Mapping[str, Any], name: str, limits: Limits) -> PromptRecord:
    prompt, categories = record["prompt"], record["categories"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError(f"{name}: 'prompt' must be a text, got {_shown(prompt)}")
    if (
        not isinstance(categories, list)
        or not categories
        or not all(isinstance(c, str) and c.strip() for c in categories)
    ):
        raise RequestError(f"{name}: 'categories' must be a list of at least one word, got {_shown(categories)}")
    if max(len(prompt), sum(map(len, categories))) > limits.max_prompt_chars:
        raise RequestError(
            f"{name}: 'prompt' and 'categories' have at most {limits.max_prompt_chars} characters (max_prompt_chars)"
        )
    if len(set(categories)) < len(categories):
        raise RequestError(f"{name}: 'categories' names a word twice; name it once")
    try:
        check_words(prompt, categories)
    except UserError as error:
        raise RequestError(f"{name}: {error}") from None
    return PromptRecord(prompt, tuple(categories), _seed(record.get("seed", 0), name))


def _seed(value: Any, name: str) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_EXACT_FLOAT:
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**63:
        raise RequestError(
            f"{name}: 'seed' must be a whole number of 0 or more, got {_shown(value)}; give each record one"
        )
    return value


def _image_file(text: Any, name: str, limits: Limits) -> bytes:
    if not isinstance(text, str):
        raise RequestError(f"{name}: 'image' must be a base64 text, got {type(text).__name__}")
    too_large = f"{name}: 'image' is too large, at most {limits.max_image_bytes} bytes before base64 (max_image_bytes)"
    if len(text) > -(-limits.max_image_bytes // 3) * 4:
        raise RequestError(too_large)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            f"{name}: 'image' is not base64; send the bytes of the file in base64, one line, without 'data:'"
        ) from None
    if len(content) > limits.max_image_bytes:
        raise RequestError(too_large)
    return content


def _too_many_pixels(name: str, size: str, limits: Limits) -> str:
    return f"{name}: 'image' has too many pixels ({size}), at most {limits.max_pixels} (max_pixels); scale it down"


def _plain(value: Any) -> Any:
    # MLflow makes a NumPy array of every value
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_missing(value: Any) -> bool:
    # pandas writes NaN where one of several records lacks a key
    return value is None or (isinstance(value, float) and value != value)


def _named(keys: Sequence[str]) -> str:
    return ", ".join(f"'{key}'" for key in keys)


def _shown(value: Any) -> str:
    return in_one_line(repr(value), limit=80)
