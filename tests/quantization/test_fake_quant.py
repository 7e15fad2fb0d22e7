from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.observer import follow
from edgekd.quantization.scheme import SMALLEST_AMAX, Saturation, WeightBits, code_range


def quantizer(
    amax: float, *, non_negative: bool = False, saturation: Saturation = "s8"
) -> ActivationQuantizer:
    module = ActivationQuantizer("x", non_negative=non_negative)
    module.amax.fill_(amax)
    module.quantizing, module.saturation = True, saturation
    return module


def reference(x: np.ndarray, amax: float, low: int, high: int) -> np.ndarray:
    scale = np.float32(amax) / np.float32(127)
    return np.clip(np.rint(x * (np.float32(1) / scale)), low, high).astype(np.float32) * scale


CASES = [
    ("s8", False, -128, 127),
    ("s8", True, -128, 127),
    ("u8", False, -128, 127),
    ("u8", True, 0, 255),
]


@pytest.mark.parametrize(("saturation", "non_negative", "low", "high"), CASES)
def test_activations_round_and_saturate(
    saturation: Saturation, non_negative: bool, low: int, high: int
) -> None:
    x = np.linspace(-5, 5, 4001, dtype=np.float32)
    module = quantizer(1.7, non_negative=non_negative, saturation=saturation)
    found = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, reference(x, 1.7, low, high), rtol=1e-6)
    assert code_range(saturation, non_negative=non_negative) == (low, high)
    assert found.max() == pytest.approx(high * 1.7 / 127)


@pytest.mark.parametrize(("saturation", "non_negative", "low", "high"), CASES)
def test_the_gradient_passes_inside_the_clamp_only(
    saturation: Saturation, non_negative: bool, low: int, high: int
) -> None:
    x = torch.linspace(-5, 5, 1001, requires_grad=True)
    quantizer(1.27, non_negative=non_negative, saturation=saturation)(x).sum().backward()
    codes = np.rint(x.detach().numpy() * 100)
    np.testing.assert_array_equal(x.grad.numpy(), ((codes >= low) & (codes <= high)).astype(np.float32))


def test_bfloat16_is_quantized_in_float32() -> None:
    x = torch.randn(1000).bfloat16()
    found = quantizer(3.0)(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, quantizer(3.0)(x.float()).bfloat16(), rtol=0, atol=0)


def test_off_is_the_identity_and_a_repeat_is_too() -> None:
    module, x = quantizer(1.0), torch.randn(10)
    assert module(x, repeated=True) is x
    module.quantizing = False
    assert module(x) is x


def test_a_tensor_of_zeros_has_a_positive_scale() -> None:
    module = quantizer(SMALLEST_AMAX)
    assert torch.equal(module(torch.zeros(5)), torch.zeros(5))
    assert module(torch.tensor([0.5])).item() == pytest.approx(SMALLEST_AMAX)


def test_training_follows_the_largest_magnitude_slowly() -> None:
    amax, expected = torch.tensor(4.0), 4.0
    for batch in (torch.tensor([-3.0, 1.0]), torch.tensor([2.0]), torch.tensor([0.5, -4.0])):
        follow(amax, batch)
        expected += 0.01 * (np.abs(batch.numpy()).max() - expected)
    assert amax.item() == pytest.approx(expected, rel=1e-6)


def test_scales_follow_in_training_mode_only() -> None:
    module = quantizer(1.0)
    module.moving = True
    module.eval()(torch.tensor([5.0]))
    assert module.amax.item() == 1.0
    module.train()(torch.tensor([5.0]))
    assert module.amax.item() == pytest.approx(1.04)


def channelwise(weight: np.ndarray) -> np.ndarray:
    scale = np.abs(weight).reshape(len(weight), -1).max(1) / np.float32(127)
    shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight * (np.float32(1) / shaped)), -127, 127) * shaped


OPS = [nn.Conv1d(3, 5, 3), nn.Conv2d(4, 6, 3, groups=2), nn.Conv3d(2, 4, 1), nn.Linear(7, 5, bias=False)]
INPUTS = [(2, 3, 9), (2, 4, 8, 8), (2, 2, 3, 3, 3), (2, 7)]


