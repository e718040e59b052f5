"""Requests to a served model, as MLflow hands them over: what is read, what is refused, and how."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from diffground.errors import UserError
from diffground.tracking.answers import segmentation_answer
from diffground.tracking.requests import (
    Limits,
    RequestError,
    answer_format,
    decode_image,
    encoded_images,
    one_line_errors,
    prompt_records,
)

DOG = {"prompt": "a photograph of a dog", "categories": ["dog"]}


def file_of(size, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 40, 40)).save(buffer, kind)
    return buffer.getvalue()


def in_base64(content):
    return base64.b64encode(content).decode()


def refused(call, expected):
    with pytest.raises(RequestError) as error:
        call()
    assert str(error.value).startswith(expected)


def test_a_limit_lets_its_own_value_pass_and_no_more():
    content = file_of((12, 10))
    record = {"image": in_base64(content)}
    exact = Limits(max_images=2, max_image_bytes=len(content), max_pixels=120, max_prompts=2, max_prompt_chars=21)
    assert encoded_images([record, record], exact) == [content, content]
    assert len(prompt_records([DOG, DOG], exact)) == 2
    refused(lambda: encoded_images([record] * 3, exact), "3 images in one request, at most 2")
    refused(lambda: prompt_records([DOG] * 3, exact), "3 prompts in one request, at most 2")
    for limits, expected in (
        (Limits(max_image_bytes=len(content) - 1), "record 0: 'image' is too large"),
        (Limits(max_pixels=119), "record 0: 'image' has too many pixels (12 x 10), at most 119"),
    ):
        refused(lambda limits=limits: encoded_images([record], limits), expected)
    refused(lambda: prompt_records([DOG], Limits(max_prompt_chars=20)), "record 0: 'prompt' and 'categories' have")


@pytest.mark.parametrize("value", [0, -1, 2.5, "16", True])
def test_a_limit_is_a_whole_number(value):
    with pytest.raises(UserError, match="max_images must be a whole number above 0"):
        Limits.of({"max_images": value, "device": "cpu"})


def test_values_of_numpy_and_of_pandas_are_read_as_those_of_json():
    # MLflow makes arrays of the values of `inputs`; in a table, a seed next to a missing one becomes 3.0
    as_arrays = [{key: np.array(value) for key, value in {**DOG, "seed": 2**53 + 1}.items()}]
    assert prompt_records(as_arrays, Limits())[0].seed == 2**53 + 1
    records = prompt_records(pd.DataFrame([{**DOG, "seed": 3}, DOG]), Limits())
    assert [(record.categories, record.seed) for record in records] == [(("dog",), 3), (("dog",), 0)]


def test_a_seed_that_a_table_has_rounded_is_refused():
    table = pd.DataFrame([{**DOG, "seed": 2**53 + 1}, DOG])
    refused(lambda: prompt_records(table, Limits()), "record 0: 'seed' must be a whole number of 0 or more")


@pytest.mark.parametrize("seed", [True, 1.5, "3", [1], 2**63])
def test_a_seed_is_a_whole_number(seed):
    refused(lambda: prompt_records([{**DOG, "seed": seed}], Limits()), "record 0: 'seed' must be a whole number")


def test_postscript_is_not_read():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "EPS")
    refused(lambda: encoded_images([{"image": in_base64(buffer.getvalue())}], Limits()), "record 0: 'image' is not an")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_each_named_kind_of_image_is_read(kind):
    pixels = decode_image(file_of((5, 3), kind), "record 0", Limits())
    assert (pixels.shape, pixels.dtype) == ((3, 5, 3), np.uint8)
    assert np.abs(pixels.astype(int) - (200, 40, 40)).max() <= 8


def test_arrays_are_the_answer_in_python_only(monkeypatch):
    monkeypatch.delenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", raising=False)
    assert answer_format(None) is answer_format({"format": None}) is None
    assert answer_format({"format": "png"}) == "png"
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    assert answer_format({"format": None}) == "rle"


def test_a_refusal_is_an_error_of_both_packages_and_repeats_no_request():
    with pytest.raises(UserError) as raised, one_line_errors():
        raise UserError("two\nlines")
    error = raised.value
    assert isinstance(error, MlflowException)
    error.message = "Failed to predict data '…'. \nError: two lines"  # as MLflow's server does
    assert json.loads(error.serialize_as_json())["message"] == "two lines"
    assert error.get_http_status_code() == 400


def test_a_bug_is_status_500_in_one_line():
    with pytest.raises(RequestError) as raised, one_line_errors():
        raise ZeroDivisionError("a\nb")
    assert raised.value.get_http_status_code() == 500
    assert str(raised.value) == "the model failed (ZeroDivisionError); the server's log says where"


def test_areas_and_boxes_are_those_worked_out_by_hand():
    labels = np.array([[0, 2, 2, 0], [0, 2, 0, 0], [0, 0, 0, 3]], dtype=np.uint8)
    answer = segmentation_answer(labels, ("a", "b", "c"), mask_format="rle")
    assert (answer["width"], answer["height"]) == (4, 3)
    found = [(category["name"], category["area"], category["box"]) for category in answer["categories"]]
    assert found == [("b", 3, [1, 0, 2, 2]), ("c", 1, [3, 2, 1, 1])]
    assert segmentation_answer(np.zeros((2, 2), np.uint8), ("a",), mask_format="png")["categories"] == []
