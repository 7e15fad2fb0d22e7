"""What is taken from the first network is what would have been computed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgekd.documents.scheme import Scheme
from edgekd.quantization import reuse
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.layers import (
    layers_around,
    layers_of,
    quantizer_at,
    rounded_tensors,
    sources_of,
    weight_bits_of,
)
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.quantization.reuse import Variant, logits_of
from edgekd.quantization.variants import Variants
from tests.quantization.networks import NETWORKS, Attention, Branches, PostAct, build, examples


class Swish(nn.Module):
    """Two convolutions with HardSwish between, which is another node in float than in int8."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(3, 8, 3), nn.Hardswish()
        self.second, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.act(self.first(x))).relu().mean((2, 3)))


def built(kind: type[nn.Module], scheme: Scheme) -> QuantizedNetwork:
    network = prepare(build(kind), examples(1), scheme)
    calibrate(network, examples(64).split(16))
    return network


def variants_of(kind: type[nn.Module], start: Scheme = Scheme(), saturation: str = "u8") -> Variants:
    return Variants(build(kind), lambda scheme: built(kind, scheme), examples(2), start, saturation)


def answers(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x)


@pytest.mark.parametrize("kind", [*NETWORKS, Swish])
def test_every_layer_in_float_gives_what_its_own_network_gives(kind: type[nn.Module]) -> None:
    variants, x = variants_of(kind), examples(30, seed=2)
    names = variants.alone()
    assert names
    networks = [variants.prepared({name}) for name in names]
    for logits, network in zip(
        logits_of(variants.first, [*map(Variant, networks)], x), networks, strict=True
    ):
        torch.testing.assert_close(logits, answers(network, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_tensor_passes_as_if_its_quantizer_were_off(kind: type[nn.Module]) -> None:
    first, x = variants_of(kind).first, examples(30, seed=2)
    paths = list(sources_of(first))
    found = logits_of(first, [Variant(first, frozenset({path})) for path in paths], x)
    for path, logits in zip(paths, found, strict=True):
        quantizer_at(first, path).quantizing = False
        torch.testing.assert_close(logits, answers(first, x), rtol=1e-4, atol=1e-5)
        quantizer_at(first, path).quantizing = True


def test_two_tensors_pass_together() -> None:
    first, x = variants_of(PostAct).first, examples(30, seed=2)
    paths = ("quantizers.stem_2", "quantizers.conv2")
    (logits,) = logits_of(first, [Variant(first, frozenset(paths))], x)
    for path in paths:
        quantizer_at(first, path).quantizing = False
    torch.testing.assert_close(logits, answers(first, x), rtol=1e-4, atol=1e-5)


def test_only_what_differs_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = variants_of(PostAct)
    same, late = variants.prepared(()), variants.prepared({"head"})
    computed: list[str] = []
    original = torch.fx.Interpreter.run_node
    monkeypatch.setattr(
        torch.fx.Interpreter,
        "run_node",
        lambda self, n: (computed.append(n.name), original(self, n))[1],
    )
    logits_of(variants.first, [], examples(4))
    whole = len(computed)
    computed.clear()
    logits_of(variants.first, [Variant(same)], examples(4))
    assert len(computed) == whole
    computed.clear()
    logits_of(variants.first, [Variant(late)], examples(4))
    assert whole < len(computed) < whole + 8


def test_portions_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    variants, x = variants_of(Branches), examples(30, seed=2)
    others = [Variant(variants.prepared({name})) for name in variants.alone()]
    whole = logits_of(variants.first, others, x)
    monkeypatch.setattr(reuse, "_MOST_ROWS", 7)
    for one, other in zip(logits_of(variants.first, others, x), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_large_network_is_kept_for_few_examples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = variants_of(PostAct).first.graph
    assert reuse._rows(graph) == 64
    monkeypatch.setattr(reuse, "_ELEMENTS", 50_000)
    assert 1 <= reuse._rows(graph) < 64
    monkeypatch.setattr(reuse, "_ELEMENTS", 1)
    assert reuse._rows(graph) == 1


@pytest.mark.parametrize("kind", [*NETWORKS, Swish])
def test_a_prepared_variant_is_the_one_that_is_calibrated_anew(kind: type[nn.Module]) -> None:
    """Also where the network was quantized in fewer places: scales are those of the float network."""
    variants, x = variants_of(kind), examples(16, seed=2)
    for name in variants.alone():
        prepared, anew = variants.prepared({name}), variants.built({name})
        assert prepared.scales().keys() == anew.scales().keys()
        if kind is not Branches:  # whose concatenations share scales with what is left of their neighbors
            torch.testing.assert_close(answers(prepared, x), answers(anew, x))


def test_another_scale_is_another_value() -> None:
    first, x = variants_of(PostAct).first, examples(8)
    other = copy.deepcopy(first)
    quantizer_at(other, "quantizers.stem_2").amax.mul_(0.3)
    (logits,) = logits_of(first, [Variant(other)], x)
    torch.testing.assert_close(logits, answers(other, x), rtol=1e-4, atol=1e-5)
    assert not torch.equal(logits, answers(first, x))


def test_variants_share_their_weights() -> None:
    variants = variants_of(PostAct)
    first = {value.data_ptr() for value in variants.first.parameters()}
    other = {value.data_ptr() for value in variants.prepared({"conv1"}).parameters()}
    assert other <= first


def test_a_scheme_keeps_what_it_started_with() -> None:
    start = Scheme(layers={"stem.0": "float"})
    variants = variants_of(PostAct, start)
    assert "stem.0" not in variants.alone()
    assert variants.scheme({"conv2", "conv1"}) == Scheme(
        layers={"stem.0": "float", "conv1": "float", "conv2": "float"}
    )
    assert variants.precision == "float"


def test_of_4_bits_the_layers_of_4_bits_are_spared_by_8() -> None:
    variants = variants_of(PostAct, Scheme(weight_bits=4))
    assert (variants.alone(), variants.precision) == (("conv1", "conv2"), "int8")
    assert weight_bits_of(variants.prepared({"conv2"})) == {"stem.0": 8, "conv1": 4, "conv2": 8, "head": 8}
    x = examples(8)
    (logits,) = logits_of(variants.first, [Variant(variants.prepared({"conv2"}))], x)
    torch.testing.assert_close(logits, answers(variants.prepared({"conv2"}), x), rtol=1e-4, atol=1e-5)


def test_layers_are_named_in_the_order_of_the_network() -> None:
    assert layers_of(variants_of(PostAct).first) == ("stem.0", "conv1", "conv2", "add", "pool", "head")
    # A sum beside convolutions reads and yields codes either way: in float alone it changes nothing.
    assert variants_of(PostAct).alone() == ("stem.0", "conv1", "conv2", "head")
    assert "qkv" in variants_of(Attention).alone()


def test_the_layers_around_a_tensor() -> None:
    first = variants_of(PostAct).first
    around = {quantizer_at(first, path).label: layers_around(first, path) for path in sources_of(first)}
    assert around["input"] == {"stem.0"}
    assert around["stem.2"] == {"stem.0", "conv1", "add"}
    assert around["relu"] == {"conv1", "conv2"}
    assert around["conv2"] == {"conv2", "add"}


def test_a_hard_swish_has_the_name_that_a_scheme_has_for_it() -> None:
    variants = variants_of(Swish)
    assert "act" in variants.layers()
    first = variants.first
    around = {quantizer_at(first, path).label: layers_around(first, path) for path in sources_of(first)}
    assert around["first"] == {"first", "act"}
    assert around["act"] == {"act", "second"}
    assert rounded_tensors(variants.prepared({"act"})) <= rounded_tensors(first)
    assert rounded_tensors(variants.prepared(variants.layers())) == frozenset()


def test_behind_pooling_by_maximum_a_tensor_has_its_readers_still() -> None:
    first = variants_of(Branches).first
    around = [layers_around(first, path) for path in sources_of(first)]
    assert {"cat", "gate.0", "mul"} in around
    names = {name for layers in around for name in layers}
    assert not {"max_pool2d", "view", "transpose", "reshape", "chunk", "getattr"} & names
