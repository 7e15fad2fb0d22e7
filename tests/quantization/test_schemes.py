"""Which layer gets how many bits, and what a scheme leaves in the state of a network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekd.documents.scheme import Scheme
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.fake_quant import WeightQuantizer
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from tests.quantization.networks import NETWORKS, Inverted, PostAct, PreAct, build, examples


def bits(network: QuantizedNetwork) -> dict[str, int]:
    return {path: module.bits for path, module in network.weight_quantizers()}


def calibrated(kind: type[nn.Module], scheme: Scheme, seed: int = 0) -> QuantizedNetwork:
    network = prepare(build(kind, seed), examples(1), scheme)
    calibrate(network, [examples(64)])
    network.set_fake_quantizing(True)
    return network.eval()


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (Scheme(), (8, 8, 8, 8)),
        (Scheme(reduce_range=True), (7, 7, 7, 7)),
        (Scheme(weight_bits=4), (8, 4, 4, 8)),
        (Scheme(weight_bits=4, ends_8bit=False), (4, 4, 4, 4)),
        (Scheme(weight_bits=4, layers={"conv2": "int8"}), (8, 4, 8, 8)),
        (Scheme(weight_bits=4, layers={"head": "int4"}), (8, 4, 4, 4)),
        (Scheme(layers={"conv2": "int4"}), (8, 8, 4, 8)),
        (Scheme(reduce_range=True, layers={"conv1": "int4", "conv2": "int8"}), (7, 4, 7, 7)),
    ],
)
def test_bits_of_each_layer(scheme: Scheme, expected: tuple[int, ...]) -> None:
    found = bits(prepare(build(PostAct), examples(1), scheme))
    assert found == dict(zip(("stem.0", "conv1", "conv2", "head"), expected, strict=True))


def test_a_float_layer_has_none_and_the_ends_stay_where_they_were() -> None:
    found = bits(prepare(build(PostAct), examples(1), Scheme(weight_bits=4, layers={"head": "float"})))
    assert found == {"stem.0": 8, "conv1": 4, "conv2": 4}


def test_a_batch_norm_that_became_a_layer_is_no_end() -> None:
    class NormFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)
            self.middle, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.middle(F.relu(self.conv(F.relu(self.norm(x)))))
            return self.head(x.mean((2, 3)))

    found = bits(prepare(build(NormFirst), examples(1), Scheme(weight_bits=4)))
    affine, *others = found.items()
    assert affine[0].startswith("norm.affine")
    assert dict(others) == {"conv": 8, "middle": 4, "head": 8}


def test_a_layer_that_is_called_twice_has_one_quantizer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.conv(F.relu(self.conv(F.relu(self.stem(x))))))
            return self.head(x.mean((2, 3)))

    network = prepare(build(Twice), examples(1), Scheme(weight_bits=4, scales="learned")).train()
    calibrate(network, [examples(16)])
    assert bits(network) == {"stem": 8, "conv": 4, "head": 8}
    network.set_fake_quantizing(True)
    network.set_observing(True)
    network(examples(8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def codes(network: QuantizedNetwork) -> dict[str, torch.Tensor]:
    return {path: module.codes(torch.ones(())) for path, module in network.weight_quantizers()}


def test_codes_stay_within_their_bits() -> None:
    limits = {8: 127, 7: 63, 4: 7}
    for scheme in (Scheme(), Scheme(weight_bits=4, ends_8bit=False), Scheme(reduce_range=True)):
        network = calibrated(PreAct, scheme)
        largest = {path: int(value.abs().max()) for path, value in codes(network).items()}
        assert largest == {path: limits[found] for path, found in bits(network).items()}


@pytest.mark.parametrize(
    ("scheme", "ends"),
    [
        (Scheme(), {"weight", "bias", "amax"}),
        (Scheme(weight_bits=4), {"weight", "bias", "amax", "fraction_O"}),
        (Scheme(weight_bits=4, scales="learned"), {"weight", "bias", "amax", "scale_O"}),
    ],
)
def test_the_state_dict_carries_the_scales(scheme: Scheme, ends: set[str]) -> None:
    network = calibrated(Inverted, scheme)
    for _, module in network.weight_quantizers():
        for scale in (module.scale_O, module.fraction_O):
            if scale is not None:
                scale.data.mul_(0.9)
    other = calibrated(Inverted, scheme, seed=7)
    other.load_state_dict(network.state_dict(), strict=True)
    assert {name.rpartition(".")[2] for name in network.state_dict()} == ends
    assert other.scales() == network.scales()
    assert torch.equal(other(examples(8)), network(examples(8)))


def test_learned_scales_are_parameters_that_do_not_decay() -> None:
    network = prepare(build(PostAct), examples(1), Scheme(scales="learned"))
    scales = {name for name, _ in network.named_parameters() if name.endswith(("amax", "scale_O"))}
    assert len(scales) == len(list(network.quantizers())) + 4
    assert network.learned
    assert not prepare(build(PostAct), examples(1)).learned
    assert all(parameter.ndim <= 1 for name, parameter in network.named_parameters() if name in scales)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_learned_scale_learns_and_holds_still_once_frozen(kind: type[nn.Module]) -> None:
    network = calibrated(kind, Scheme(weight_bits=4, scales="learned")).train()
    network.set_observing(True)
    network(examples(32) * 2).square().sum().backward()
    grads = {name: value.grad for name, value in network.named_parameters()}
    for name, grad in grads.items():
        assert grad is not None, name
        assert torch.isfinite(grad).all(), name
    network.zero_grad()
    network.set_observing(False)
    network(examples(32)).square().sum().backward()
    still = {name for name, value in network.named_parameters() if value.grad is None}
    assert still == {name for name in grads if name.endswith(("amax", "scale_O"))}


def test_the_fingerprint_tells_what_shapes_do_not() -> None:
    def fingerprint(scheme: Scheme, saturation: str = "s8") -> object:
        network = calibrated(PostAct, scheme)
        network.set_saturation(saturation)
        return network.fingerprint

    first = fingerprint(Scheme())
    others = [
        fingerprint(Scheme(), "u8"),
        fingerprint(Scheme(reduce_range=True)),
        fingerprint(Scheme(scales="learned")),
    ]
    assert all(first != other for other in others)
    assert first == fingerprint(Scheme())


def test_a_weight_quantizer_keeps_the_layer_as_it_is() -> None:
    conv = nn.Conv2d(3, 4, 3)
    before = conv.weight.clone()
    WeightQuantizer(conv, bits=4, learned=True)
    assert torch.equal(conv.weight, before)
