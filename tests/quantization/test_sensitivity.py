"""Planted layers that int8 ruins are found, and spared alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.documents.common import Interval
from edgekd.documents.scheme import Scheme
from edgekd.documents.sensitivity import Cost
from edgekd.quantization import sensitivity
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.quantization.sensitivity import NOTHING, Found, find_scheme
from edgekd.quantization.spare import Layers
from edgekd.quantization.worth import Judge
from tests.quantization.networks import PostAct, build, examples

COUNT = 300


def decisive(network: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """Without a class that it always prefers, so that what rounding does to it can be seen."""
    with torch.no_grad():
        network.head.bias -= network(x).mean(0)
        network.head.weight *= 10
        network.head.bias *= 10
    return network, x


def outlier_in_the_input() -> tuple[nn.Module, Tensor]:
    """One channel of the input is a thousand times as large, and read with a thousandth of the weight."""
    network, x = build(PostAct), examples(COUNT)
    with torch.no_grad():
        network.stem[0].weight[:, 2] /= 1000
    x[:, 2] *= 1000
    return decisive(network, x)


def outlier_between_layers() -> tuple[nn.Module, Tensor]:
    """One channel between two convolutions is a thousand times as large: both have to be in float."""
    network = build(PostAct)
    with torch.no_grad():
        network.bn1.weight[3] *= 1000
        network.bn1.bias[3] *= 1000
        network.conv2.weight[:, 3] /= 1000
    return decisive(network, examples(COUNT))


def measured(networks: Mapping[Layers, QuantizedNetwork]) -> dict[Layers, Cost]:
    """A tenth more for every layer."""
    return {layers: Cost(what="latency", ratio=1 + 0.1 * len(layers)) for layers in networks}


def found_in(
    network: nn.Module, x: Tensor, *, start: Scheme = Scheme(), budget_pt: float = 10.0, **changed: object
) -> Found:
    def build_by(scheme: Scheme) -> QuantizedNetwork:
        quantized = prepare(network, x[:2], scheme)
        calibrate(quantized, x[:64].split(16))
        return quantized

    with torch.no_grad():
        labels = network(x).argmax(1)
    options: dict[str, object] = {"measure": measured, "saturation": "u8", **changed}
    return find_scheme(network, build_by, x, labels, start=start, budget_pt=budget_pt, **options)  # type: ignore[arg-type]


def test_a_sensitive_layer_is_found_first_and_alone_put_in_float() -> None:
    found = found_in(*outlier_in_the_input())
    assert found.scheme == Scheme(layers={"stem.0": "float"})
    assert max(found.layers, key=lambda layer: layer.gain).name == "stem.0"
    assert found.steps[1].layers == ("stem.0",)
    assert found.start.drop_pt > 50
    assert found.found.drop_pt <= 10
    assert found.within
    assert {layer.name: layer.precision for layer in found.layers} == {
        **dict.fromkeys(("conv1", "conv2", "head"), "int8"),
        "stem.0": "float",
    }
    worst = max(found.tensors, key=lambda tensor: tensor.gain)
    assert (worst.name, worst.layers) == ("input", ("stem.0",))


def test_neighbors_are_put_in_float_together_where_the_tensor_between_them_hurts() -> None:
    found = found_in(*outlier_between_layers())
    assert found.scheme == Scheme(layers={"conv1": "float", "conv2": "float"})
    assert found.within
    worst = max(found.tensors, key=lambda tensor: tensor.gain)
    assert (worst.name, worst.layers) == ("relu", ("conv1", "conv2"))
    assert max(found.groups, key=lambda group: group.gain).layers == ("conv1", "conv2")
    alone = {layer.name: layer.gain for layer in found.layers}
    assert max(alone.values()) < 0.5 * worst.gain


def test_the_figures_are_those_of_the_networks() -> None:
    network, x = outlier_in_the_input()
    found = found_in(network, x)
    for scheme, worth in ((Scheme(), found.start), (found.scheme, found.found)):
        quantized = prepare(network, x[:2], scheme)
        calibrate(quantized, x[:64].split(16))
        quantized.eval().set_saturation("u8")
        quantized.set_fake_quantizing(True)
        with torch.no_grad():
            expected, own = network(x), quantized(x)
        p, q = (np.exp(F.log_softmax(each, 1).double().numpy()) for each in (expected, own))
        assert worth.kl == pytest.approx(float((p * np.log(p / q)).sum(1).mean()), rel=1e-3)
        assert worth.top1 == pytest.approx(float((own.argmax(1) == expected.argmax(1)).double().mean()))
        assert worth.drop_pt == pytest.approx(100 * (1 - worth.top1))
    assert (found.fp32_top1, found.found.count, found.examples) == (1.0, COUNT, COUNT)
    assert (found.cost.ratio, found.all_cost.ratio) == (1.1, 1.6)
    stem = next(layer for layer in found.layers if layer.name == "stem.0")
    assert stem.gain == pytest.approx(found.start.kl - found.found.kl, rel=1e-4)


def test_where_int8_is_good_enough_nothing_is_spared() -> None:
    found = found_in(build(PostAct), examples(COUNT), budget_pt=100.0)
    assert (found.scheme, found.within, found.cost.ratio) == (Scheme(), True, 1.0)
    assert len(found.layers) == 4
    assert [step.layers for step in found.steps] == [()]


def test_it_starts_from_the_schemes_own_exceptions() -> None:
    start = Scheme(layers={"head": "float"})
    found = found_in(*outlier_in_the_input(), start=start)
    assert found.scheme == Scheme(layers={"head": "float", "stem.0": "float"})
    assert "head" not in {layer.name for layer in found.layers}


def test_sparing_that_costs_as_much_as_fp32_is_no_success() -> None:
    def costly(networks: Mapping[Layers, QuantizedNetwork]) -> dict[Layers, Cost]:
        ratios = {layers: 1.4 if layers else 1.0 for layers in networks}
        return {layers: Cost(what="latency", ratio=ratio) for layers, ratio in ratios.items()}

    found = found_in(*outlier_in_the_input(), measure=costly)
    assert (found.within, found.scheme) == (False, Scheme())


def test_where_fp32_is_not_surely_slower_costs_are_no_hindrance() -> None:
    unsure = Interval(lower=0.98, upper=1.2, confidence=0.9)

    def unclear(networks: Mapping[Layers, QuantizedNetwork]) -> dict[Layers, Cost]:
        return {layers: Cost(what="latency", ratio=1.02, interval=unsure) for layers in networks}

    found = found_in(*outlier_in_the_input(), measure=unclear)
    assert (found.within, found.scheme) == (True, Scheme(layers={"stem.0": "float"}))


def test_4_bits_are_spared_by_8() -> None:
    """A weight of one channel that is far larger than its others leaves those no code of 4 bits."""
    network = build(PostAct)
    with torch.no_grad():
        network.conv1.weight[:, 0, 0, 0] = 60 * network.conv1.weight.abs().mean()
    found = found_in(network, examples(COUNT), start=Scheme(weight_bits=4), budget_pt=8.0)
    assert found.scheme == Scheme(weight_bits=4, layers={"conv1": "int8"})
    assert (found.precision, found.tensors, found.groups) == ("int8", (), ())
    assert {layer.name: layer.precision for layer in found.layers} == {"conv1": "int8", "conv2": "int4"}


def test_the_same_measurement_gives_the_same_scheme() -> None:
    network, x = outlier_between_layers()
    assert found_in(network, x) == found_in(network, x)


def test_layers_are_compared_on_some_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "EXAMPLES", 50)
    found = found_in(*outlier_in_the_input())
    assert (found.examples, found.found.count) == (50, COUNT)
    assert found.scheme.layers == {"stem.0": "float"}


def test_every_candidate_is_measured_beside_the_start_and_beside_all() -> None:
    asked: list[set[Layers]] = []

    def remembering(networks: Mapping[Layers, QuantizedNetwork]) -> dict[Layers, Cost]:
        asked.append(set(networks))
        return measured(networks)

    found = found_in(*outlier_between_layers(), measure=remembering)
    singles = {frozenset({layer.name}) for layer in found.layers}
    every = frozenset({"stem.0", "conv1", "conv2", "add", "pool", "head"})
    assert asked[0] >= {NOTHING, every, *singles, frozenset({"conv1", "conv2"})}
    assert asked[1] == {NOTHING, frozenset({"conv1", "conv2"})}


def test_a_drop_is_counted_in_whole_answers() -> None:
    """5 of 1000 answers are half a point, not a little more."""
    expected = F.one_hot(torch.arange(1000) % 4, 4).float()
    own = expected.clone()
    own[:5] = own[:5].roll(1, dims=1)
    judge = Judge(torch.zeros(1000, 1), torch.arange(1000) % 4, expected)
    assert judge.worth_of(own).drop_pt == 0.5
    assert judge.some(100).worth_of(expected[::10]).count == 100
