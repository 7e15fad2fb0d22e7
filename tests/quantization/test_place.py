from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from tests.quantization.networks import (
    CLASSES,
    Attention,
    Branches,
    Inverted,
    PostAct,
    PreAct,
    Spectrum,
    build,
    examples,
)


def quantized(kind: type[nn.Module]) -> QuantizedNetwork:
    return prepare(build(kind), examples(2))


def labels(network: QuantizedNetwork) -> list[str]:
    return [quantizer.label for quantizer in network.quantizers()]


def unsigned(network: QuantizedNetwork) -> set[str]:
    return {quantizer.label for quantizer in network.quantizers() if quantizer.non_negative}


def sources(network: QuantizedNetwork, target: object) -> list[str]:
    """What an operation of the graph reads."""
    node = next(n for n in network.graph.graph.nodes if n.target is target)
    return [str(source.target) for source in node.all_input_nodes]


def test_a_residual_block_has_quantizers_behind_relus_on_both_sides_of_the_sum_and_around_the_pool() -> None:
    network = quantized(PostAct)
    # not: conv1 (its ReLU is quantized), the sum (its ReLU is), the flattened map, the logits
    assert labels(network) == ["input", "stem.2", "relu", "conv2", "relu2", "pool"]
    assert unsigned(network) == {"stem.2", "relu", "relu2", "pool"}
    assert sources(network, torch.add) == ["quantizers.conv2", "quantizers.stem_2"]


def test_consumers_share_their_producers_quantizer() -> None:
    network = quantized(PostAct)
    readers = [n for n in network.graph.graph.nodes if str(n.target) == "quantizers.stem_2"]
    assert len(readers) == 1
    assert {str(user.target) for user in readers[0].users if user.op != "get_attr"} == {
        "conv1",
        str(torch.add),
    }


def test_pre_activation_quantizes_the_sum_and_the_norm_that_stays() -> None:
    network = quantized(PreAct)
    assert labels(network) == ["input", "stem", "relu", "relu2", "conv2", "add", "relu3", "avg_pool2d"]
    assert unsigned(network) == {"relu", "relu2", "relu3", "avg_pool2d"}


def test_a_projection_without_activation_is_quantized_itself() -> None:
    network = quantized(Inverted)
    assert labels(network) == ["input", "stem.2", "block.2", "block.5", "block.6", "add", "mean"]
    assert unsigned(network) == {"stem.2", "block.2", "block.5"}


def test_concatenation_and_gates_keep_their_sign_and_reshaping_repeats_the_quantizer() -> None:
    network = quantized(Branches)
    assert labels(network) == [
        *("input", "left.2", "right.2", "cat", "gate.0", "gate.1", "gate.2", "mul"),
        *("tail.2", "cat2", "mean"),
    ]
    assert unsigned(network) == set(labels(network)) - {"input", "gate.1"}
    calls = [str(n.target) for n in network.graph.graph.nodes if n.kwargs.get("repeated")]
    # max pool; view, transpose, reshape and both chunks
    assert calls.count("quantizers.cat") == 1
    assert calls.count("quantizers.mul") == 5


def test_silu_is_a_product_with_a_gate() -> None:
    network = quantized(Spectrum)
    assert labels(network) == [
        *("input", "features.0", "features.2.sigmoid", "features.2", "features.3", "mean", "relu"),
    ]


def test_attention_quantizes_matmuls_and_leaves_norms_and_the_class_token_float() -> None:
    network = quantized(Attention)
    found = labels(network)
    assert "norm" in found  # what the linear map behind it reads
    assert "qkv" in found
    assert "scaled_dot_product_attention.softmax" in found
    assert "scaled_dot_product_attention.scores" not in found
    assert "token" not in found
    assert "cat" in found  # the skip of the first sum
    assert unsigned(network) == {"scaled_dot_product_attention.softmax"}


class FloatParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.conv(x)) * self.scale + 1.0
        return self.conv(F.softplus(x)).mean((2, 3))


def test_products_with_parameters_stay_float_and_a_convolution_called_twice_is_quantized_twice() -> None:
    network = prepare(FloatParts(), examples(2))
    assert labels(network) == ["input", "conv", "softplus", "conv2"]


class ReadInFloat(nn.Module):
    def __init__(self, join: object) -> None:
        super().__init__()
        self.conv, self.join = nn.Conv2d(3, 3, 1), join

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(self.join(x, self.conv(x))).amax((2, 3))  # type: ignore[operator]


JOINS = {"add": torch.add, "mul": torch.mul, "cat": lambda x, y: torch.cat([x, y], 1)}


@pytest.mark.parametrize("name", JOINS)
def test_what_an_int8_operation_yields_is_quantized_though_float_reads_it(name: str) -> None:
    assert labels(prepare(ReadInFloat(JOINS[name]), examples(2))) == ["input", "conv", name]


class ConvLogits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(1)


def test_logits_stay_float_behind_a_reshape() -> None:
    assert labels(prepare(ConvLogits(), examples(2))) == ["input"]


@pytest.mark.parametrize("kind", [PostAct, Branches])
def test_the_repeats_change_nothing(kind: type[nn.Module]) -> None:
    network = quantized(kind)
    for node in network.graph.graph.nodes:
        if node.kwargs.get("repeated"):
            node.replace_all_uses_with(node.args[0])
    before = network(examples(4))
    network.graph.recompile()
    torch.testing.assert_close(network(examples(4)), before, rtol=0, atol=0)
