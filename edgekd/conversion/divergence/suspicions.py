"""What is wrong with a layer: every sign that it parts from its reference, the likely causes in words.

A layer parts when it does more than quantization does to it. Its operators are held against the
reference's on the same inputs: their error may be that of the reference's own weights rounded to the same
number of bits, and some. Its quantizer is held against the values that it meets, and against that of the
student where that is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import onnx

from edgekd.conversion.divergence.constants import ConstantPair
from edgekd.conversion.divergence.examine import Examination, Examined, Met
from edgekd.conversion.divergence.grid import Grid, grid_of
from edgekd.conversion.divergence.ranges import Fit, Ranges
from edgekd.conversion.divergence.student import StudentLayer
from edgekd.conversion.divergence.sums import Difference
from edgekd.conversion.divergence.weights import how_it_differs
from edgekd.conversion.graph_view import label

_MARGIN = 6.0
"""Times the power of the rounding error of weights that their layer's error may have: other ways to round."""
_BLURRED = 0.01
"""Share of a layer's power that its error may have where it has quantizers that the reference cannot show."""
_NOTHING = 1e-20
"""Power below every value of a network."""
_SAME_SCALE = 0.01
"""Relative difference up to which two scales are the same."""


class Suspicion(NamedTuple):
    """One thing that is wrong with a layer."""

    where: Literal["values", "weights", "operation", "quantizer"]
    text: str


def suspicions(
    found: Examination, one: Examined, ranges: Ranges | None, student: StudentLayer | None
) -> list[Suspicion]:
    """Everything that is wrong with a layer, the likeliest cause first.

    Args:
        found: the examination that it is part of.
        one: the layer.
        ranges: what the graph's quantizers meet; None where the examples are no data of the network's.
        student: the layer of the trained student, where that is known.
    """
    signs = list(_not_finite(one))
    if one.pair is not None and not signs:
        signs += _operation(found, one)
    return [*signs, *_quantizer(found, one, ranges, student)]


def _not_finite(one: Examined) -> Iterator[Suspicion]:
    if one.local.count and not one.local.is_finite:
        yield Suspicion("values", "it yields values that are not finite numbers")


def _operation(found: Examination, one: Examined) -> Iterator[Suspicion]:
    """Constants that are others, and operators that do something else with the same constants."""
    same = one.alike and one.unknown_steps is None
    wrong = [pair for pair in one.constants if pair.differs and (not same or _matters(one, pair))]
    if same:
        yield from (Suspicion("weights", how_it_differs(pair)) for pair in wrong)
    if _errs(one.structure, _exactness(one)) if same else _errs(one.operation, _roughness(one)):
        causes = [*_structure(found, one), *(how_it_differs(pair) for pair in wrong if not same)]
        yield from (Suspicion("operation", text) for text in causes or [_unexplained(one)])


def _matters(one: Examined, pair: ConstantPair) -> bool:
    """Whether another constant does more than rounding: tools correct biases by what rounding shifts."""
    if pair.role != "bias" or pair.is_lost:
        return True
    step = 0.0 if one.grid is None else one.grid.scale
    shift = float(((pair.candidate.astype(np.float64) - pair.reference) ** 2).mean())
    return shift > _MARGIN * (one.rounding.mean(one.rounding.error) + step**2 / 12)


def _errs(sums: Difference, allowed: float) -> bool:
    """Whether the mean square of a difference is more than it may be."""
    return sums.count > 0 and sums.mean(sums.error) > allowed + _NOTHING


def _exactness(one: Examined) -> float:
    """Mean square of the error that the same operators may make with the same constants."""
    power = one.structure.mean(one.structure.power)
    return power * (one.precision**2 + (_BLURRED if one.blurred else 0.0))


def _roughness(one: Examined) -> float:
    """Mean square of the error that other operators may make that compute the same of rounded constants."""
    power = one.operation.mean(one.operation.power)
    allowed = _MARGIN * one.rounding.mean(one.rounding.error)
    allowed += power * (one.precision**2 + (_BLURRED if one.blurred else 0.0))
    if one.through_grid and one.grid is not None:
        allowed += one.grid.scale**2 / 4  # the codes of two values that hardly differ
    if one.unknown_steps is not None:
        allowed += power * (6 / one.unknown_steps) ** 2 / 12
    return allowed


def _structure(found: Examination, one: Examined) -> Iterator[str]:
    """In which way a layer's operators are others than the reference's."""
    for name in one.lacking:
        node = found.reference.tensors[name].node
        folded = ", and is not folded" if node.op_type == "BatchNormalization" else ""
        yield f"{node.op_type} '{label(node)}' of the reference is missing{folded}"
    for name in one.added:
        node = found.candidate.form.tensors[name].node
        yield f"it has {node.op_type} '{label(node)}', which the reference has not"
    cores = {pair.core[0]: pair.core[1] for pair in found.match.pairs}
    for name in one.layer.tensors:
        if name in cores:
            mine, theirs = found.candidate.form.tensors[name].node, found.reference.tensors[cores[name]].node
            yield from _attributes(mine, theirs)


