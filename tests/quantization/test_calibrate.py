"""Calibration of a whole network; of its errors see test_prepare.py too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.documents.quantization import Calibrator
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.fake_quant import ActivationQuantizer
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import fold_network, prepare
from tests.quantization.networks import Branches, PostAct, build, examples

CALIBRATORS: tuple[Calibrator, ...] = ("max", "percentile", "entropy", "mse")


def calibrated(
    calibrator: Calibrator, saturation: str = "s8", kind: type[nn.Module] = PostAct, count: int = 64
) -> QuantizedNetwork:
    network = prepare(build(kind), examples(1))
    calibrate(network, examples(count).split(16), calibrator, saturation=saturation)
    return network.eval()


def quantizer(network: QuantizedNetwork, label: str) -> ActivationQuantizer:
    return next(one for one in network.quantizers() if one.label == label)


def stem_output(count: int = 64) -> np.ndarray:
    folded = fold_network(build(PostAct), examples(1))
    with torch.no_grad():
        return F.relu(folded.get_submodule("stem.0")(examples(count))).numpy()


def test_a_scale_is_that_of_its_own_tensor() -> None:
    expected = np.sort(stem_output().ravel())[int(np.ceil(0.9999 * stem_output().size)) - 1]
    assert float(quantizer(calibrated("percentile"), "stem.2").amax) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_for_255_codes_the_reach_is_spread_over_all_of_them(calibrator: Calibrator) -> None:
    """Code 255 stands for the reach then; tensors of both signs have 127 codes either way."""
    wide, narrow = calibrated(calibrator, "s8"), calibrated(calibrator, "u8")
    assert float(quantizer(narrow, "input").amax) == float(quantizer(wide, "input").amax)
    ratio = float(quantizer(narrow, "stem.2").amax / quantizer(wide, "stem.2").amax)
    rel = {"max": 1e-6, "percentile": 1e-6, "mse": 0.25, "entropy": 0.5}[calibrator]
    assert ratio == pytest.approx(127 / 255, rel=rel)


def test_mse_rounds_the_tensor_better_than_max() -> None:
    x = torch.from_numpy(stem_output())

    def error(calibrator: Calibrator, saturation: str) -> float:
        one = quantizer(calibrated(calibrator, saturation), "stem.2")
        one.quantizing, one.saturation = True, saturation
        return float((one(x) - x).square().mean())

    assert error("mse", "s8") < error("max", "s8")
    assert error("mse", "u8") < 0.5 * error("mse", "s8")


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_batches_may_come_once_and_in_any_size(calibrator: Calibrator) -> None:
    network, other = prepare(build(PostAct), examples(1)), calibrated(calibrator)
    calibrate(network, iter([*examples(64).split(5), examples(0)]), calibrator)
    for one, known in zip(network.quantizers(), other.quantizers(), strict=True):
        assert float(one.amax) == pytest.approx(float(known.amax), rel=1e-3)


def test_a_repeated_quantizer_counts_its_tensor_once() -> None:
    """Behind pooling by maximum only the larger values are left: they must not be counted again."""
    network = calibrated("percentile", kind=Branches)
    seen: dict[str, list[Tensor]] = {}
    for one in network.quantizers():
        one.register_forward_pre_hook(
            lambda module, args, options: (
                None if options.get("repeated") else seen.setdefault(module.label, []).append(args[0])
            ),
            with_kwargs=True,
        )
    with torch.no_grad():
        network(examples(64))
    for one in network.quantizers():
        values = np.sort(np.abs(torch.cat([each.flatten() for each in seen[one.label]]).numpy()))
        exact = values[int(np.ceil(0.9999 * len(values))) - 1]
        assert float(one.amax) == pytest.approx(exact, rel=2e-3), one.label


def test_too_few_values_for_a_percentile_are_told() -> None:
    network = prepare(build(PostAct), examples(1))
    assert calibrate(network, [examples(16)], "percentile") == (
        "percentile: 6 of 6 activations took fewer than 10000 values, of which the 99.99th percentile is the "
        "largest (first input): give more examples",
    )
    assert calibrate(network, [examples(16)], "mse") == ()
    largest = calibrated("max", count=16)
    for one, known in zip(network.quantizers(), largest.quantizers(), strict=True):
        calibrate(network, [examples(16)], "percentile")
        assert torch.equal(one.amax, known.amax)


def test_no_hook_is_left_behind() -> None:
    network = calibrated("mse")
    broken = [examples(2), torch.zeros(1, 1)]
    with pytest.raises(RuntimeError):
        calibrate(network, broken, "mse")
    assert not any(one._forward_pre_hooks for one in network.quantizers())


def test_the_better_calibrators_lose_less_of_a_heavy_tailed_network() -> None:
    """One pixel is far too bright: under `max`, the scales of all examples follow it."""
    network, x = build(PostAct), examples(400)
    x[7, 0, 0, 0] = 60
    folded = fold_network(network, x[:1])

    def loss(calibrator: Calibrator) -> float:
        quantized = prepare(network, x[:1])
        calibrate(quantized, x.split(100), calibrator)
        quantized.eval().set_fake_quantizing(True)
        with torch.no_grad():
            return float((quantized(x[8:]) - folded(x[8:])).square().mean())

    largest = loss("max")
    assert loss("mse") < 0.5 * largest
    assert loss("percentile") < 0.9 * largest
