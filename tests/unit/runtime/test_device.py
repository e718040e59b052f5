from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffground.errors import UserError
from diffground.reproduction.config import load_params
from diffground.runtime.device import pick_device, pick_dtype, setup

COMMITTED = load_params(Path(__file__).parents[3] / "params.yaml").runtime


def test_auto_takes_a_gpu_when_there_is_one():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x", "CPU"])
def test_an_unknown_device_names_the_choices(name):
    with pytest.raises(UserError, match=r"runtime\.device must be 'auto', 'cpu', 'cuda' or 'cuda:<index>'"):
        pick_device(name)


def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match=r"runtime\.device is 'cuda:63', but torch sees [0-9]+ GPUs"):
        pick_device("cuda:63")


def test_dtype_by_name():
    assert pick_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(UserError, match="must be one of auto, float32, bfloat16, float16, got 'half'"):
        pick_dtype("half")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor's flags are read from /proc/cpuinfo")
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    expected = torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32
    assert pick_dtype("auto", torch.device("cpu")) is expected


def test_auto_without_torch_s_private_functions_is_float32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert pick_dtype("auto", torch.device("cpu")) is torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_on_a_gpu_goes_by_its_generation():
    expected = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float32
    assert pick_dtype("auto", torch.device("cuda")) is expected


def test_setup_sets_the_threads():
    before = torch.get_num_threads()
    try:
        assert setup(replace(COMMITTED, device="cpu", num_threads=1)) == torch.device("cpu")
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        # a new tensor is not filled with NaN, which determinism does by default
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.set_num_threads(before)
        torch.set_deterministic_debug_mode("default")
