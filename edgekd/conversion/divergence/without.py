"""A candidate in which some layers are not quantized, or are quantized as they should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.conversion.divergence.constants import ConstantPair
from edgekd.conversion.divergence.examine import Examination
from edgekd.conversion.divergence.grid import grid_of
from edgekd.conversion.divergence.layers import Candidate, Layer
from edgekd.conversion.divergence.ranges import Ranges
from edgekd.conversion.divergence.skeleton import MOVERS
from edgekd.conversion.remove_quantizers import remove_quantizers

Part = Literal["weights", "activations"]

_NEW = "reference::"


@dataclass(frozen=True)
class Group:
    """What belongs to one layer."""

    number: int
    name: str
    activations: frozenset[str]
    """Names of the quantized tensors that carry what it gives."""
    codes: frozenset[str]
    """Names of its quantized constants."""
    constants: tuple[ConstantPair, ...]
    """Its constants beside the reference's."""


def groups_of(found: Examination) -> list[Group]:
    """The layers that have quantizers or constants, in order."""
    candidate = found.candidate
    constant = [one for one in candidate.quantized if one.kind == "constant"]
    names = {node.output[0]: one.name for one in constant for node in one.dequantizers}
    groups = []
    for number, one in enumerate(found.layers):
        activations = frozenset(_carried(candidate, one.layer)) if one.layer.quantizers else frozenset()
        codes = frozenset(_codes(candidate, one.layer, names))
        if activations or codes or one.constants:
            groups.append(Group(number, one.layer.name, activations, codes, tuple(one.constants)))
    return groups


def without(model: onnx.ModelProto, groups: Iterable[Group], part: Part | None = None) -> onnx.ModelProto:
    """A copy of a graph in which layers are not quantized, and have the reference's constants.

    Args:
        model: the candidate, or its `healthy` form.
        groups: the layers.
        part: only their constants, or only what they give; None takes both.
    """
    chosen = list(groups)
    activations = {name for group in chosen for name in group.activations} if part != "weights" else set()
    given = chosen if part != "activations" else []
    copy = remove_quantizers(model, activations | {name for group in given for name in group.codes})
    _put(copy, ((pair, pair.reference) for group in given for pair in group.constants))
    return copy


def healthy(found: Examination, groups: Iterable[Group]) -> onnx.ModelProto:
    """The candidate as it should be: steps that data give, and the reference's constants rounded in float.

    It shows how far quantization of this kind has to be from the reference.
    """
    chosen = list(groups)
    copy = remove_quantizers(found.candidate.model, {name for group in chosen for name in group.codes})
    _put(copy, ((pair, pair.rounded_reference()) for group in chosen for pair in group.constants))
    ranges = Ranges(found.layers)
    scales = {}
    for one in found.layers:
        for tensor, met in zip(one.layer.quantizers, one.met, strict=False):
            fit = ranges.fit(met)
            if fit is not None and tensor.quantizer is not None:
                nodes = (tensor.quantizer, *tensor.dequantizers)
                scales.update({node.output[0]: np.float32(met.grid.scale / fit.ratio) for node in nodes})
    for node in copy.graph.node:
        if node.output and node.output[0] in scales:
            node.input[1] = _constant(copy, f"{node.output[0]}:scale", np.asarray(scales[node.output[0]]))
    return copy


def _put(model: onnx.ModelProto, values: Iterable[tuple[ConstantPair, np.ndarray]]) -> None:
    """Give operators other constants."""
    made = {name: node for node in model.graph.node for name in node.output}
    for pair, value in values:
        tensor, position = pair.places[0]
        if pair.comparable and tensor in made:
            made[tensor].input[position] = _constant(model, f"{tensor}:{position}", pair.as_stored(value))


def _constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    name = f"{_NEW}{name}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def _carried(candidate: Candidate, layer: Layer) -> Iterator[str]:
    """What a layer gives, and the tensors with the same scale that it becomes by being moved."""
    grid = grid_of(layer.quantizers[0])
    by_end = {one.end: one for one in candidate.layers}
    waiting, seen = [layer.end], {layer.end}
    while waiting:
        name = waiting.pop()
        yield name
        for node in candidate.form.readers(name):
            moved = [one for one in node.output if one in by_end] if node.op_type in MOVERS else []
            for one in moved:
                quantizers = by_end[one].quantizers
                if one not in seen and (not quantizers or grid_of(quantizers[0]) == grid):
                    seen.add(one)
                    waiting.append(one)


def _codes(candidate: Candidate, layer: Layer, names: dict[str, str]) -> Iterator[str]:
    """Names of the quantized constants that a layer's operators read."""
    for made in layer.tensors:
        node = candidate.view.producers.get(made)
        for name in node.input if node is not None else ():
            while name not in names:
                source = candidate.view.producer(name)
                if source is None or source.op_type not in MOVERS or not candidate.view.is_constant(name):
                    break
                name = source.input[0]
            if name in names:
                yield names[name]
