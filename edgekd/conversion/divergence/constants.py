"""The constants of two matching operators: weights, biases, factors of a normalization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from edgekd.conversion.divergence.layers import Candidate
from edgekd.conversion.divergence.match import Pair
from edgekd.conversion.divergence.skeleton import MOVERS, TRANSPARENT, Skeleton, constants_of
from edgekd.conversion.graph_view import WEIGHTED_OPS, attribute
from edgekd.conversion.remove_quantizers import QuantizedTensor, codes_behind

_WORST_ROUNDING = 20.0
"""Times the mean square of rounding to the grid that data give, above which a weight is another weight."""
_WIDE = 2**15
_FLOAT8_STEPS = 16
"""Steps that round a weight about as much as an 8-bit float with 3 bits behind its point."""
_SAME = 2e-3
"""Relative difference up to which two floats are the same: float16 has half of it."""


@dataclass(frozen=True)
class Coding:
    """How a weight is quantized."""

    steps: int
    """Steps from zero to the end of the grid: 127 for 8 bits, 7 for 4."""
    per_channel: bool
    """Whether every output channel has a scale of its own."""
    largest_scale: float
    """The largest of its scales."""

    @property
    def is_wide(self) -> bool:
        """Whether it is an int32 bias, whose scale is given by what it is added to."""
        return self.steps > _WIDE


_DECODED = Coding(1, per_channel=False, largest_scale=0.0)
"""A weight that other operators decode from constants: how finely is not known."""


@dataclass(frozen=True)
class ConstantPair:
    """A constant of the candidate, what its codes mean, and the reference's."""

    made: tuple[str, str]
    """What the two operators make."""
    position: int
    """Which of the operators' inputs it is."""
    role: str
    """`weight`, `bias` or `constant`."""
    candidate: np.ndarray
    reference: np.ndarray
    axis: int | None
    """The axis of output channels, where it is a weight."""
    coding: Coding | None
    """How the candidate holds it; None for floats."""

    @property
    def comparable(self) -> bool:
        """Whether the two have one shape."""
        return self.candidate.shape == self.reference.shape

    @property
    def channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Both as (channels, elements), float64."""
        axis = self.axis
        both = (self.candidate, self.reference)
        if axis is None:
            return tuple(part.astype(np.float64).reshape(1, -1) for part in both)  # type: ignore[return-value]
        moved = (np.moveaxis(part.astype(np.float64), axis, 0) for part in both)
        one, other = (part.reshape(part.shape[0], -1) for part in moved)
        return one, other

    def expected(self) -> np.ndarray:
        """Mean square of the rounding error of each channel of the reference's value, (channels,)."""
        _, reference = self.channels
        largest = np.abs(reference).max(axis=1)
        whole = largest.max(initial=0.0)
        if self.coding is None:
            return np.full_like(largest, (_SAME * whole) ** 2)
        if self.coding.is_wide:
            return np.full_like(largest, max(self.coding.largest_scale**2, (_SAME * whole) ** 2))
        if not self.coding.per_channel:
            largest = np.full_like(largest, whole)
        return np.asarray(np.maximum((largest / self.coding.steps) ** 2 / 12, (1e-4 * whole) ** 2))

    def excess(self) -> np.ndarray:
        """Mean square of the difference of each channel over what is expected, (channels,)."""
        one, other = self.channels
        return np.asarray(((one - other) ** 2).mean(axis=1) / np.maximum(self.expected(), 1e-30))

    @property
    def limit(self) -> float:
        """The excess that is too much."""
        return 1.0 if self.coding is None or self.coding.is_wide else _WORST_ROUNDING

    @property
    def differs(self) -> bool:
        """Whether this is another constant, rather than the reference's in codes."""
        if not self.comparable or self.candidate.size == 0:
            return False
        return bool((self.excess() > self.limit).any()) or self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether nothing is left of it, although its codes could have held it."""
        held = 1e-8 if self.coding is None else self.coding.largest_scale
        return not self.candidate.any() and bool(np.abs(self.reference).max(initial=0.0) > held)

    def rounded_reference(self) -> np.ndarray:
        """The reference's value on the grid that its own magnitudes give, as it should be in codes."""
        if self.coding is None or self.coding.is_wide:
            return self.reference
        largest = np.abs(self.reference).astype(np.float64)
        axis = self.axis if self.coding.per_channel else None
        others = None if axis is None else tuple(i for i in range(largest.ndim) if i != axis % largest.ndim)
        scale = largest.max(axis=others, keepdims=True) / self.coding.steps
        scale = np.where(scale > 0, scale, 1.0)
        return np.asarray(np.rint(self.reference / scale) * scale, dtype=self.reference.dtype)


