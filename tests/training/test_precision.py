"""The rule behind `auto`, for machines of every kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.training.precision import Precision, resolve_precision

BF16 = Precision("bf16", channels_last=True)
FP32 = Precision("fp32", channels_last=True)
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
GROUPED = nn.Conv2d(4, 4, 3, groups=2)


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    flags: tuple[str, ...] = (),
    cuda: bool = False,
    cuda_bf16: bool = True,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(flags, True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: cuda_bf16)


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bf16_on_a_cpu_that_multiplies_it_from_16x16_on(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    machine(monkeypatch, flags=(flag,))
    assert resolve_precision("auto", (3, 32, 32)) == BF16
    assert resolve_precision("auto", (1, 16, 16)) == BF16
    assert resolve_precision("auto", (1, 15, 15)) == FP32
    assert resolve_precision("auto", (1, 1000)) == Precision("bf16", channels_last=False)
    assert resolve_precision("auto", (3000,)) == Precision("fp32", channels_last=False)


def test_fp32_on_a_cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, flags=("avx512_vnni",))
    assert resolve_precision("auto", (3, 32, 32)) == FP32


def test_depthwise_convolutions_stay_fp32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, flags=("avx512_bf16",))
    assert resolve_precision("auto", (3, 32, 32), DEPTHWISE) == FP32
    assert resolve_precision("auto", (4, 32, 32), GROUPED) == BF16


def test_bf16_on_every_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=True)
    assert resolve_precision("auto", (1, 8, 8), DEPTHWISE) == BF16
    machine(monkeypatch, cuda=True, cuda_bf16=False)
    assert resolve_precision("auto", (3, 32, 32)) == FP32


def test_a_choice_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    assert resolve_precision("bf16", (1, 8, 8), DEPTHWISE) == BF16
    machine(monkeypatch, cuda=True)
    assert resolve_precision("fp32", (3, 32, 32)) == FP32


def test_names() -> None:
    assert str(BF16) == "bf16, channels last"
    assert str(Precision("fp32", channels_last=False)) == "fp32"


def test_bf16_is_what_the_network_computes_in() -> None:
    network, x_BC = nn.Linear(4, 2), torch.randn(3, 4)
    with BF16.autocast(torch.device("cpu")):
        assert network(x_BC).dtype == torch.bfloat16
    with FP32.autocast(torch.device("cpu")):
        assert network(x_BC).dtype == torch.float32