@pytest.mark.parametrize(("op", "shape"), list(zip(OPS, INPUTS, strict=True)))
def test_weights_are_rounded_per_output_channel(op: nn.Module, shape: tuple[int, ...]) -> None:
    module, x = WeightQuantizer(op), torch.randn(shape)
    torch.testing.assert_close(module(x, torch.ones(())), op(x))
    module.quantizing = True
    rounded = torch.from_numpy(channelwise(op.weight.detach().numpy()).astype(np.float32))
    expected = torch.func.functional_call(op, {"weight": rounded}, (x,))
    torch.testing.assert_close(module(x, torch.ones(())), expected)


def test_weight_scales_are_those_of_the_present_weight_and_the_gradient_reaches_it() -> None:
    module = WeightQuantizer(nn.Linear(4, 3))
    module.quantizing = True
    first = module.weight_scale(torch.ones(()))
    module.op.weight.data.mul_(2)
    torch.testing.assert_close(module.weight_scale(torch.ones(())), first * 2)
    module(torch.ones(1, 4), torch.ones(())).sum().backward()
    torch.testing.assert_close(module.op.weight.grad, torch.ones(3, 4))
    torch.testing.assert_close(module.op.bias.grad, torch.ones(3))


def test_a_bias_is_rounded_to_the_accumulator_under_u8_only() -> None:
    module = WeightQuantizer(nn.Linear(1, 1))
    module.op.weight.data.fill_(1.27)
    module.op.bias.data.fill_(0.123456)
    module.quantizing = True
    step = 0.01 * 0.01
    zero = torch.zeros(1, 1)
    assert module(zero, torch.tensor(1.27)).item() == pytest.approx(0.123456)
    module.saturation = "u8"
    assert module(zero, torch.tensor(1.27)).item() == pytest.approx(round(0.123456 / step) * step, rel=1e-5)
    module(zero, torch.tensor(1.27)).sum().backward()
    assert module.op.bias.grad.item() == 1


def test_a_dead_channel_with_a_live_bias_fits_its_bias_into_int32() -> None:
    module = WeightQuantizer(nn.Linear(1, 3))
    module.op.weight.data = torch.tensor([[1.27], [1e-20], [0.0]])
    module.op.bias.data = torch.tensor([1.0, 1.0, 0.0])
    scale = module.weight_scale(torch.tensor(1.27))
    assert scale[0].item() == pytest.approx(0.01)
    assert (module.op.bias / (scale * 0.01)).max() <= 2**30
    assert (scale > 0).all()
    assert module.codes(torch.tensor(1.27)).flatten().tolist() == [127, 0, 0]


BITS: list[tuple[WeightBits, int]] = [(8, 127), (7, 63), (4, 7)]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("bits", "limit"), BITS)
def test_the_codes_that_ship_are_those_of_training_bit_for_bit(
    bits: WeightBits, limit: int, learned: bool
) -> None:
    torch.manual_seed(bits)
    module = WeightQuantizer(nn.Conv2d(5, 32, 3), bits=bits, learned=learned)
    module.quantizing = True
    identity = torch.eye(45).view(45, 5, 3, 3)  # reads the weight out, exactly: one summand is not zero
    amax = torch.tensor(1.0)
    module.op.bias.data.zero_()
    rounded = module(identity, amax).view(45, 32).T
    codes = module.codes(amax)
    assert codes.dtype == torch.int8
    assert torch.equal(codes.flatten(1) * module.weight_scale(amax)[:, None], rounded)
    assert codes.abs().max() == limit


@pytest.mark.parametrize(("bits", "limit"), BITS)
def test_scales_of_weights_by_bits(bits: WeightBits, limit: int) -> None:
    op = nn.Linear(200, 6, bias=False)
    op.weight.data.normal_()
    largest = op.weight.detach().abs().amax(1)
    scale = WeightQuantizer(op, bits=bits).weight_scale(torch.ones(()))
    if bits == 4:  # the largest weights are clipped
        assert ((scale < largest / limit) & (scale > 0.3 * largest / limit)).all()
    else:
        torch.testing.assert_close(scale, largest / limit)
    learned = WeightQuantizer(op, bits=bits, learned=True)
    assert torch.equal(learned.weight_scale(torch.ones(())), scale)