def constant_pairs(
    candidate: Candidate, reference: Skeleton, pairs: tuple[Pair, ...], codings: dict[str, Coding]
) -> dict[str, list[ConstantPair]]:
    """The constants of every two operators that correspond, by what the candidate's operator makes."""
    places = [place for pair in pairs for place in _places(candidate, reference, pair)]
    mine = constants_of(candidate.form, [one for _, _, one, _ in places])
    theirs = constants_of(reference, [other for _, _, _, other in places])
    found: dict[str, list[ConstantPair]] = {}
    for made, position, one, other in places:
        if one in mine and other in theirs:
            pair = _pair(candidate, codings, made, position, mine[one], theirs[other])
            found.setdefault(made[0], []).append(pair)
    return found


def unknown_steps(
    candidate: Candidate, codings: dict[str, Coding], made: tuple[str, ...], pairs: list[ConstantPair]
) -> int | None:
    """Steps of the quantized weights of operators that no pair of constants of one shape stands for."""
    known = {(pair.made[0], pair.position) for pair in pairs if pair.comparable}
    unknown = [
        coding.steps
        for name in made
        if name in candidate.form.tensors
        for position, source in enumerate(candidate.form.tensors[name].node.input)
        if source and candidate.form.view.is_constant(source) and (name, position) not in known
        if (coding := _coding_of(candidate, candidate.read_as(name, position), codings)) is not None
    ]
    return min(unknown, default=None)


def _places(
    candidate: Candidate, reference: Skeleton, pair: Pair
) -> Iterator[tuple[tuple[str, str], int, str, str]]:
    one, other = pair.core
    if one not in candidate.form.tensors or other not in reference.tensors:
        return
    mine, theirs = candidate.form.tensors[one].node, reference.tensors[other].node
    if mine.op_type != theirs.op_type:
        return
    for position, (name, counterpart) in enumerate(zip(mine.input, theirs.input, strict=False)):
        if (
            name
            and counterpart
            and candidate.form.view.is_constant(name)
            and reference.view.is_constant(counterpart)
        ):
            yield pair.core, position, name, counterpart


def _pair(
    candidate: Candidate,
    codings: dict[str, Coding],
    made: tuple[str, str],
    position: int,
    one: np.ndarray,
    other: np.ndarray,
) -> ConstantPair:
    node = candidate.form.tensors[made[0]].node
    weighted = node.op_type in WEIGHTED_OPS
    role = (
        "weight" if weighted and one.ndim > 1 else "bias" if weighted or node.op_type == "Add" else "constant"
    )
    axis = _channel_axis(node, one.ndim) if role == "weight" else None
    coding = _coding_of(candidate, candidate.read_as(made[0], position), codings)
    return ConstantPair(made, position, role, one, other, axis, coding)


def _without_padding(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A constant without the channels by which it is larger than the reference's, in its first two axes."""
    larger = one.ndim == other.ndim and one.shape[2:] == other.shape[2:]
    if larger and all(size >= wanted for size, wanted in zip(one.shape, other.shape, strict=True)):
        return one[tuple(slice(size) for size in other.shape[:2])]
    return one


def _channel_axis(node: onnx.NodeProto, rank: int) -> int:
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if attribute(node, "transB", 0) else 1
        case _:
            return rank - 1


def codings_of(candidate: Candidate) -> dict[str, Coding]:
    """How each quantized constant is held, by the tensor that its DequantizeLinear makes."""
    found = {}
    for tensor in candidate.quantized:
        if tensor.kind == "constant":
            for node in tensor.dequantizers:
                found[node.output[0]] = _coding(tensor, node)
    return found


def _coding(tensor: QuantizedTensor, node: onnx.NodeProto) -> Coding:
    scale = tensor.view.constant(node.input[1])
    zero_point = tensor.view.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    codes = codes_behind(tensor.view, node) if tensor.quantizer is None else None
    per_channel = scale is not None and scale.size > 1
    largest_scale = 0.0 if scale is None else float(np.abs(scale).max(initial=0.0))
    if codes is None or codes.size == 0:
        return Coding(127, per_channel, largest_scale)
    if not np.issubdtype(codes.dtype, np.integer) and "int" not in codes.dtype.name:
        return Coding(_FLOAT8_STEPS, per_channel, largest_scale)
    middle = 0 if zero_point is None else int(np.asarray(zero_point.reshape(-1)[0], np.int64))
    largest = int(np.abs(codes.astype(np.int64) - middle).max())
    bits = (
        32 if codes.dtype == np.int32 else next(bits for bits in range(2, 33) if 2 ** (bits - 1) >= largest)
    )
    return Coding(2 ** (bits - 1) - 1, per_channel, largest_scale)


def _coding_of(candidate: Candidate, name: str, codings: dict[str, Coding]) -> Coding | None:
    """How the constant behind a tensor is held, past operators that only move it."""
    while name not in codings:
        node = candidate.view.producer(name)
        if node is None or not node.input:
            return None
        if node.op_type not in (*MOVERS, *TRANSPARENT):
            return _DECODED
        name = node.input[0]
    return codings[name]
