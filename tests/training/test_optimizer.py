"""Which parameters decay, and one update against an independent statement."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from edgekd.documents.recipe import Training
from edgekd.training.optimizer import build_optimizer, parameter_groups
from tests.training.cases import make_network


def test_only_weights_of_convolutions_and_linear_maps_decay() -> None:
    network = make_network()
    network.register_parameter("input_scale", nn.Parameter(torch.ones(1, 1)))
    network.bn1.bias.requires_grad_(False)
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = {
        group["weight_decay"]: sorted(names[parameter] for parameter in group["params"])
        for group in parameter_groups(network, weight_decay=0.5)
    }
    assert groups == {
        0.5: ["conv1.weight", "conv2.weight", "linear.weight"],
        0.0: ["bn1.weight", "bn2.bias", "bn2.weight", "input_scale", "linear.bias"],
    }


def test_nesterov_update_with_decay() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    section = Training(learning_rate=0.1, momentum=0.9, weight_decay=0.5)
    optimizer = build_optimizer(network, section)
    weight, momentum = 2.0, 0.0
    for gradient in (1.0, -3.0, 0.5):
        network.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        decayed = gradient + 0.5 * weight
        momentum = 0.9 * momentum + decayed
        weight -= 0.1 * (decayed + 0.9 * momentum)
        assert network.weight.item() == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fused_update_does_not_depend_on_the_memory_layout(optimizer: Literal["sgd", "adamw"]) -> None:
    networks = [make_network(), make_network().to(memory_format=torch.channels_last)]
    section = Training(optimizer=optimizer, learning_rate=0.1)
    for network in networks:
        stepper = build_optimizer(network, section)
        for seed in range(3):
            torch.manual_seed(seed)
            for parameter in network.parameters():
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
            stepper.step()
    for first, second in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(first, second.contiguous())


def test_sgd_without_momentum() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), Training(momentum=0.0))
    assert optimizer.defaults["nesterov"] is False
