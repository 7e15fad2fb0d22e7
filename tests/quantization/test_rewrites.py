from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgekd.documents.rewrites import REWRITES, resolve
from edgekd.documents.scheme import Scheme
from edgekd.errors import UsageError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.hard_swish import Int8HardSwish
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.operations import annotate, operation_of
from edgekd.quantization.prepare import fold_network, prepare
from edgekd.quantization.rewrites import applicable
from tests.quantization.networks import (
    CLASSES,
    Attention,
    Branches,
    Inverted,
    PostAct,
    Spectrum,
    build,
    examples,
)


def with_rewrites(network: nn.Module, x: Tensor, **rewrites: bool) -> QuantizedNetwork:
    return prepare(network, x, Scheme(rewrites=rewrites)).eval()


def linear_inputs(network: QuantizedNetwork, x: Tensor) -> list[tuple[int, ...]]:
    """Shape of what each linear map reads."""
    shapes: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(getattr(module, "op", None), nn.Linear):
            module.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    network(x)
    return shapes


class Tokens(nn.Module):
    """Linear maps of tokens with one of `parts` between each two."""

    def __init__(self, parts: list[str], *, lead: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.parts, self.lead = parts, lead
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(len(parts) + 1))
        self.norm, self.gelu = nn.LayerNorm(width), nn.GELU(approximate="tanh")
        self.offset = nn.Parameter(torch.randn(1, *lead, width))
        self.scale = nn.Parameter(torch.randn(width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.offset
        for part, linear in zip(self.parts, self.maps, strict=False):
            x = self.join(part, linear(x), x)
        return self.head(self.maps[-1](x).flatten(1, -2).mean(1))

    def join(self, part: str, y: Tensor, x: Tensor) -> Tensor:
        match part:
            case "gelu":
                return self.gelu(y)
            case "norm":
                return self.norm(y)
            case "function":
                return F.layer_norm(y, (y.shape[-1],), self.norm.weight, self.norm.bias)
            case "skip":
                return x + y
            case "gate":
                return y * torch.sigmoid(x)
            case "scale":
                return x + y * self.scale
            case "offset":
                return y + self.offset
            case "half":
                return y * 0.5
            case "heads":
                return y.reshape(*y.shape[:-1], 2, -1).transpose(-1, -2).reshape(y.shape)
            case _:
                return y.roll(1, 1)


PARTS = ("gelu", "norm", "function", "skip", "gate", "scale", "offset", "half", "heads", "roll")


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    lead=st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple),
    batch=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_rows_compute_what_the_tokens_did(
    parts: list[str], lead: tuple[int, ...], batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    network = Tokens(parts, lead=lead, width=4).eval()
    x = torch.randn(batch, *lead, 4)
    rows = with_rewrites(network, x[:1])  # traced on another batch than it is run on
    with torch.no_grad():
        torch.testing.assert_close(rows(x), network(x), rtol=1e-5, atol=1e-5)
        assert all(len(shape) == 2 for shape in linear_inputs(rows, x))
    tokens = with_rewrites(network, x, tokens_as_rows=False)
    assert any(len(shape) == 2 + len(lead) for shape in linear_inputs(tokens, x))


def test_between_two_linear_maps_nothing_leaves_the_rows() -> None:
    network = Tokens(["gelu", "norm", "skip", "half", "function"], lead=(5,), width=4)
    graph = with_rewrites(network, torch.randn(2, 5, 4)).graph
    reshapes = [node for node in graph.graph.nodes if node.target is torch.reshape]
    # into rows before the first map, and out of them behind the last
    assert len(reshapes) == 2


class TokensFirst(nn.Module):
    """The batch is the second axis, so that no size behind the first can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.first(x[:, 0].transpose(0, 1))).mean(0))


def test_axes_that_depend_on_the_batch_are_left_as_they_are() -> None:
    network, x = TokensFirst().eval(), examples(2)
    prepared = with_rewrites(network, x)
    with torch.no_grad():
        torch.testing.assert_close(prepared(examples(5)), network(examples(5)))


def test_each_rewrite_applies_where_it_would_change_something() -> None:
    def names(kind: type[nn.Module]) -> tuple[str, ...]:
        graph = fold_network(build(kind), examples(2))
        annotate(graph, examples(2))
        return applicable(graph)

    assert names(PostAct) == ("pad_channels",)
    assert names(Inverted) == ("relu6_as_relu", "pad_channels")
    assert names(Branches) == ("shared_concat_scale", "pad_channels")
    assert names(Spectrum) == ("silu_as_hard_swish", "int8_silu", "pad_channels")
    assert names(Attention) == ("tokens_as_rows", "float_attention", "float_sums", "pad_channels")


class Aligned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3, groups=16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.conv(x))))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("change", "applies"),
    [
        (lambda network: None, False),
        (lambda network: setattr(network, "conv", nn.Conv2d(3, 16, 3)), True),
        (lambda network: setattr(network, "depthwise", nn.Conv2d(16, 24, 3)), True),
        (lambda network: setattr(network, "depthwise", nn.Conv2d(16, 20, 3)), True),
        (lambda network: setattr(network, "depthwise", nn.Conv2d(16, 8, 3)), True),
    ],
)
def test_padding_applies_to_widths_that_the_kernels_do_not_take(
    change: Callable[[nn.Module], None], applies: bool
) -> None:
    network = Aligned()
    change(network)
    network.head = nn.Linear(network.depthwise.out_channels, CLASSES)
    x = torch.randn(2, network.conv.in_channels, 8, 8)
    graph = fold_network(network, x)
    annotate(graph, x)
    wide = network.depthwise.out_channels == 24  # 8 k outputs of a dense convolution are taken
    assert (applicable(graph) == ("pad_channels",)) == (applies and not wide)


def operations(graph: fx.GraphModule) -> list[str]:
    return [operation_of(graph, node) for node in graph.graph.nodes]


def test_relu6_stays_where_the_scheme_says_so() -> None:
    network, x = build(Inverted), 20 * examples(4)
    kept = with_rewrites(network, x, relu6_as_relu=False)
    assert operations(kept.graph).count("relu6") == 3
    assert "relu6" not in operations(with_rewrites(network, x).graph)
    with torch.no_grad():
        torch.testing.assert_close(kept(x), network(x), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(with_rewrites(network, x)(x), network(x), atol=0.1)


def test_silu_becomes_hard_swish_when_it_is_asked_for() -> None:
    network, x = build(Spectrum), examples(4)
    swapped = build(Spectrum)
    swapped.features[2] = nn.Hardswish()
    with torch.no_grad():
        found = with_rewrites(network, x, silu_as_hard_swish=True)(x)
        torch.testing.assert_close(found, swapped(x), rtol=1e-4, atol=1e-4)


def test_names_that_are_no_rewrite_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        prepare(build(PostAct), examples(2), Scheme(rewrites={"pad_channel": True, "speed": True}))
    assert str(caught.value) == (
        "scheme.rewrites: has unknown names\n"
        "  there is no rewrite 'pad_channel'; did you mean 'pad_channels'?\n"
        "  there is no rewrite 'speed'\n"
        f"  try: one of {', '.join(REWRITES)}"
    )


def test_choices_override_defaults() -> None:
    assert resolve({}) == {name: rewrite.default for name, rewrite in REWRITES.items()}
    assert resolve({"shared_concat_scale": True, "int8_silu": False}) == resolve({}) | {
        "shared_concat_scale": True,
        "int8_silu": False,
    }


def test_a_hard_swish_in_int8_by_its_formula() -> None:
    module = Int8HardSwish()
    x = 3 * torch.randn(4001, generator=torch.Generator().manual_seed(0))
    exact = x.numpy().astype(np.float64) * np.clip(x.numpy().astype(np.float64) + 3, 0, 6) / 6
    np.testing.assert_allclose(module(x).numpy(), exact, atol=1e-6)
    module.quantizing = True
    np.testing.assert_allclose(module(x).numpy(), exact, atol=1e-6)  # TensorRT computes it in float
    module.saturation = "u8"
    gate = np.rint(np.clip(x.numpy() + np.float32(3), 0, 6) / np.float32(6 / 255)) * (1 / 255)
    np.testing.assert_allclose(module(x).numpy(), x.numpy() * gate, atol=1e-6)
    assert len(np.unique(gate)) == 256


def test_the_gradient_of_a_hard_swish_passes_its_rounding() -> None:
    module, x = Int8HardSwish(), torch.tensor([-5.0, -1.0, 2.0, 5.0], requires_grad=True)
    module.quantizing, module.saturation = True, "u8"
    (gradient,) = torch.autograd.grad(module(x).sum(), x)
    # the slope of x (x + 3) / 6 between -3 and 3, up to half a step of the gate
    torch.testing.assert_close(gradient, torch.tensor([0.0, 1 / 6, 7 / 6, 1.0]), rtol=0, atol=0.5 / 255)


def test_quantization_reaches_the_hard_swish_with_all_else() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, CLASSES, 6), nn.Flatten())
    prepared = prepare(network, examples(4))
    (swish,) = [module for module in prepared.modules() if isinstance(module, Int8HardSwish)]
    calibrate(prepared, [examples(4)])
    prepared.set_fake_quantizing(True)
    prepared.set_saturation("u8")
    assert (swish.quantizing, swish.saturation) == (True, "u8")
    prepared.set_fake_quantizing(False)
    assert not swish.quantizing
