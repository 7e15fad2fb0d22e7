from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import NetworkError
from edgekd.quantization.trace import trace
from tests.quantization import networks
from tests.quantization.networks import NETWORKS, PostAct, build, examples


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_traced_network_takes_any_batch(kind: type[nn.Module]) -> None:
    network = build(kind)
    traced = trace(network, examples(1))
    for count in (1, 2, 5):
        x = examples(count)
        torch.testing.assert_close(traced(x), network(x))


class Sized(nn.Module):
    """Decisions and loops over sizes, all of them allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor, extra: Tensor | None = None, scale: float = 2.0) -> Tensor:
        if x.shape[1] == 3 and x.dim() == 4 and x.dtype == torch.float32 and extra is None:
            x = self.conv(x)
        for row in range(x.size(2)):
            x = x + row
        height, width = x.shape[-2:]
        x = x.reshape(x.shape[0], -1) / math.sqrt(height * width)
        return x.view(x.size(0), 4, -1).sum(-1) * scale


def test_sizes_are_plain_numbers_and_the_batch_is_not() -> None:
    network = Sized()
    traced = trace(network, examples(1))
    torch.testing.assert_close(traced(examples(7)), network(examples(7)))


def test_the_network_is_left_alone() -> None:
    network = build(NETWORKS[0]).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace(network, examples(2))
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Doubtful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.fc(x.mean((2, 3)))


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Identity(), inner)

    def forward(self, x: Tensor) -> Any:
        return self.blocks(x)


def line_of(kind: type[nn.Module], text: str) -> int:
    import inspect

    lines, first = inspect.getsourcelines(kind)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_an_untraceable_network_names_the_module_and_the_line() -> None:
    with pytest.raises(NetworkError) as caught:
        trace(Outer(Doubtful()), examples(2))
    assert str(caught.value) == (
        f"{__file__}:{line_of(Doubtful, 'if x.sum()')}: the network cannot be traced inside module blocks.1: "
        "a decision depends on the values of a tensor\n"
        "  if x.sum() > 0:\n"
        "  try: decide on sizes, options or modules rather than on the values of a tensor, "
        "and write loops over fixed ranges"
    )


class ByBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.shape[0] > 2 else x.amax((2, 3))


def test_a_decision_on_the_batch_size_is_refused() -> None:
    with pytest.raises(NetworkError) as caught:
        trace(ByBatch(), examples(2))
    assert caught.value.message == (
        "the network cannot be traced: a decision depends on the batch size\n"
        "  return x.mean((2, 3)) if x.shape[0] > 2 else x.amax((2, 3))"
    )
    assert caught.value.where == f"{__file__}:{line_of(ByBatch, 'return')}"


def test_a_network_that_fails_on_its_input_says_where() -> None:
    with pytest.raises(NetworkError) as caught:
        trace(build(PostAct), torch.zeros(2, 5, 8, 8))
    assert caught.value.message.startswith("the network fails on a batch of shape (3, 5, 8, 8): ")
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{networks.__file__}:")


@pytest.mark.parametrize(
    ("result", "found"), [(lambda x: (x, x), "tuple"), (lambda x: x, "(3, 3, 8, 8)"), (torch.sum, "()")]
)
def test_an_output_that_is_no_logits_is_refused(result: Any, found: str) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return result(x)

    with pytest.raises(NetworkError) as caught:
        trace(Odd(), examples(2))
    assert str(caught.value) == (
        f"Odd: the network returns {found} for a batch of 3, not one tensor of logits (batch, classes)"
    )


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.rand(3)


def test_a_network_that_is_random_in_evaluation_is_refused() -> None:
    with pytest.raises(NetworkError, match="the traced graph differs from the network by"):
        trace(Random(), examples(2))


class Counted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 3, -1).sum(-1)


def test_len_of_a_batch_is_refused_with_the_way_out() -> None:
    with pytest.raises(NetworkError) as caught:
        trace(Counted(), examples(2))
    assert caught.value.message == (
        "the network cannot be traced: len() depends on the batch size; x.shape[0] may\n"
        "  return x.reshape(len(x), 3, -1).sum(-1)"
    )
