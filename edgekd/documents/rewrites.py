"""The forms that a network's operations can be written in for int8, each with a name and a switch.

A scheme turns them on or off by name (`rewrites = {float_attention = false}`); those that it does not name
are as here. Which of them pay depends on the network and on the runtime's kernels, so `decide_rewrites` in
pipeline/rewrites.py measures them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgekd.documents.base import Section, nearest
from edgekd.documents.common import Interval
from edgekd.errors import UsageError

DEPTHWISE_STEP, DENSE_STEP, DENSE_OUTPUTS, INPUT_STEP = 16, 8, 16, 4
"""Widths that ONNX Runtime's fused int8 convolutions take: multiples for depthwise ones and for the outputs
of dense ones, the least of those, and multiples for inputs (conversion/pad_channels.py has the source)."""


@dataclass(frozen=True)
class Rewrite:
    """One form: what it does, and what it costs."""

    name: str
    description: str
    """One sentence for people."""
    default: bool
    """Whether it is on where nobody asked."""
    exact: bool
    """Whether every code stays what it is; otherwise the grid that the network is trained on changes."""
    measured: bool = True
    """Whether a measurement alone may switch it; the others change what the network computes."""
    of_graph: bool = False
    """Whether the graph of a dialect is rewritten, rather than the network before it."""


class MeasuredRewrite(Section):
    """What a rewrite is worth for one network on one machine."""

    name: str
    """The rewrite."""
    on: bool
    """Whether it is on from here."""
    ratio: float
    """Latency with it over latency without it, all else as decided so far."""
    interval: Interval
    """Confidence interval of that."""


class RewriteDecisions(Section):
    """The rewrites of a network that were measured; empty where none applies."""

    measured: tuple[MeasuredRewrite, ...] = ()
    """In the order in which they were measured."""

    @property
    def choices(self) -> dict[str, bool]:
        """For the scheme: whether each of them is on."""
        return {one.name: one.on for one in self.measured}


_ALL = (
    Rewrite(
        "relu6_as_relu",
        "ReLU6 becomes ReLU before fine-tuning: the scale does the clipping, and the convolution before it "
        "runs in int8",
        default=True,
        exact=False,
        measured=False,
    ),
    Rewrite(
        "silu_as_hard_swish",
        "SiLU becomes HardSwish before fine-tuning: clipping takes a fifth of the time of a table",
        default=False,
        exact=False,
        measured=False,
    ),
    Rewrite(
        "tokens_as_rows",
        "linear maps of tokens are products of matrices with a bias (Gemm), not MatMul and Add",
        default=True,
        exact=True,
    ),
    Rewrite(
        "float_attention",
        "the two products of an attention stay in float: between them only their quantizers would be int8",
        default=True,
        exact=False,
    ),
    Rewrite(
        "float_sums",
        "additions, products and concatenations whose operands come in float stay in float",
        default=True,
        exact=False,
    ),
    Rewrite(
        "int8_silu",
        "SiLU in int8 as a table for its sigmoid and a product; otherwise in float between two quantizers",
        default=True,
        exact=False,
    ),
    Rewrite(
        "int8_hard_swish",
        "HardSwish in int8 as an addition whose saturation is the clipping, and a product",
        default=True,
        exact=False,
    ),
    Rewrite(
        "shared_concat_scale",
        "the tensors of a concatenation share one scale, so that it only copies codes",
        default=False,
        exact=False,
    ),
    Rewrite(
        "pad_channels",
        "zero channels up to the widths that ONNX Runtime's fused int8 convolutions take",
        default=True,
        exact=True,
        of_graph=True,
    ),
)
REWRITES: Mapping[str, Rewrite] = MappingProxyType({rewrite.name: rewrite for rewrite in _ALL})
"""Every rewrite by name."""


def resolve(choices: Mapping[str, bool]) -> dict[str, bool]:
    """For every rewrite whether it is on: as chosen, else its default.

    Raises:
        UsageError: a name is no rewrite.
    """
    unknown = [name for name in choices if name not in REWRITES]
    if unknown:
        problems = [f"there is no rewrite '{name}'{nearest(name, tuple(REWRITES))}" for name in unknown]
        hint = f"one of {', '.join(REWRITES)}"
        raise UsageError("\n  ".join(["has unknown names", *problems]), where="scheme.rewrites", hint=hint)
    return {name: choices.get(name, rewrite.default) for name, rewrite in REWRITES.items()}
