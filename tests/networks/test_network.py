"""Building by name, and what a wrong request gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import NetworkError
from edgekd.networks.network import build_network, network_names


def build(name, shape=(3, 32, 32), **args):
    return build_network(name, in_channels=shape[0], num_classes=10, input_shape=shape, args=args)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(NetworkError) as caught:
        build("resnet9")
    assert caught.value.message == "there is no network 'resnet9'; did you mean 'resnet8'?"
    assert caught.value.hint == (
        f"{', '.join(network_names())}, another wrn-DEPTH-WIDTH, timm:NAME or python:package.module:function"
    )


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("wrn-two", "'wrn-two' is no WRN", "write wrn-DEPTH-WIDTH, such as wrn-16-2"),
        (
            "wrn-15-2",
            "'wrn-15-2' has depth 15; the depth of a WRN is 6n + 4",
            "10, 16, 22, 28, 34 or 40, such as wrn-16-2",
        ),
        (
            "wrn-4-2",
            "'wrn-4-2' has depth 4; the depth of a WRN is 6n + 4",
            "10, 16, 22, 28, 34 or 40, such as wrn-16-2",
        ),
        ("wrn-16-0", "'wrn-16-0' has width 0", "the width is at least 1, such as wrn-16-2"),
    ],
)
def test_a_wrong_wrn(name, message, hint):
    with pytest.raises(NetworkError) as caught:
        build(name)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_built_in_network_takes_no_arguments():
    with pytest.raises(NetworkError) as caught:
        build("resnet8", depth=3, width=4)
    assert str(caught.value) == "resnet8: takes no arguments; given: depth, width"


@pytest.mark.parametrize("shape", [(1, 8000), (3, 7, 32), (5,)])
def test_a_built_in_network_takes_images(shape):
    with pytest.raises(NetworkError) as caught:
        build("resnet8", shape)
    assert str(caught.value) == (
        f"resnet8: takes images (C, H, W) of at least 8x8; an example has the shape {shape}\n"
        "  try: bring a network of your own: python:package.module:function"
    )


def test_the_dry_pass_leaves_a_fresh_network_in_training_mode():
    network = build("resnet8")
    assert all(module.training for module in network.modules())
    seen = [
        batches.item() for name, batches in network.named_buffers() if name.endswith("num_batches_tracked")
    ]
    assert set(seen) == {0}


def test_the_same_seed_gives_the_same_weights():
    torch.manual_seed(3)
    first = build("shufflenetv2").state_dict()
    torch.manual_seed(3)
    second = build("shufflenetv2").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("activation", "kind"), [("relu", nn.ReLU), ("silu", nn.SiLU), ("hardswish", nn.Hardswish)]
)
def test_mobilenetv2_takes_another_activation(activation, kind):
    network = build("mobilenetv2", activation=activation)
    assert [type(module) for module in network.modules() if "activation" in type(module).__module__] == [
        kind
    ] * 36


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"activation": "gelu"}, "mobilenetv2: there is no activation 'gelu'; known: relu, silu, hardswish"),
        ({"activation": 6}, "mobilenetv2: there is no activation 6; known: relu, silu, hardswish"),
        ({"width": 2}, "mobilenetv2: takes activation; given: width"),
    ],
)
def test_other_arguments_of_mobilenetv2_are_refused(args, message):
    with pytest.raises(NetworkError) as caught:
        build("mobilenetv2", **args)
    assert str(caught.value) == message
