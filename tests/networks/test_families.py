"""What every built-in network must do; a new network is a row in cases.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.networks.blocks import ChannelShuffle
from edgekd.networks.network import build_network, load_weights, network_names, save_weights, taps_of
from tests.networks.cases import CASES, Case

SHAPES = ((3, 32, 32), (1, 8, 8), (1, 49, 40))
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def build(case: Case, shape=(1, 8, 8), classes=10) -> nn.Module:
    return build_network(case.name, in_channels=shape[0], num_classes=classes, input_shape=shape)


def test_every_built_in_network_has_a_row():
    assert tuple(case.name for case in CASES) == network_names()


@every_case
def test_parameters_are_the_published_ones(case):
    network = build(case, (3, 32, 32), 100)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == case.parameters
    assert case.published in (None, f"{parameters / 1e6:.2f}")


@every_case
@every_shape
def test_gives_logits(case, shape):
    network = build(case, shape, 7).eval()
    with torch.no_grad():
        logits_NK = network(torch.randn(3, *shape))
    assert logits_NK.shape == (3, 7)
    assert logits_NK.isfinite().all()


@every_case
def test_gradient_reaches_every_parameter(case):
    network = build(case)
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@every_case
def test_traces_for_any_batch_size(case):
    network = build(case).eval()
    traced = torch.fx.symbolic_trace(network)
    with torch.no_grad():
        for batch in (1, 5):
            x_NCHW = torch.randn(batch, 1, 8, 8)
            assert torch.equal(traced(x_NCHW), network(x_NCHW))


@every_case
def test_taps_are_modules_that_run_in_order(case):
    network = build(case).eval()
    taps = taps_of(network)
    assert tuple(taps) == case.taps
    seen = {}
    for name, path in taps.items():
        network.get_submodule(path).register_forward_hook(
            lambda _module, _args, output, name=name: seen.setdefault(name, output)
        )
    with torch.no_grad():
        logits_NK = network(torch.randn(2, 1, 8, 8))
    assert tuple(seen) == case.taps
    assert torch.equal(seen["logits"], logits_NK)
    assert seen["pool"].shape == (2, network.get_submodule(taps["logits"]).in_features)


@every_case
def test_weights_round_trip(case, tmp_path):
    first, second = build(case).eval(), build(case).eval()
    x_NCHW = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert not torch.equal(first(x_NCHW), second(x_NCHW))
        save_weights(first, tmp_path / "weights.safetensors")
        load_weights(second, tmp_path / "weights.safetensors")
        assert torch.equal(first(x_NCHW), second(x_NCHW))


@every_case
def test_activations_are_relu_modules_and_nothing_is_in_place(case):
    traced = torch.fx.symbolic_trace(build(case))
    relus = [module for module in traced.modules() if isinstance(module, nn.ReLU)]
    assert relus
    assert not any(relu.inplace for relu in relus)
    kinds = {node.target for node in traced.graph.nodes if node.op in ("call_function", "call_method")}
    names = {getattr(kind, "__name__", kind) for kind in kinds}
    assert names <= {"add", "cat", "chunk", "getitem", "unflatten", "transpose", "flatten"}


@pytest.mark.parametrize(
    ("name", "shape", "maps"),
    [
        ("resnet20", (3, 32, 32), [(32, 32), (32, 32), (16, 16), (8, 8)]),
        ("wrn-16-2", (3, 32, 32), [(32, 32), (32, 32), (16, 16), (8, 8)]),
        ("vgg13", (3, 32, 32), [(32, 32), (16, 16), (8, 8), (4, 4), (4, 4)]),
        ("mobilenetv2", (3, 32, 32), [(16, 16), (16, 16), (8, 8), (4, 4), (2, 2)]),
        ("shufflenetv1", (3, 32, 32), [(32, 32), (16, 16), (8, 8), (4, 4)]),
        ("shufflenetv2", (3, 32, 32), [(32, 32), (16, 16), (8, 8), (4, 4)]),
        ("ds-cnn", (1, 49, 10), [(25, 5)] * 5),
    ],
)
def test_maps_have_the_sizes_of_the_literature(name, shape, maps):
    network = build_network(name, in_channels=shape[0], num_classes=10, input_shape=shape).eval()
    seen = []
    for tap, path in taps_of(network).items():
        if tap.startswith("st"):
            network.get_submodule(path).register_forward_hook(
                lambda _module, _args, output: seen.append(tuple(output.shape[2:]))
            )
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    assert seen == maps


@pytest.mark.parametrize("depth", [8, 20, 56])
def test_resnet_parameters_by_the_formula(depth):
    blocks, total, channels = (depth - 2) // 6, 9 * 3 * 16 + 2 * 16, 16
    for width in (16, 32, 64):
        if width != channels:
            total += channels * width + 2 * width
        total += 9 * channels * width + (2 * blocks - 1) * 9 * width**2 + 2 * blocks * 2 * width
        channels = width
    network = build_network(f"resnet{depth}", in_channels=3, num_classes=100, input_shape=(3, 8, 8))
    assert sum(parameter.numel() for parameter in network.parameters()) == total + 65 * 100


@pytest.mark.parametrize(("depth", "factor"), [(10, 1), (16, 2), (22, 3)])
def test_wrn_parameters_by_the_formula(depth, factor):
    blocks, total, channels = (depth - 4) // 6, 9 * 3 * 16, 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        if width != channels:
            total += channels * width
        total += 9 * channels * width + (2 * blocks - 1) * 9 * width**2  # convolutions
        total += 2 * channels + (2 * blocks - 1) * 2 * width  # a batch norm before each of them
        channels = width
    total += 2 * channels + (channels + 1) * 100
    network = build_network(f"wrn-{depth}-{factor}", in_channels=3, num_classes=100, input_shape=(3, 8, 8))
    assert sum(parameter.numel() for parameter in network.parameters()) == total


@pytest.mark.parametrize(("side", "poolings"), [(64, 4), (32, 3), (28, 3), (16, 2), (8, 1)])
def test_vgg_pools_as_the_literature_and_keeps_a_map_on_small_images(side, poolings):
    network = build_network("vgg8", in_channels=3, num_classes=10, input_shape=(3, side, side))
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.modules()) == poolings


def test_channel_shuffle_interleaves_the_groups():
    x_NCHW = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(6, 3)(x_NCHW).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_initial_weights_have_the_variance_of_he_per_group():
    network = build_network("ds-cnn", in_channels=1, num_classes=10, input_shape=(1, 49, 40))
    depthwise, pointwise = network.stage1[0].weight, network.stage1[3].weight
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.15)
    assert pointwise.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.15)
