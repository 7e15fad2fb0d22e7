"""Batch norm that learns on: the same network in evaluation, statistics moving and frozen, folded again."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.documents.scheme import Scheme
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.fake_quant import WeightQuantizer
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from tests.quantization.networks import (
    NETWORKS,
    Attention,
    Branches,
    Functional,
    Inverted,
    PostAct,
    PreAct,
    Repeated,
    Spectrum,
    build,
    examples,
)

UNFOLDED: dict[type[nn.Module], set[str]] = {
    PostAct: {"stem.0", "conv1", "conv2"},
    PreAct: {"conv1"},  # the other two are in front of a ReLU that follows an addition, or of the pooling
    Inverted: {"stem.0", "block.0", "block.3", "block.6"},
    Branches: {"left.0", "right.0", "tail.0"},
    Spectrum: {"features.0", "fc"},
    Attention: set(),
    Functional: set(),  # written as a function
    Repeated: set(),
}
SCHEMES = (Scheme(), Scheme(weight_bits=4), Scheme(weight_bits=4, scales="learned"))


def folded(kind: type[nn.Module], scheme: Scheme = SCHEMES[0]) -> QuantizedNetwork:
    network = prepare(build(kind), examples(1), scheme)
    calibrate(network, [examples(64)])
    network.set_fake_quantizing(True)
    network.set_saturation("u8")
    return network.eval()


def unfolded(kind: type[nn.Module], scheme: Scheme = SCHEMES[0]) -> QuantizedNetwork:
    network = folded(kind, scheme)
    network.unfold_batch_norm(build(kind), examples(2))
    return network


def logits(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(x)
    return found


@pytest.mark.parametrize("kind", NETWORKS)
def test_which_layers_get_their_batch_norm_back(kind: type[nn.Module]) -> None:
    found = {path for path, module in unfolded(kind).weight_quantizers() if module.norm is not None}
    assert found == UNFOLDED[kind]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_unfolded_and_folded_are_the_same_bit_for_bit(kind: type[nn.Module], scheme: Scheme) -> None:
    network, x = unfolded(kind, scheme), examples(32)
    expected = folded(kind, scheme)
    assert torch.equal(logits(network, x), logits(expected, x))
    network.fold_batch_norm()
    assert network.state_dict().keys() == expected.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def trained(network: QuantizedNetwork, *, normalizing: bool, steps: int = 3) -> None:
    network.train()
    network.set_normalizing(normalizing)
    network.set_observing(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(examples(32, seed=step) * 1.5 + 0.2), torch.arange(32) % 4).backward()
        optimizer.step()
    network.set_normalizing(False)
    network.set_observing(False)


@pytest.mark.parametrize("normalizing", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", [PostAct, Inverted, Spectrum])
def test_after_training_too_and_frozen_training_computes_what_ships(
    kind: type[nn.Module], scheme: Scheme, normalizing: bool
) -> None:
    network, x = unfolded(kind, scheme), examples(32)
    trained(network, normalizing=normalizing)
    frozen = logits(network.train(), x)
    alive = logits(network.eval(), x)
    assert torch.equal(frozen, alive)
    codes = {path: module.codes(torch.ones(())) for path, module in network.weight_quantizers()}
    network.fold_batch_norm()
    assert torch.equal(logits(network, x), alive)
    for path, module in network.weight_quantizers():
        assert torch.equal(module.codes(torch.ones(())), codes[path])
    other = prepare(build(kind), examples(1), scheme)
    other.load_state_dict(network.state_dict())
    other.set_saturation("u8")
    other.set_fake_quantizing(True)
    assert torch.equal(logits(other.eval(), x), alive)


def with_norm(seed: int = 0, bias: bool = False) -> WeightQuantizer:
    torch.manual_seed(seed)
    module = WeightQuantizer(nn.Conv2d(3, 4, 3, bias=bias))
    module.norm = nn.BatchNorm2d(4)
    module.norm.weight.data.uniform_(0.5, 1.5)
    module.norm.bias.data.normal_()
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    return module.train()


@pytest.mark.parametrize("bias", [False, True])
def test_without_rounding_it_is_a_convolution_and_a_batch_norm(bias: bool) -> None:
    module, x = with_norm(bias=bias), torch.randn(8, 3, 6, 6)
    module.normalizing = True
    reference = nn.Sequential(copy.deepcopy(module.op), copy.deepcopy(module.norm)).train()
    torch.testing.assert_close(module(x, torch.ones(())), reference(x), rtol=1e-4, atol=1e-5)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(module.norm, name), getattr(reference[1], name))
    module(x, torch.ones(())).square().sum().backward()
    reference(x).square().sum().backward()
    torch.testing.assert_close(module.op.weight.grad, reference[0].weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(module.norm.bias.grad, reference[1].bias.grad, rtol=1e-3, atol=1e-3)


def test_the_weight_is_rounded_as_it_ships_and_normalized_by_the_batch() -> None:
    """y = BN(conv(x, Q(a W)) / a), a = g / sqrt(v + eps), in NumPy."""
    module, x = with_norm(), torch.randn(8, 3, 6, 6)
    module.quantizing = module.normalizing = True
    norm = copy.deepcopy(module.norm)
    a = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy().astype(np.float64)
    weight = module.op.weight.detach().numpy() * a[:, None, None, None]
    scale = np.abs(weight).reshape(4, -1).max(1)[:, None, None, None] / 127
    rounded = np.rint(weight / scale) * scale
    y = F.conv2d(x.double(), torch.from_numpy(rounded)).numpy() / a[None, :, None, None]
    mean, var = y.mean((0, 2, 3), keepdims=True), y.var((0, 2, 3), keepdims=True)
    gain, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    expected = (y - mean) / np.sqrt(var + norm.eps) * gain[None, :, None, None] + shift[None, :, None, None]
    np.testing.assert_allclose(module(x, torch.ones(())).detach().numpy(), expected, rtol=1e-3, atol=1e-4)
    count = y.size / 4
    moved = 0.9 * norm.running_var.numpy() + 0.1 * var.ravel() * count / (count - 1)
    np.testing.assert_allclose(module.norm.running_var.numpy(), moved, rtol=1e-4)


def test_statistics_move_in_training_until_they_are_frozen() -> None:
    network = unfolded(PostAct)
    before = {name: value.clone() for name, value in network.named_buffers()}

    def moved() -> set[str]:
        now = dict(network.named_buffers())
        return {name.rpartition(".")[2] for name in now if not torch.equal(now[name], before[name])}

    network(examples(16))
    assert moved() == set()
    network.train()(examples(16) + 1)
    assert moved() == set()
    network.set_normalizing(True)
    network.eval()(examples(16) + 1)
    assert moved() == set()
    network.train()(examples(16) + 1)
    assert moved() == {"running_mean", "running_var", "num_batches_tracked"}


def test_frozen_the_factor_and_shift_still_learn() -> None:
    network = unfolded(PostAct).train()
    network(examples(16)).square().sum().backward()
    norms = [module.norm for _, module in network.weight_quantizers() if module.norm is not None]
    assert all(norm.weight.grad.abs().sum() > 0 and norm.bias.grad.abs().sum() > 0 for norm in norms)


def test_a_channel_without_a_factor_stays_finite() -> None:
    student = build(PostAct)
    student.bn1.weight.data[:3] = torch.tensor([0.0, 1e-30, -1e-13])
    network = prepare(student, examples(1))
    calibrate(network, [examples(64)])
    network.unfold_batch_norm(student, examples(2))
    network.set_fake_quantizing(True)
    trained(network, normalizing=True)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert torch.isfinite(logits(network.eval(), examples(8))).all()


def test_layers_that_are_no_longer_the_students_stay_folded() -> None:
    network = folded(PostAct)
    network.graph.get_submodule("conv1.op").weight.data.mul_(1.001)
    network.unfold_batch_norm(build(PostAct), examples(2))
    found = {path for path, module in network.weight_quantizers() if module.norm is not None}
    assert found == {"stem.0", "conv2"}


def test_the_student_is_left_as_it_is_even_when_it_was_frozen() -> None:
    student = build(PostAct).requires_grad_(False)
    before = copy.deepcopy(student.state_dict())
    network = folded(PostAct)
    network.unfold_batch_norm(student, examples(2))
    trained(network, normalizing=True)
    assert all(parameter.grad is not None for parameter in network.parameters())
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name])


def test_autocast_normalizes_in_bfloat16() -> None:
    network = unfolded(PostAct).train()
    network.set_normalizing(True)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(examples(32))
    high = network(examples(32))
    torch.testing.assert_close(low.float(), high, rtol=0.1, atol=0.15)