def _attributes(mine: onnx.NodeProto, theirs: onnx.NodeProto) -> Iterator[str]:
    if mine.op_type != theirs.op_type:
        if {mine.op_type, theirs.op_type} == {"Relu", "Clip"}:
            yield f"it has {mine.op_type} where the reference has {theirs.op_type} '{label(theirs)}'"
        return
    both = [
        {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute} for node in (mine, theirs)
    ]
    for name in sorted(both[0].keys() & both[1].keys()):
        one, other = both[0][name], both[1][name]
        if isinstance(one, int | float | list | bytes) and one != other:
            yield f"its {name} is {_shown(one)}, the reference's {_shown(other)}"


def _shown(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _unexplained(one: Examined) -> str:
    found, expected = one.operation.sqnr_db, one.rounding.sqnr_db
    should = "no difference" if expected is None else f"{expected:.0f} dB"
    got = "all" if found is None else f"{found:.0f} dB"
    return (
        f"its operators yield something else on the same inputs ({got}; rounding its weights gives {should})"
    )


def _quantizer(
    found: Examination, one: Examined, ranges: Ranges | None, student: StudentLayer | None
) -> Iterator[Suspicion]:
    for text in (*_bad_scales(one), *_halves(found, one), *_grids(one, ranges, student)):
        yield Suspicion("quantizer", text)


def _bad_scales(one: Examined) -> Iterator[str]:
    for tensor in one.layer.quantizers:
        assert tensor.quantizer is not None
        scale = tensor.view.constant(tensor.quantizer.input[1])
        if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
            yield f"its scale {float(scale.reshape(-1)[0]):g} is no positive number"


def _halves(found: Examination, one: Examined) -> Iterator[str]:
    """Quantizers whose two halves are not of one grid.

    Another scale may be a product with a constant: it is none of the reference's where its values are known.
    """
    products = {pair.core[0] for pair in found.match.pairs}
    for tensor in one.layer.quantizers:
        grid = grid_of(tensor)
        for node, (scale, zero_point) in zip(
            tensor.dequantizers, grid.opened_with if grid else (), strict=False
        ):
            assert grid is not None
            factor = scale / grid.scale
            known = one.values is not None and node.output[0] not in products
            if known and not math.isclose(factor, 1, rel_tol=1e-5):
                yield f"DequantizeLinear has {factor:.3g} times the scale of its QuantizeLinear"
            if zero_point != grid.zero_point:
                yield f"DequantizeLinear has zero point {zero_point}, its QuantizeLinear {grid.zero_point}"


def _grids(one: Examined, ranges: Ranges | None, student: StudentLayer | None) -> Iterator[str]:
    for met in one.met:
        if student is not None:
            yield from _against_student(met.grid, student)
            continue
        if ranges is None:
            continue
        if ranges.stands_out(met):
            yield f"its zero point is {met.grid.zero_point}, where those of all others are 0 or in the middle"
        fit = ranges.fit(met)
        if fit is not None:
            yield from _against_data(met, fit)


def _against_student(grid: Grid, layer: StudentLayer) -> Iterator[str]:
    student = layer.grid
    ratio = grid.scale / student.scale
    if abs(ratio - 1) > _SAME_SCALE:
        yield (
            f"its scale is {ratio:.3g} times that of {layer.whose} "
            f"({grid.scale:.4g} in the place of {student.scale:.4g})"
        )
    if grid.dtype == student.dtype and grid.zero_point != student.zero_point:
        yield f"its zero point is {grid.zero_point}, that of {layer.whose} {student.zero_point}"


def _against_data(met: Met, fit: Fit) -> Iterator[str]:
    grid, extent = met.grid, met.extent
    held = max(abs(limit) for limit in grid.limits)
    seen = f"amax {fit.amax:.3g} on these examples, the quantizer's {held:.3g}"
    if fit.is_coarse:
        yield f"its scale is {fit.ratio:.2g} times what the data give ({seen})"
    elif fit.is_noisy and extent.saturated > 0:
        yield (
            f"it saturates: {100 * extent.saturated:.2g} % of its values lie beyond its codes; "
            f"its scale is {fit.ratio:.2g} times what the data give ({seen})"
        )
    elif fit.is_noisy:
        yield f"it adds {10 * math.log10(fit.excess):.0f} dB more noise than a scale from these data would"