def test_a_followed_scale_of_4_bits_keeps_its_part_of_the_largest_weight() -> None:
    module = WeightQuantizer(nn.Linear(50, 3), bits=4)
    before = module.weight_scale(torch.ones(()))
    module.op.weight.data.mul_(3)
    torch.testing.assert_close(module.weight_scale(torch.ones(())), 3 * before)
    assert "fraction_O" in module.state_dict()


def test_a_learned_scale_of_a_weight_does_not_follow_it_and_has_its_gradient() -> None:
    module = WeightQuantizer(nn.Linear(50, 3, bias=False), bits=4, learned=True)
    module.quantizing = module.moving = True
    before = module.weight_scale(torch.ones(()))
    module.op.weight.data.mul_(3)
    assert torch.equal(module.weight_scale(torch.ones(())), before)
    module.train()(torch.ones(1, 50), torch.ones(())).sum().backward()
    weight, scale = module.op.weight.detach().numpy(), before.numpy()[:, None]
    v = weight * (np.float32(1) / scale)
    slope = np.where(np.abs(v) < 7, np.rint(v) - v, 7 * np.sign(v)).sum(1)
    np.testing.assert_allclose(module.scale_O.grad.numpy(), slope / np.sqrt(50 * 7), rtol=1e-4)
    np.testing.assert_array_equal(module.op.weight.grad.numpy(), (np.abs(v) < 7).astype(np.float32))


@pytest.mark.parametrize(("saturation", "non_negative", "low", "high"), CASES)
def test_a_learned_activation_moves_as_if_its_scale_were_the_parameter(
    saturation: Saturation, non_negative: bool, low: int, high: int
) -> None:
    """One step of SGD on amax moves the scale by rate * g * slope, g = 1 / sqrt(n * high)."""
    module = ActivationQuantizer("x", non_negative=non_negative, learned=True)
    module.amax.data.fill_(1.27)
    module.quantizing, module.saturation, module.moving = True, saturation, True
    x = torch.linspace(-4, 4, 600).view(4, 5, 30)
    module.train()(x).sum().backward()
    torch.optim.SGD(module.parameters(), lr=1e-4).step()
    v = x.numpy() / np.float32(0.01)
    inside = (v > low) & (v < high)
    slope = np.where(inside, np.rint(v) - v, np.where(v <= low, low, high)).sum()
    step = 1e-4 * slope / np.sqrt(5 * 30 * high)
    assert module.amax.item() / 127 - 0.01 == pytest.approx(-step, rel=1e-3)


def test_frozen_or_in_evaluation_a_learned_scale_has_no_gradient() -> None:
    module = ActivationQuantizer("x", non_negative=False, learned=True)
    module.amax.data.fill_(1.0)
    module.quantizing = True
    x = torch.randn(10, requires_grad=True)
    for moving, training in ((False, True), (True, False)):
        module.moving = moving
        module.train(training)(x).sum().backward()
        assert module.amax.grad is None
    assert x.grad.abs().sum() > 0


def test_a_learned_scale_that_fell_below_zero_is_still_positive_and_rises() -> None:
    module = ActivationQuantizer("x", non_negative=False, learned=True)
    module.amax.data.fill_(-1.0)
    module.quantizing = module.moving = True
    assert module.calibrated
    found = module.train()(torch.full((1, 4), 5.0))
    assert found.detach().unique().item() == pytest.approx(SMALLEST_AMAX)
    (-found).sum().backward()
    assert module.amax.grad < 0


def test_learned_scales_do_not_follow_the_data() -> None:
    module = ActivationQuantizer("x", non_negative=False, learned=True)
    module.amax.data.fill_(1.0)
    module.moving = module.quantizing = True
    module.train()(torch.tensor([[100.0]]))
    assert module.amax.item() == 1.0
