from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.documents.scheme import Scheme
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.fake_quant import WeightQuantizer
from edgekd.quantization.hard_swish import Int8HardSwish
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


def quantized(kind: type[nn.Module], **rewrites: bool) -> QuantizedNetwork:
    return prepare(build(kind), examples(2), Scheme(rewrites=rewrites))


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


def test_a_transformer_quantizes_what_its_linear_maps_read_and_nothing_else() -> None:
    network = quantized(Attention)
    assert labels(network) == [
        *("input", "patch", "norm", "scaled_dot_product_attention", "mlp.0", "mlp.2", "add"),
    ]
    assert unsigned(network) == set()


def test_attention_in_int8_quantizes_its_products_and_leaves_norms_and_the_class_token_float() -> None:
    network = quantized(Attention, float_attention=False, float_sums=False)
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
        x = F.elu(self.conv(x)) * self.scale + 1.0
        return self.conv(F.softplus(x)).mean((2, 3))


def test_products_with_parameters_stay_float_and_a_convolution_called_twice_is_quantized_twice() -> None:
    network = prepare(FloatParts(), examples(2))
    assert labels(network) == ["input", "conv", "softplus", "conv2"]


class ReadInFloat(nn.Module):
    def __init__(self, join: object) -> None:
        super().__init__()
        self.conv, self.join = nn.Conv2d(3, 3, 1), join

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.join(x, self.conv(x))).amax((2, 3))  # type: ignore[operator]


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


def float_sums(network: QuantizedNetwork) -> int:
    """Additions that read a tensor without a quantizer."""
    sums = [node for node in network.graph.graph.nodes if node.target is torch.add]
    return sum(any("quantizers" not in str(x.target) for x in node.all_input_nodes) for node in sums)


class LinearResidual(nn.Module):
    """A sum that linear maps read and make: its operands come in float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.mean((1, 2)))
        return self.head(self.norm(x + self.second(self.norm(x)) * torch.sigmoid(x)))


def test_sums_and_products_of_linear_maps_stay_float() -> None:
    network = quantized(LinearResidual)
    assert labels(network) == ["mean", "norm", "norm2"]
    assert float_sums(network) == 1


def test_without_that_rewrite_they_run_in_int8() -> None:
    network = quantized(LinearResidual, float_sums=False)
    assert labels(network) == ["mean", "first", "norm", "second", "sigmoid", "mul", "add", "norm2"]
    assert float_sums(network) == 0


class LinearGate(nn.Module):
    """Squeeze and excitation by a linear map: a small gate in float beside a large map of codes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        gate = torch.sigmoid(self.gate(x.mean((2, 3)))).view(-1, 8, 1, 1)
        return self.head((x * gate).mean((2, 3)))


def test_a_gate_in_float_is_quantized_for_the_product_with_a_large_map() -> None:
    network = quantized(LinearGate)
    assert labels(network) == ["input", "relu", "mean", "sigmoid", "mul", "mean2"]


class Mixed(nn.Module):
    """The sum of codes from a convolution and of floats, read by a convolution or by a norm."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.conv, self.reader = nn.Conv2d(3, 8, 3), reader

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.reader(x + F.elu(x)).mean((2, 3))[:, :CLASSES]


def test_a_sum_of_codes_and_floats_runs_in_int8_where_codes_are_wanted() -> None:
    assert labels(prepare(Mixed(nn.Conv2d(8, 8, 3)), examples(2))) == [
        *("input", "conv", "elu", "add", "reader")
    ]
    assert labels(prepare(Mixed(nn.GroupNorm(1, 8)), examples(2))) == ["input", "conv", "reader"]


class Swishes(nn.Module):
    """A HardSwish between convolutions, one between linear maps, and a SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3))
        )
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Hardswish(), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def int8_swishes(network: QuantizedNetwork) -> list[str]:
    return [name for name, module in network.graph.named_modules() if isinstance(module, Int8HardSwish)]


def test_hard_swish_runs_in_int8_where_its_input_holds_codes() -> None:
    network = quantized(Swishes)
    assert int8_swishes(network) == ["features.1.int8"]
    assert labels(network) == [
        *("input", "features.0", "features.1", "features.2", "features.3.sigmoid", "features.3"),
        *("features.4", "mean", "head.1"),
    ]


def test_hard_swish_in_float_lies_between_the_same_quantizers() -> None:
    network = quantized(Swishes, int8_hard_swish=False)
    assert int8_swishes(network) == []
    assert labels(network) == labels(quantized(Swishes))


def test_silu_in_float_has_no_quantizer_inside() -> None:
    found = labels(quantized(Swishes, int8_silu=False))
    assert found == [label for label in labels(quantized(Swishes)) if label != "features.3.sigmoid"]


def test_a_hard_swish_before_a_relu_has_its_quantizer_between_them() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.ReLU(), nn.Conv2d(4, CLASSES, 6), nn.Flatten()
    )
    assert labels(prepare(network, examples(2))) == ["input", "0", "1", "2"]


def test_a_layer_that_the_scheme_names_float_has_no_quantizer_of_its_own() -> None:
    scheme = Scheme(layers={"conv1": "float", "head": "float"})
    network = prepare(build(PostAct), examples(2), scheme)
    # conv1 reads the stem's codes, for the sum does so too; what conv1 makes is quantized for conv2 alone
    assert labels(network) == ["input", "stem.2", "relu", "conv2", "relu2", "pool"]
    assert [
        name for name, module in network.graph.named_modules() if isinstance(module, WeightQuantizer)
    ] == [
        *("stem.0", "conv2"),
    ]


class Joined(nn.Module):
    """Two concatenations that share a tensor, one of signed tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()) for _ in range(3))
        self.d, self.head = nn.Conv2d(12, 4, 1), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.a(x), F.max_pool2d(self.b(x), 1)], 1)
        x = torch.cat([both, self.c(x)], 1)
        return self.head(torch.cat([self.d(x), x], 1).mean((2, 3)))


def test_concatenations_share_one_quantizer_across_what_they_have_in_common() -> None:
    apart, shared = quantized(Joined), quantized(Joined, shared_concat_scale=True)
    assert labels(apart) == ["input", "a.1", "b.1", "cat", "c.1", "cat2", "d", "cat3", "mean"]
    # d may be negative and its neighbors may not: the last concatenation, here "cat", keeps its scales
    assert labels(shared) == ["input", "a.1", "d", "cat", "mean"]
    calls = [str(node.target) for node in shared.graph.graph.nodes if not node.kwargs.get("repeated")]
    assert calls.count("quantizers.a_1") == 5


def test_a_shared_scale_is_that_of_the_largest_of_them() -> None:
    shared = quantized(Joined, shared_concat_scale=True)
    apart = quantized(Joined)
    for network in (shared, apart):
        calibrate(network, [examples(16)])
    found, each = shared.scales(), apart.scales()
    assert found["a.1"] == max(each[name] for name in ("a.1", "b.1", "c.1", "cat", "cat2"))
