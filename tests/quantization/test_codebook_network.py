"""Networks with codebook weights: what they compute, and where their gradients go."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import ConversionError, UsageError
from edgekd.networks.taps import TapReader, tap_shapes
from edgekd.quantization.codebook_network import (
    CodebookNetwork,
    PointNetwork,
    UniformNetwork,
    coded_parameters,
)
from edgekd.quantization.levels import quantile_points
from tests.quantization.codebook_cases import numpy_weight, same_bits
from tests.quantization.networks import CLASSES, NETWORKS, Attention, PostAct, build, examples

BUCKET = 50
LEVELS = 8


def uniform(network: nn.Module) -> UniformNetwork:
    return UniformNetwork(network, coded_parameters(network), levels=LEVELS, bucket=BUCKET)


def points(network: nn.Module, levels: int = LEVELS) -> PointNetwork:
    names = coded_parameters(network)
    return PointNetwork(network, names, levels=dict.fromkeys(names, levels), bucket=BUCKET)


def plain_gradients(wrapped: CodebookNetwork, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """dL/dw of the same network that holds the decoded weights itself."""
    plain = copy.deepcopy(wrapped.network).requires_grad_(True)
    plain.load_state_dict(wrapped.codebooks().state())
    F.cross_entropy(plain(x), y).backward()
    return {name: one.grad for name, one in plain.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("make", [uniform, points])
@pytest.mark.parametrize("kind", NETWORKS)
def test_it_computes_with_the_weights_that_its_codebooks_hold(make: type, kind: type[nn.Module]) -> None:
    wrapped = make(build(kind)).eval()
    plain = build(kind, seed=5)
    plain.load_state_dict(wrapped.codebooks().state())
    x = examples(8)
    with torch.no_grad():
        assert same_bits(wrapped(x), plain(x))


def test_uniform_weights_by_the_formula() -> None:
    network = build(PostAct)
    found = uniform(network).weights()
    assert list(found) == ["stem.0.weight", "conv1.weight", "conv2.weight", "head.weight"]
    for name, value in found.items():
        own = network.get_parameter(name).detach().numpy()
        assert same_bits(value, torch.from_numpy(numpy_weight(own, LEVELS, BUCKET, None)))


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_of_a_rounded_weight_is_the_weight_s(training: bool) -> None:
    wrapped = uniform(build(PostAct)).train(training)
    x, y = examples(16), torch.arange(16) % CLASSES
    expected = plain_gradients(wrapped, x, y)
    F.cross_entropy(wrapped(x), y).backward()
    for name, parameter in wrapped.network.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name])


def test_a_rounded_weight_lies_in_memory_as_its_own() -> None:
    """So does its gradient: several processes add gradients in place, and warn where layouts differ."""
    wrapped = uniform(build(PostAct)).to(memory_format=torch.channels_last)
    for name, value in wrapped.weights().items():
        assert value.stride() == wrapped.network.get_parameter(name).stride()


@pytest.mark.parametrize("make", [uniform, points])
def test_a_weight_of_one_value_is_itself(make: type) -> None:
    network = build(PostAct)
    with torch.no_grad():
        network.conv1.weight.fill_(0.25)
    wrapped = make(network)
    assert torch.equal(wrapped.weights()["conv1.weight"], network.conv1.weight)


def test_points_start_at_the_quantiles_of_the_scaled_weights() -> None:
    network = build(PostAct)
    wrapped = points(network)
    w = network.get_parameter("conv2.weight").detach().reshape(-1)
    scaled = torch.cat([(part - part.min()) / (part.max() - part.min()) for part in w.split(BUCKET)])
    assert torch.equal(wrapped.points[2].detach(), quantile_points(scaled, LEVELS))


def test_points_by_the_formula() -> None:
    network = build(PostAct)
    wrapped = points(network)
    for name, points_S, value in zip(wrapped.names, wrapped.points, wrapped.weights().values(), strict=True):
        own = network.get_parameter(name).numpy()
        expected = numpy_weight(own, LEVELS, BUCKET, points_S.detach().numpy())
        assert same_bits(value, torch.from_numpy(expected))


def bins(w: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest point and width of the bucket of each weight."""
    codes, alphas = [], []
    for start in range(0, w.size, BUCKET):
        part = w.reshape(-1)[start : start + BUCKET]
        alpha = part.max() - part.min()
        v = (part - part.min()) / alpha
        codes += [int(np.abs(points - one).argmin()) for one in v]
        alphas += [alpha] * len(part)
    return np.array(codes), np.array(alphas)


def test_the_gradient_of_a_point_by_the_formula() -> None:
    """dL/dp_j is the sum of alpha_i dL/dw_i over the weights in the bin of point j."""
    wrapped = points(build(PostAct)).train()
    x, y = examples(16), torch.arange(16) % CLASSES
    gradients = plain_gradients(wrapped, x, y)
    F.cross_entropy(wrapped(x), y).backward()
    for name, points_S in zip(wrapped.names, wrapped.points, strict=True):
        codes, alphas = bins(wrapped.network.get_parameter(name).numpy(), points_S.detach().numpy())
        each = alphas * gradients[name].reshape(-1).double().numpy()
        expected = np.array([each[codes == code].sum() for code in range(LEVELS)])
        np.testing.assert_allclose(points_S.grad, expected, rtol=2e-3, atol=1e-6)


