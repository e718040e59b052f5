"""A training that is killed and resumed ends where it would have ended."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pretrain.common import load_state
from pretrain.training_state import TrainingState

STEPS, SAVED_AT, KILLED_AT = 12, 5, 8


def tiny_model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


def train(path: Path, *, device: str, fused: bool, until: int, save_at: int) -> None:
    """A tiny training as the scripts do it: data by step, the learning rate by elapsed time."""
    torch.manual_seed(0)
    model = tiny_model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.01, fused=fused)
    state = TrainingState(path, model, optimizer, ema_decay=0.9)
    while state.step < until:
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - state.elapsed_s / 20)
        batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(state.step)).to(device)
        state.descend((model(batch)[:, 0] - batch.sum(dim=1)).square().mean(), max_grad_norm=1.0)
        if state.step == save_at:
            state.save()


@pytest.mark.parametrize(
    ("device", "fused"),
    [
        ("cpu", False),
        ("cpu", True),
        pytest.param(
            "cuda",
            True,
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, fused: bool
) -> None:
    clock = itertools.count()  # every step takes a second
    monkeypatch.setattr("pretrain.training_state.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    train(whole, device=device, fused=fused, until=STEPS, save_at=STEPS)
    train(killed, device=device, fused=fused, until=KILLED_AT, save_at=SAVED_AT)
    assert load_state(killed)[1] == {"step": SAVED_AT, "elapsed_s": SAVED_AT}
    train(killed, device=device, fused=fused, until=STEPS, save_at=STEPS)
    (expected, numbers), (tensors, resumed_numbers) = load_state(whole), load_state(killed)
    assert resumed_numbers == numbers == {"step": STEPS, "elapsed_s": STEPS}
    # 6 parameters with their averages and two moments, 3 buffers
    assert len(expected) == 6 * 4 + 3 and set(tensors) == set(expected)
    assert [name for name in expected if tensors[name].numpy().tobytes() != expected[name].numpy().tobytes()] == []


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"capturable": True}])
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_a_resumed_step_count_lies_where_torch_would_load_it(tmp_path: Path, options: dict[str, bool]) -> None:
    train(tmp_path / "state.safetensors", device="cpu", fused=False, until=1, save_at=1)
    model = tiny_model().to("meta")  # any device but the CPU
    ours, reference = (torch.optim.AdamW(model.parameters(), **options) for _ in range(2))
    TrainingState(tmp_path / "state.safetensors", model, ours, ema_decay=0.9)
    count = {"step": torch.tensor(1.0)}
    reference.load_state_dict({**reference.state_dict(), "state": {i: dict(count) for i in range(6)}})
    expected = [reference.state[weight]["step"].device for weight in model.parameters()]
    assert len(expected) == 6
    assert [ours.state[weight]["step"].device for weight in model.parameters()] == expected
