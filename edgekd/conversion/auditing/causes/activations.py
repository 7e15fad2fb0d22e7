"""Causes in what an operator reads, and in how its input and output go together.

Sources: onnxruntime core/optimizer/qdq_transformer (qdq_s8_to_u8, ensure_unique_dq_for_node_unit,
selectors_actions/qdq_selectors), and the optimized graphs of onnxruntime 1.31.1, one test a cause.
"""

from __future__ import annotations

import onnx

from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.lookup import (
    LAYOUT,
    code_type,
    codes_of,
    dequantizer_of,
    element_type,
    input_of,
    readers_of,
    weight_of,
)
from edgekd.conversion.graph_view import GraphView, label


def input_not_quantized(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An input without a DequantizeLinear right before the operator."""
    name = input_of(view, node)
    source = view.producer(name)
    if source is not None and source.op_type == "DequantizeLinear":
        return None
    if source is not None and source.op_type in LAYOUT and dequantizer_of(view, name) is not None:
        text = f"{source.op_type} '{label(source)}' is between it and its input's DequantizeLinear"
        advice = f"repeat QuantizeLinear and DequantizeLinear after the {source.op_type}"
        return because("layout-before-operator", text, advice)
    made_by = f", made by {source.op_type} '{label(source)}'," if source is not None else ""
    return because("input-not-quantized", f"its input '{name}'{made_by} has no DequantizeLinear")


def activation_type(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An input of another type than 8 bits."""
    found = code_type(view, input_of(view, node))
    if found in ("int8", "uint8"):
        return None
    return because("activation-type", f"its input is quantized to {found}")


def activation_per_channel(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An input or output with a scale for each channel; kernels take one."""
    quantizers = [("input", dequantizer_of(view, input_of(view, node)))]
    quantizers += [("output", reader) for reader in readers_of(view, node) if _is_quantizer(reader)]
    for place, quantizer in quantizers:
        scale = None if quantizer is None else view.constant(quantizer.input[1])
        if scale is not None and scale.size > 1:
            return because("activation-per-channel", f"its {place} has {scale.size} scales, not one")
    return None


def scale_not_constant(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A scale or zero point that is computed."""
    for place, name in (("input", input_of(view, node)), ("weight", weight_of(view, node))):
        source = dequantizer_of(view, name)
        parts = [] if source is None else [part for part in source.input[1:] if part]
        if any(not view.is_constant(part) for part in parts):
            return because("scale-not-constant", f"a scale or zero point of its {place} is not a constant")
    return None


def dynamic(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An input whose scale is found anew at each run."""
    if node.op_type == "DynamicQuantizeMatMul":
        return because("dynamic-quantization")
    sources = (view.producer(name) for name in node.input)
    found = any(source is not None and source.op_type == "DynamicQuantizeLinear" for source in sources)
    return because("dynamic-quantization") if found else None


def signed_activations(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An operator on codes that reads int8 on x86, where ONNX Runtime's fast kernels read uint8."""
    if node.op_type not in ("QLinearConv", "QLinearMatMul") or len(node.input) < 3:
        return None
    if element_type(view, node.input[2]) != "int8":
        return None
    text = "its activations are int8, for which ONNX Runtime has no fast kernel on this processor"
    return because("signed-activations", text)


def signed_codes(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """int8 codes on x86, which ONNX Runtime computes with in uint8 alone.

    It moves a pair of QuantizeLinear and DequantizeLinear from int8 to uint8 where the codes have one reader
    and both zero points are written; other codes stay int8, and an operator that reads or writes them float.
    """
    ends = _ends(view, node)
    stays = [(place, _stays(view, quantizer)) for place, quantizer in ends]
    if node.op_type == "Gemm" and (ends[1][1] is None or len({why is None for _, why in stays}) == 1):
        return None  # QGemm reads int8 too, as long as it writes what it reads, or floats
    for place, why in stays:
        if why is not None:
            text = f"the int8 codes of its {place} {why}; ONNX Runtime does not move such codes to uint8,"
            return because("signed-codes", f"{text} for which alone it has kernels on this processor")
    return None


def mixed_types(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An input and an output in different codes."""
    (_, source), (_, quantizer) = _ends(view, node)
    before = None if source is None else codes_of(view, source)
    after = None if quantizer is None else codes_of(view, quantizer)
    if before is None or after is None or before == after:
        return None
    return because("mixed-types", f"its input is {before} and its output {after}")


def mixed_with_weight(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """Codes of input and weight that no kernel takes together: int8 input with uint8 weight."""
    weight, activation = (code_type(view, name) for name in (weight_of(view, node), input_of(view, node)))
    if (activation, weight) != ("int8", "uint8"):
        return None
    return because("weight-type", f"its weight is {weight} and its input {activation}")


def _ends(
    view: GraphView, node: onnx.NodeProto
) -> tuple[tuple[str, onnx.NodeProto | None], tuple[str, onnx.NodeProto | None]]:
    """The quantizers of an operator's input and output."""
    opened = dequantizer_of(view, input_of(view, node))
    made = None if opened is None else view.producer(opened.input[0])
    readers = readers_of(view, node)
    after = readers[0] if len(readers) == 1 and _is_quantizer(readers[0]) else None
    return ("input", made if made is not None and _is_quantizer(made) else opened), ("output", after)


def _stays(view: GraphView, quantizer: onnx.NodeProto | None) -> str | None:
    """Why the codes of a quantizer stay int8; None where they are or become uint8, or where there is none."""
    if quantizer is None or codes_of(view, quantizer) != "int8":
        return None
    if not _is_quantizer(quantizer):
        return "come into the graph as they are"
    opened = view.consumers.get(quantizer.output[0], [])
    if any(len(node.input) < 3 or not node.input[2] for node in [quantizer, *opened]):
        return "have a quantizer without a zero point"
    count = sum(_edges(view, node) for node in opened)
    return f"have {count} readers" if count > 1 else None


def _edges(view: GraphView, node: onnx.NodeProto) -> int:
    """How often the first output of a node is read, the graph's output counted."""
    name = node.output[0]
    readers = sum(list(reader.input).count(name) for reader in view.consumers.get(name, []))
    return max(1, readers + view.is_output(name))


def _is_quantizer(node: onnx.NodeProto) -> bool:
    return bool(node.op_type == "QuantizeLinear")
