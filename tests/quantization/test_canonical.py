from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import NetworkError
from edgekd.quantization.canonical import canonicalize, replace_relu6, replace_with_relu
from edgekd.quantization.operations import operation_of
from edgekd.quantization.prepare import fold_network, prepare
from edgekd.quantization.trace import trace
from tests.quantization.networks import CLASSES, Attention, Functional, Inverted, build, examples


def operations(network: nn.Module, x: Tensor | None = None) -> list[str]:
    x = examples(2) if x is None else x
    graph = trace(network, x)
    canonicalize(graph, x)
    return [operation_of(graph, node) for node in graph.graph.nodes if node.op.startswith("call")]


class Head(nn.Module):
    def __init__(self, pool: object) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x).flatten(1)  # type: ignore[operator]


GLOBAL_POOLS = (
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveAvgPool2d((1, 1)),
    nn.AvgPool2d(8),
    lambda x: F.avg_pool2d(x, 8),
    lambda x: F.avg_pool2d(x, x.size()[3]),
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: x.mean(dim=(2, 3)),
    lambda x: x.mean([-1, -2], keepdim=True),
    lambda x: torch.mean(x, dim=(2, 3)),
)


@pytest.mark.parametrize("pool", GLOBAL_POOLS)
def test_every_mean_over_the_map_is_a_global_pool(pool: object) -> None:
    assert "global_average_pool" in operations(Head(pool))


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(4), lambda x: x.mean(1), lambda x: x.mean(2), nn.AvgPool2d(10, padding=1)]
)
def test_other_means_stay(pool: object) -> None:
    assert "global_average_pool" not in operations(Head(pool))


def test_functions_with_weights_become_modules() -> None:
    found = operations(build(Functional))
    assert "conv" in found
    assert "linear" in found
    assert not {"conv_function", "linear_function"} & set(found)


def test_attention_is_taken_apart() -> None:
    found = operations(build(Attention))
    assert found.count("matmul") == 2
    assert "softmax" in found
    assert "attention" not in found


class Activation(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.mean((2, 3)) * 4)  # type: ignore[operator]


RELU6 = (nn.ReLU6(), F.relu6, nn.Hardtanh(0, 6), lambda x: F.hardtanh(x, 0.0, 6.0))


@pytest.mark.parametrize("function", RELU6)
def test_relu6_becomes_relu_only_when_asked(function: object) -> None:
    x, network = examples(4) * 10, Activation(function)
    sums = x.mean((2, 3)) * 4
    assert sums.max() > 6
    folded = fold_network(network, x)
    torch.testing.assert_close(folded(x), F.relu6(sums))
    replace_with_relu(folded)
    torch.testing.assert_close(folded(x), F.relu(sums))


def test_a_quantized_network_has_no_relu6() -> None:
    quantized = prepare(build(Inverted), examples(4)).graph
    assert "relu6" not in {operation_of(quantized, node) for node in quantized.graph.nodes}


def test_a_hardtanh_of_another_range_stays() -> None:
    x = examples(4) * 10
    torch.testing.assert_close(
        fold_network(Activation(nn.Hardtanh(-1, 6)), x)(x), (x.mean((2, 3)) * 4).clamp(-1, 6)
    )


def test_replace_relu6_changes_the_network_itself() -> None:
    network = build(Inverted)
    keys = network.state_dict().keys()
    assert replace_relu6(network) is network
    kinds = [type(module) for module in network.modules()]
    assert nn.ReLU6 not in kinds
    assert kinds.count(nn.ReLU) == 3
    assert network.state_dict().keys() == keys


class ReadAgain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3)) + 0
        F.relu(x, inplace=True)
        return self.fc(x)


def test_a_tensor_changed_in_place_and_read_again_is_refused() -> None:
    with pytest.raises(NetworkError) as caught:
        operations(ReadAgain())
    assert str(caught.value) == (
        "ReadAgain: the network changes a tensor in place and uses it again\n"
        "  try: write y = F.relu(x) rather than F.relu_(x)"
    )