def test_the_gradient_of_a_point_by_differences() -> None:
    wrapped = points(build(PostAct)).double().eval()
    x, y = examples(16).double(), torch.arange(16) % CLASSES
    with torch.no_grad():  # off the middle of their bins, where the loss is not at rest
        for points_S in wrapped.points:
            points_S += 0.01 * torch.randn(LEVELS, generator=torch.Generator().manual_seed(0))
    F.cross_entropy(wrapped(x), y).backward()
    assert min(float(points_S.grad.abs().max()) for points_S in wrapped.points) > 1e-3

    def loss() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(wrapped(x), y))

    step = 1e-7
    for points_S in wrapped.points:
        for place in range(LEVELS):
            with torch.no_grad():
                points_S[place] += step
                above = loss()
                points_S[place] -= 2 * step
                below = loss()
                points_S[place] += step
            assert (above - below) / (2 * step) == pytest.approx(float(points_S.grad[place]), abs=1e-6)


def test_points_in_any_order_are_the_same_points() -> None:
    wrapped = points(build(PostAct)).eval()
    x = examples(4)
    with torch.no_grad():
        expected = wrapped(x)
        for points_S in wrapped.points:
            points_S.copy_(points_S.flip(0))
        assert torch.equal(wrapped(x), expected)
        for book in wrapped.books().values():
            assert bool((book.points_S.diff() >= 0).all())


def test_only_points_learn() -> None:
    wrapped = points(build(PostAct))
    assert [name for name, one in wrapped.named_parameters() if one.requires_grad] == [
        f"points.{place}" for place in range(4)
    ]


def test_batch_statistics_follow_the_coded_weights_and_are_kept() -> None:
    wrapped = points(build(PostAct)).train()
    before = wrapped.codebooks().tensors["bn1.running_mean"].clone()
    wrapped(examples(32))
    after = wrapped.codebooks().tensors["bn1.running_mean"]
    assert not torch.equal(before, after)
    assert torch.equal(after, wrapped.network.bn1.running_mean)


def test_tensors_of_their_own_number_of_points() -> None:
    network = build(PostAct)
    names = coded_parameters(network)
    wrapped = PointNetwork(network, names, levels=dict(zip(names, (2, 5, 17, 9), strict=True)), bucket=None)
    assert [(book.levels, book.bits) for book in wrapped.books().values()] == [
        (2, 1),
        (5, 3),
        (17, 5),
        (9, 4),
    ]


class Shared(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


def test_a_shared_weight_has_one_codebook_and_stays_shared() -> None:
    network = Shared()
    wrapped = uniform(network)
    codebooks = wrapped.codebooks()
    assert list(codebooks.books) == ["first.weight"]
    assert codebooks.tied == {"second.weight": "first.weight"}
    assert sorted(codebooks.tensors) == ["first.bias", "second.bias"]
    other, x = Shared(), torch.randn(3, 6)
    other.load_state_dict(codebooks.state())
    assert same_bits(wrapped(x), other(x))


def test_taps_are_the_network_s() -> None:
    network = build(PostAct)
    wrapped = uniform(network)
    x = examples(2)
    assert tap_shapes(wrapped, x) == tap_shapes(network, x)
    reader = TapReader(wrapped, ["conv1"])
    wrapped(x)
    assert reader.take()["conv1"].shape == (2, 8, 8, 8)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["stem.0", "conv1", "conv2", "head"]),
        ({"float_ends": True}, ["conv1", "conv2"]),
        ({"kept_float": ["conv1.weight"]}, ["stem.0", "conv2", "head"]),
    ],
)
def test_which_weights_are_coded(options: dict[str, object], names: Sequence[str]) -> None:
    found = coded_parameters(build(PostAct), **options)  # type: ignore[arg-type]
    assert found == tuple(f"{name}.weight" for name in names)


def test_parameters_that_no_layer_holds_are_coded_too() -> None:
    assert coded_parameters(build(Attention))[0] == "token"


def test_a_weight_that_is_not_there() -> None:
    with pytest.raises(UsageError) as caught:
        coded_parameters(build(PostAct), kept_float=["conv3.weight"])
    assert str(caught.value) == (
        "there is no weight 'conv3.weight' to keep in float; did you mean 'conv2.weight'?"
    )


def test_nothing_left() -> None:
    with pytest.raises(UsageError) as caught:
        coded_parameters(nn.Linear(3, 3), float_ends=True)
    assert str(caught.value) == (
        "no weight is left for a codebook: the network has 1, and all are kept in float"
    )


def test_a_weight_that_is_no_number_is_refused() -> None:
    network = build(PostAct)
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ConversionError, match=r"^conv1\.weight: holds a value that is not finite$"):
        uniform(network).codebooks()


def test_a_scheme_is_told_by_its_fingerprint() -> None:
    network = build(PostAct)
    names = coded_parameters(network)
    found = [
        UniformNetwork(network, names, levels=4, bucket=BUCKET).fingerprint,
        UniformNetwork(network, names, levels=8, bucket=BUCKET).fingerprint,
        UniformNetwork(network, names, levels=8, bucket=None).fingerprint,
        UniformNetwork(network, names[1:], levels=8, bucket=None).fingerprint,
        PointNetwork(network, names, levels=dict.fromkeys(names, 8), bucket=None).fingerprint,
    ]
    assert all(one != other for place, one in enumerate(found) for other in found[:place])
