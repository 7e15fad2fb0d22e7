"""Which constants of two graphs correspond: those that operators read which correspond, at the same place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from edgekd.conversion.divergence.constants import DECODED, FLOAT8_STEPS, Coding, ConstantPair, Place
from edgekd.conversion.divergence.layers import Candidate
from edgekd.conversion.divergence.match import Pair
from edgekd.conversion.divergence.skeleton import MOVERS, TRANSPARENT, Skeleton, constants_of
from edgekd.conversion.graph_view import WEIGHTED_OPS, attribute
from edgekd.conversion.remove_quantizers import QuantizedTensor, codes_behind


def constant_pairs(
    candidate: Candidate, reference: Skeleton, pairs: tuple[Pair, ...], codings: dict[str, Coding]
) -> dict[str, list[ConstantPair]]:
    """The constants of every two operators that correspond, by what the candidate's operator makes."""
    places = [both for pair in pairs for both in _places(candidate.form, reference, pair)]
    mine = constants_of(candidate.form, [_name(candidate.form, one) for one, _ in places])
    theirs = constants_of(reference, [_name(reference, other) for _, other in places])
    found: dict[str, list[ConstantPair]] = {}
    for both in places:
        one, other = mine.get(_name(candidate.form, both[0])), theirs.get(_name(reference, both[1]))
        if one is not None and other is not None and _is_float(one) and _is_float(other):
            coding = _coding_of(candidate, candidate.read_as(*both[0]), codings)
            pair = _pair((candidate.form, reference), both, one, other, coding)
            found.setdefault(both[0][0], []).append(pair)
    return found


def _is_float(value: np.ndarray) -> bool:
    """Whether a constant is a weight, rather than a shape or an index."""
    return value.dtype.kind == "f" or value.dtype.name.startswith(("bfloat", "float"))


def unknown_steps(
    candidate: Candidate, codings: dict[str, Coding], made: tuple[str, ...], pairs: list[ConstantPair]
) -> int | None:
    """Steps of the quantized weights of operators that no pair of constants of one shape stands for."""
    known = {pair.places[0] for pair in pairs if pair.comparable}
    unknown = [
        coding.steps
        for name in made
        if name in candidate.form.tensors
        for position, source in enumerate(candidate.form.tensors[name].node.input)
        if source and candidate.form.view.is_constant(source) and (name, position) not in known
        if (coding := _coding_of(candidate, candidate.read_as(name, position), codings)) is not None
    ]
    return min(unknown, default=None)


def _name(form: Skeleton, place: Place) -> str:
    """The constant that is read at a place."""
    return str(form.tensors[place[0]].node.input[place[1]])


def _places(form: Skeleton, reference: Skeleton, pair: Pair) -> Iterator[tuple[Place, Place]]:
    """Where two operators read constants that correspond."""
    one, other = pair.core
    if one not in form.tensors or other not in reference.tensors:
        return
    mine, theirs = _constant_places(form, one), _constant_places(reference, other)
    if form.tensors[one].node.op_type != reference.tensors[other].node.op_type:
        if form.kind(one) != "product":
            return
        # A Gemm has its bias within it, a MatMul an addition behind it.
        mine += [place for name in pair.absorbed[0] for place in _constant_places(form, name)]
        theirs += [place for name in pair.absorbed[1] for place in _constant_places(reference, name)]
        yield from zip(mine, theirs, strict=False)
        return
    positions = {position for _, position in mine} & {position for _, position in theirs}
    yield from (((one, position), (other, position)) for position in sorted(positions))


def _constant_places(form: Skeleton, made: str) -> list[Place]:
    """Where the operator that makes a tensor reads constants."""
    names = enumerate(form.tensors[made].node.input)
    return [(made, position) for position, name in names if name and form.view.is_constant(name)]


def _pair(
    forms: tuple[Skeleton, Skeleton],
    places: tuple[Place, Place],
    one: np.ndarray,
    other: np.ndarray,
    coding: Coding | None,
) -> ConstantPair:
    nodes = [form.tensors[place[0]].node for form, place in zip(forms, places, strict=True)]
    stored = [node.op_type == "Gemm" and attribute(node, "transB", 0) == 1 for node in nodes]
    turned = one.ndim == other.ndim == 2 and stored[0] != stored[1]
    laid_out = _filled(one.T if turned else one, other)
    weighted = nodes[1].op_type in WEIGHTED_OPS
    is_bias = weighted or nodes[1].op_type == "Add"
    role = "weight" if weighted and other.ndim > 1 else "bias" if is_bias else "constant"
    axis = _channel_axis(nodes[1], other.ndim) if role == "weight" else None
    return ConstantPair(places, role, laid_out, other, axis, coding, one.shape, turned)


def _filled(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A constant with as many channels as the reference's, in its first two axes, if only they differ."""
    if one.ndim != other.ndim or one.shape == other.shape or one.shape[2:] != other.shape[2:]:
        return one
    if all(size >= wanted for size, wanted in zip(one.shape, other.shape, strict=True)):
        return one[tuple(slice(size) for size in other.shape[:2])]
    if all(size <= wanted for size, wanted in zip(one.shape, other.shape, strict=True)):
        return np.pad(one, [(0, wanted - size) for size, wanted in zip(one.shape, other.shape, strict=True)])
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
        return Coding(FLOAT8_STEPS, per_channel, largest_scale)
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
            return DECODED
        name = node.input[0]
    return codings[name]
