from __future__ import annotations

import copy
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import ConversionError, DataError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import fold_network, prepare
from edgekd.quantization.scheme import SMALLEST_AMAX
from tests.quantization.networks import NETWORKS, Inverted, PostAct, build, examples


def calibrated(kind: type[nn.Module] = PostAct) -> QuantizedNetwork:
    network = prepare(build(kind), examples(1))
    calibrate(network, examples(64).split(16))
    return network.eval()


@pytest.mark.parametrize("kind", NETWORKS)
def test_off_it_is_the_folded_network_and_on_it_is_near(kind: type[nn.Module]) -> None:
    network, x = calibrated(kind), examples(64)
    with torch.no_grad():
        expected = fold_network(build(kind), x[:1])(x)
        assert torch.equal(network(x), expected)
        network.set_fake_quantizing(True)
        found = network(x)
    assert 0 < (found - expected).abs().mean() < 0.1 * expected.std()


def test_scales_are_the_largest_magnitudes_over_all_batches() -> None:
    network = calibrated()
    folded = fold_network(build(PostAct), examples(1))
    assert network.scales()["input"] == pytest.approx(examples(64).abs().max().item() / 127)
    stem = F.relu(folded.get_submodule("stem.0")(examples(64)))
    assert network.scales()["stem.2"] == pytest.approx(stem.max().item() / 127)


def test_calibrating_again_starts_afresh_and_keeps_the_mode() -> None:
    network = calibrated().train()
    network.set_fake_quantizing(True)
    calibrate(network, [examples(16) * 0.1])
    assert network.training
    assert network.scales()["input"] == pytest.approx(examples(16).abs().max().item() * 0.1 / 127)
    assert not any(quantizer.quantizing or quantizer.moving for quantizer in network.quantizers())


def test_calibration_without_data_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        calibrate(prepare(build(PostAct), examples(1)), [])
    assert str(caught.value) == "there are no examples to calibrate with"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_that_is_not_finite_is_refused_by_name(value: float) -> None:
    x = examples(4)
    x[2, 1, 3, 3] = value
    with pytest.raises(DataError) as caught:
        calibrate(prepare(build(PostAct), examples(1)), [x, examples(4)])
    assert str(caught.value) == (
        f"calibration: input takes the value {value}\n"
        "  try: look for NaN or infinity in the training examples, or train at a lower learning rate"
    )


def test_a_weight_that_overflows_names_the_tensor_behind_it() -> None:
    broken = build(PostAct)
    broken.conv2.weight.data[0, 0, 0, 0] = float("nan")
    network = prepare_unchecked(broken)
    with pytest.raises(DataError, match=r"^calibration: conv2 takes the value nan"):
        calibrate(network, [examples(4)])


def prepare_unchecked(broken: nn.Module) -> QuantizedNetwork:
    network = prepare(build(PostAct), examples(1))
    network.graph.get_submodule("conv2.op").weight.data.copy_(broken.conv2.weight.data)
    return network


def test_a_tensor_that_is_always_zero_gets_the_smallest_scale() -> None:
    network = prepare(build(PostAct), examples(1))
    calibrate(network, [torch.zeros(2, 3, 8, 8)])
    assert network.scales()["input"] == pytest.approx(SMALLEST_AMAX / 127)
    network.set_fake_quantizing(True)
    assert torch.isfinite(network(torch.zeros(2, 3, 8, 8))).all()


def test_quantizing_without_scales_is_refused() -> None:
    network = prepare(build(PostAct), examples(1))
    for act in (lambda: network.set_fake_quantizing(True), network.scales):
        with pytest.raises(ConversionError) as caught:
            act()
        assert str(caught.value) == (
            "6 activations have no scale, the first is input\n"
            "  try: calibrate the network, or load a state dict that was saved after calibration"
        )


def test_the_state_dict_carries_weights_and_scales() -> None:
    network = calibrated(Inverted)
    other = prepare(build(Inverted, seed=7), examples(1))
    other.load_state_dict(network.state_dict(), strict=True)
    assert other.scales() == network.scales()
    for each in (network, other):
        each.set_fake_quantizing(True)
        each.eval()
    assert torch.equal(other(examples(8)), network(examples(8)))
    assert {name.rpartition(".")[2] for name in network.state_dict()} == {"weight", "bias", "amax"}


def test_a_copy_is_a_network_of_its_own() -> None:
    network = calibrated()
    network.set_fake_quantizing(True)
    twin = copy.deepcopy(network)
    assert torch.equal(twin(examples(8)), network(examples(8)))
    twin.graph.get_submodule("head.op").weight.data.zero_()
    twin.set_saturation("u8")
    assert network.graph.get_submodule("head.op").weight.abs().sum() > 0
    assert {quantizer.saturation for quantizer in network.quantizers()} == {"s8"}


def test_every_parameter_learns_with_quantization_on_and_frozen_scales_stay() -> None:
    frozen = build(PostAct).requires_grad_(False)
    network = prepare(frozen, examples(1)).train()
    calibrate(network, [examples(32)])
    network.set_fake_quantizing(True)
    network.set_observing(True)
    scales = network.scales()
    F.cross_entropy(network(examples(32) * 2), torch.arange(32) % 4).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    moved = network.scales()
    assert moved["input"] == pytest.approx(scales["input"] * 1.01)
    network.set_observing(False)
    network(examples(32) * 3)
    assert network.scales() == moved


def test_saturation_differs_beyond_the_calibrated_range_only() -> None:
    network = calibrated()
    network.set_fake_quantizing(True)
    x = examples(64)

    def logits(x: Tensor, saturation: str) -> Tensor:
        network.set_saturation(saturation)
        with torch.no_grad():
            return network(x)

    def difference() -> float:
        return float((logits(x, "s8") - logits(x, "u8")).abs().max())

    inside = difference()  # only the biases' rounding
    network.graph.get_submodule("quantizers.stem_2").amax.mul_(0.1)
    assert difference() > 10 * inside


def test_autocast_trains_in_bfloat16() -> None:
    network = calibrated().train()
    network.set_fake_quantizing(True)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(examples(16))
    torch.testing.assert_close(low.float(), network(examples(16)), rtol=0.1, atol=0.1)
    low.float().sum().backward()
    assert network.graph.get_submodule("conv1.op").weight.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_quantized_network_travels_to_another_process(kind: type[nn.Module]) -> None:
    quantized = prepare(build(kind), examples(2))
    calibrate(quantized, [examples(8)])
    quantized.set_fake_quantizing(True)
    copy = multiprocessing_copy(quantized)
    torch.testing.assert_close(copy(examples(5)), quantized(examples(5)))
    assert copy.state_dict().keys() == quantized.state_dict().keys()


def multiprocessing_copy(network: nn.Module) -> nn.Module:
    """What a spawned process of a DDP training gets."""
    copy = ForkingPickler.loads(ForkingPickler.dumps(network))
    assert isinstance(copy, nn.Module)
    return copy
