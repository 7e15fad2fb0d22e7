from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekd.quantization.canonical import replace_relu6
from edgekd.quantization.operations import operation_of
from edgekd.quantization.prepare import fold_network
from tests.quantization.networks import NETWORKS, PostAct, PreAct, build, examples


def count(graph: fx.GraphModule, operation: str) -> int:
    return sum(operation_of(graph, node) == operation for node in graph.graph.nodes)


@pytest.mark.parametrize("kind", NETWORKS)
def test_folding_changes_no_logit(kind: type[nn.Module]) -> None:
    network = replace_relu6(build(kind))
    folded = fold_network(network, examples(2))
    assert count(folded, "batch_norm") == 0
    torch.testing.assert_close(folded(examples(9)), network(examples(9)), rtol=1e-4, atol=1e-5)


def test_weight_and_bias_are_those_of_the_formula() -> None:
    network = build(PostAct)
    conv, norm = network.conv1, network.bn1
    folded = fold_network(network, examples(2)).get_submodule("conv1")
    a = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    torch.testing.assert_close(folded.weight, (conv.weight.double() * a[:, None, None, None]).float())
    torch.testing.assert_close(folded.bias, (norm.bias.double() - a * norm.running_mean.double()).float())


def test_a_convolution_that_alone_feeds_a_norm_takes_it_and_other_norms_become_depthwise() -> None:
    folded = fold_network(build(PreAct), examples(2))
    depthwise = [m for m in folded.modules() if isinstance(m, nn.Conv2d) and m.groups == 8]
    assert len(depthwise) == 2  # bn1: its input is also the skip; bn3: behind the sum
    assert count(folded, "conv") == 5


class NormThenLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(F.relu(x.mean((2, 3)))))


def test_a_norm_before_a_linear_map_goes_into_it() -> None:
    torch.manual_seed(0)
    network = NormThenLinear().eval()
    network.norm.running_mean.normal_()
    network.norm.bias.data.normal_()
    folded = fold_network(network, examples(2))
    assert count(folded, "batch_norm") == 0
    torch.testing.assert_close(folded(examples(5)), network(examples(5)))


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv(F.relu(self.norm1(self.conv(x))))).mean((2, 3))


def test_a_shared_convolution_keeps_its_weight() -> None:
    torch.manual_seed(0)
    network = CalledTwice().eval()
    network.norm1.running_mean.normal_()
    network.norm2.running_mean.normal_()
    folded = fold_network(network, examples(2))
    torch.testing.assert_close(folded.get_submodule("conv").weight, network.conv.weight)
    torch.testing.assert_close(folded(examples(5)), network(examples(5)))


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).mean((2, 3)) + x.mean((2, 3))


def test_a_norm_without_statistics_stays() -> None:
    network = BatchStatistics().eval()
    folded = fold_network(network, examples(2))
    assert count(folded, "batch_norm") == 1
    torch.testing.assert_close(folded(examples(5)), network(examples(5)))
