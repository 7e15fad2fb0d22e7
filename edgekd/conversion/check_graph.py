"""Read a graph safely, and hold it against the spec of its runtime: every broken rule at once.

The rules are in export/specs/*.toml with their sources; here each is one function that yields what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from edgekd.conversion.avx2.weights import weight_can_saturate
from edgekd.conversion.graph_view import WEIGHTED_OPS, GraphView, attribute, label, views
from edgekd.documents.spec import Quantizers, Spec
from edgekd.errors import BundleError, ConversionError
from edgekd.runtimes.graph_file import load_graph


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, check it, and take its external data in.

    Raises:
        BundleError: the file is missing, too large or no valid ONNX graph, or its external data is missing or
            lies outside the file's folder.
    """
    model = load_graph(path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise BundleError(f"is not a valid ONNX graph: {_first_line(error)}", where=path) from None
    return model


def check_graph(model: onnx.ModelProto, spec: Spec, where: str | Path) -> None:
    """Hold a graph against a spec.

    Raises:
        ConversionError: with a line for every broken rule.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
    ) as error:
        raise ConversionError(f"is not a valid ONNX graph: {_first_line(error)}", where=where) from None
    problems = list(_opset(model, spec))
    if spec.quantizers is not None:
        problems += _quantizers(model, spec.quantizers)
    if problems:
        count = "1 rule" if len(problems) == 1 else f"{len(problems)} rules"
        message = "\n  ".join([f"breaks {count} of the dialect {spec.dialect}", *problems])
        raise ConversionError(message, where=where)


def _quantizers(model: onnx.ModelProto, rules: Quantizers) -> Iterator[str]:
    for view in views(model):
        for node in view.graph.node:
            match node.op_type:
                case "QuantizeLinear":
                    yield from _quantizer(view, node, rules)
                case "DequantizeLinear":
                    yield from _dequantizer(view, node, rules)
        yield from _shared(view, rules)


def _opset(model: onnx.ModelProto, spec: Spec) -> Iterator[str]:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    found = opsets.get("", opsets.get("ai.onnx"))
    if found != spec.opset:
        yield f"opset {found}; wanted: {spec.opset}"


def _quantizer(view: GraphView, node: onnx.NodeProto, rules: Quantizers) -> Iterator[str]:
    """An activation's quantizer: per tensor, with a dtype and zero point that the runtime has kernels for."""
    where = f"QuantizeLinear '{label(node)}'"
    if view.is_constant(node.input[0]):
        yield f"{where}: quantizes a constant; wanted: the constant in {' or '.join(rules.weight_dtypes)}"
    yield from _scale(view, node, where)
    scale = view.constant(node.input[1])
    if scale is not None and scale.size != 1:
        yield f"{where}: has {scale.size} scales; wanted: one, per tensor"
    readers = {reader.op_type for reader in view.consumers.get(node.output[0], [])} - {"DequantizeLinear"}
    if readers or view.is_output(node.output[0]):
        found = ", ".join(sorted(readers)) or "the graph's output"
        yield f"{where}: is read by {found}; wanted: DequantizeLinear alone"
    yield from _zero_point(view, node, rules, where)


def _zero_point(view: GraphView, node: onnx.NodeProto, rules: Quantizers, where: str) -> Iterator[str]:
    zero_point = zero_point_of(view, node)
    if zero_point is None:
        yield f"{where}: its zero point is missing or not a constant"
        return
    if zero_point.dtype.name not in rules.activation_dtypes:
        yield f"{where}: {zero_point.dtype.name}; allowed: {', '.join(rules.activation_dtypes)}"
    bad = sorted({int(value) for value in zero_point.flat} - set(rules.activation_zero_points))
    if bad:
        allowed = ", ".join(map(str, rules.activation_zero_points))
        yield f"{where}: zero point {', '.join(map(str, bad))}; allowed: {allowed}"


def _dequantizer(view: GraphView, node: onnx.NodeProto, rules: Quantizers) -> Iterator[str]:
    """A DequantizeLinear undoes a QuantizeLinear, or opens a constant weight or bias."""
    where = f"DequantizeLinear '{label(node)}'"
    yield from _scale(view, node, where)
    source = view.producer(node.input[0])
    codes = view.constant(node.input[0])
    if source is not None and source.op_type == "QuantizeLinear":
        if not _same_grid(view, source, node, any_scale=rules.factors):
            yield f"{where}: its scale or zero point is not that of '{label(source)}'"
    elif codes is None:
        yield f"{where}: reads neither a quantized tensor nor a constant"
    elif codes.dtype == np.int32:
        yield from _bias(view, node, rules, where)
    elif codes.ndim == 0:  # the other operand of an addition or a product of codes
        yield from _zero_point(view, node, rules, where)
    else:
        yield from _weight(view, node, codes, rules, where)


def _weight(
    view: GraphView, node: onnx.NodeProto, codes: np.ndarray, rules: Quantizers, where: str
) -> Iterator[str]:
    if codes.dtype.name not in rules.weight_dtypes:
        yield f"{where}: a weight in {codes.dtype.name}; allowed: {', '.join(rules.weight_dtypes)}"
    is_unsigned = codes.dtype == np.uint8 and "uint8" in rules.weight_dtypes
    yield from _weight_zero_point(view, node, 128 if is_unsigned else 0, where)
    exact = codes.dtype != np.int8 or rules.saturating_weights
    if not exact and weight_can_saturate(view, node.output[0], codes):
        yield f"{where}: an int8 weight that saturates on AVX2 without VNNI; wanted: uint8"
    axis, scale = _channel_axis(view, node.output[0], codes.ndim), view.constant(node.input[1])
    if axis is None or scale is None:
        return
    found = attribute(node, "axis", 1) % max(codes.ndim, 1)
    if scale.ndim != 1 or found != axis:
        per = "one scale" if scale.ndim == 0 else f"scales on axis {found}"
        yield f"{where}: a weight with {per}; wanted: a scale for each output channel, axis {axis}"


def _weight_zero_point(view: GraphView, node: onnx.NodeProto, wanted: int, where: str) -> Iterator[str]:
    """A zero point that is left out is 0."""
    zero_point = zero_point_of(view, node)
    given = len(node.input) > 2 and node.input[2] != ""
    if (given or wanted) and (zero_point is None or (zero_point != wanted).any()):
        yield f"{where}: a weight with a zero point other than {wanted}"


def _bias(view: GraphView, node: onnx.NodeProto, rules: Quantizers, where: str) -> Iterator[str]:
    """An int32 bias is added to the accumulator as it is: its scale must be that of input times weight."""
    for reader in view.consumers.get(node.output[0], []):
        if reader.op_type not in rules.int32_bias_ops or reader.input[2:3] != [node.output[0]]:
            allowed = ", ".join(rules.int32_bias_ops) or "none"
            yield f"{where}: an int32 constant for {reader.op_type}; allowed for the bias of: {allowed}"
        elif not _is_accumulator_scale(view, node, reader):
            yield f"{where}: its scale is not that of input times weight of '{label(reader)}'"


def _is_accumulator_scale(view: GraphView, node: onnx.NodeProto, reader: onnx.NodeProto) -> bool:
    scales = [view.constant(node.input[1])]
    for name in reader.input[:2]:
        source = view.producer(name)
        is_dequantizer = source is not None and source.op_type == "DequantizeLinear"
        scales.append(view.constant(source.input[1]) if source is not None and is_dequantizer else None)
    bias, activation, weight = scales
    if bias is None or activation is None or weight is None:
        return False
    return bool(np.allclose(bias, activation * weight, rtol=1e-5, atol=0))


def _scale(view: GraphView, node: onnx.NodeProto, where: str) -> Iterator[str]:
    scale = view.constant(node.input[1])
    if scale is None:
        yield f"{where}: its scale is not a constant"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield f"{where}: a scale that is not a positive number"


def _shared(view: GraphView, rules: Quantizers) -> Iterator[str]:
    if not rules.shared_quantizer:
        return
    for name, readers in view.consumers.items():
        quantizers = [node for node in readers if node.op_type == "QuantizeLinear" and node.input[0] == name]
        if len(quantizers) > 1:
            yield f"tensor '{name}': has {len(quantizers)} quantizers; wanted: one that its readers share"


def zero_point_of(view: GraphView, node: onnx.NodeProto) -> np.ndarray | None:
    """Zero point of a QuantizeLinear or DequantizeLinear; None when it is left out or no constant."""
    return view.constant(node.input[2]) if len(node.input) > 2 else None


def _same_grid(
    view: GraphView, quantizer: onnx.NodeProto, dequantizer: onnx.NodeProto, *, any_scale: bool
) -> bool:
    """Whether codes are opened with the scale and zero point that they were made with."""
    first = 2 if any_scale else 1
    for one, other in zip(quantizer.input[first:3], dequantizer.input[first:3], strict=False):
        if one == other:
            continue
        left, right = view.constant(one), view.constant(other)
        if left is None or right is None or left.dtype != right.dtype:
            return False
        # Where scales may differ, they may be written out for every channel too (see float_layers.py).
        alike = any_scale and left.size == 1 and bool((right == left.reshape(())).all())
        if not alike and not np.array_equal(left, right):
            return False
    return len(quantizer.input) == len(dequantizer.input)


def _channel_axis(view: GraphView, name: str, rank: int) -> int | None:
    """Output-channel axis of a constant, if an operator reads it as its weight, perhaps transposed."""
    for reader in view.consumers.get(name, []):
        if reader.op_type == "Transpose":
            axis = _channel_axis(view, reader.output[0], rank)
            permutation = [list(entry.ints) for entry in reader.attribute if entry.name == "perm"]
            order = permutation[0] if permutation else list(range(rank))[::-1]
            return None if axis is None else order[axis]
        if reader.op_type in WEIGHTED_OPS and reader.input[1] == name:
            match reader.op_type:
                case "Conv":
                    return 0
                case "ConvTranspose":
                    return 1
                case "Gemm":
                    return 0 if attribute(reader, "transB", 0) else 1
                case _:
                    return rank - 1
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
