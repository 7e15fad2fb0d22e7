"""One set of scales, several dialects: rewrite the canonical int8 graph into the form that a runtime wants.

The canonical graph is the TensorRT one: int8, zero point 0, float biases. ONNX Runtime's CPU provider fuses
Conv, Relu and QuantizeLinear only where the quantizer makes the Relu redundant: where its zero point is its
type's least value (IsClipMadeRedundantByQ in onnxruntime's qdq_util). So a tensor that cannot be negative
gets uint8 with zero point 0, any other uint8 with zero point 128, the same grid moved; the scales stay.
A Gemm whose output stays float becomes QGemm only with an int32 bias, at the scale of input times weight.
For AVX2 without VNNI, which saturates on pairs of U8S8 products, such weights move to uint8 as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.conversion.avx2.weights import weight_can_saturate
from edgekd.conversion.check_graph import check_graph
from edgekd.conversion.edit_graph import free_name
from edgekd.conversion.float_layers import keep_float_layers
from edgekd.conversion.graph_view import GraphView, attribute, views
from edgekd.conversion.hard_swish import write_hard_swish_in_int8
from edgekd.conversion.int4_weights import pack_int4
from edgekd.conversion.pad_channels import pad_channels
from edgekd.conversion.specs import load_spec
from edgekd.documents.rewrites import resolve
from edgekd.documents.spec import Int8Dialect
from edgekd.errors import ConversionError
from edgekd.files import write_bytes

_NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax"})
_CARRY_FIRST = frozenset(
    {
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Identity"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
_CARRY_ALL = frozenset({"Concat", "Add", "Mul"})
_INT32_MAX = 2**31 - 1


def to_dialect(
    canonical: onnx.ModelProto, dialect: Int8Dialect, rewrites: Mapping[str, bool] = {}
) -> onnx.ModelProto:
    """A copy of the canonical graph in a dialect; the canonical graph itself is left as it is.

    Args:
        canonical: what `export_int8` writes.
        dialect: the form to write.
        rewrites: a scheme's choices of rewrites (documents/rewrites.py); the others as by default.

    Raises:
        UsageError: a name is no rewrite.
        ConversionError: the graph is not canonical; the message names every node that is not.
    """
    wanted = resolve(rewrites)
    if len(list(views(canonical))) > 1:
        raise ConversionError("has an If, a Loop or a Scan", where="canonical graph")
    check_graph(canonical, load_spec("tensorrt"), "canonical graph")
    model = onnx.ModelProto()
    model.CopyFrom(canonical)
    match dialect:
        case "tensorrt-s8":
            pass
        case "onnxruntime-u8" | "onnxruntime-u8u8":
            _use_unsigned_activations(model.graph)
            write_hard_swish_in_int8(model.graph)
            if wanted["pad_channels"]:
                pad_channels(model.graph)
            if dialect == "onnxruntime-u8u8":
                _use_unsigned_weights(model.graph)
            _quantize_gemm_biases(model.graph)
            keep_float_layers(model.graph)
            _drop_unused_initializers(model.graph)
            pack_int4(model.graph)
        case _:
            assert_never(dialect)
    return model


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph atomically; the same graph always gives the same bytes.

    Raises:
        ConversionError: the graph is larger than a protobuf message can be.
        StorageError: the disk is full or the folder is not writable.
    """
    try:
        data = model.SerializeToString(deterministic=True)
    except ValueError:
        raise ConversionError("the graph is larger than 2 GiB", where=path) from None
    write_bytes(path, data)


def non_negative_tensors(view: GraphView) -> set[str]:
    """Names of the tensors that cannot be negative, by what makes them; quantizers carry this on."""
    found: set[str] = set()
    for node in view.graph.node:
        if _is_non_negative(view, node, found):
            found.update(node.output)
    return found


def _is_non_negative(view: GraphView, node: onnx.NodeProto, found: set[str]) -> bool:
    if node.op_type in _NON_NEGATIVE:
        return True
    if node.op_type == "Clip":
        least = view.constant(node.input[1]) if len(node.input) > 1 else None
        return least is not None and bool(least.min() >= 0)
    if node.op_type in _CARRY_FIRST:
        return node.input[0] in found
    return node.op_type in _CARRY_ALL and found.issuperset(node.input)


def _use_unsigned_activations(graph: onnx.GraphProto) -> None:
    view = GraphView.of(graph)
    non_negative = non_negative_tensors(view)
    zero_points = {value: free_name(view, f"zero_point_uint8_{value}") for value in (0, 128)}
    for value, name in zero_points.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.uint8), name))
    unsigned = set()
    for node in graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        zero_point = zero_points[0 if node.input[0] in non_negative else 128]
        unsigned.add(node.output[0])
        for user in [node, *view.consumers.get(node.output[0], [])]:
            user.input[2] = zero_point
        _drop_attribute(node, "output_dtype")
    for info in graph.value_info:
        if info.name in unsigned:
            info.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _use_unsigned_weights(graph: onnx.GraphProto) -> None:
    """int8 weights that saturate in unsigned codes: the same grid, moved up by 128 as their zero point is.

    Those that cannot saturate stay as they are, for their kernels are the faster ones.
    """
    view = GraphView.of(graph)
    moved: dict[tuple[str, str], list[str]] = {}
    for node in graph.node:
        codes = view.constant(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None or codes.dtype != np.int8 or not weight_can_saturate(view, node.output[0], codes):
            continue
        key = node.input[0], node.input[1]
        if key not in moved:
            moved[key] = [free_name(view, f"{key[0]}_uint8_{len(moved)}{end}") for end in ("", "_zero_point")]
            zero_points = np.full_like(view.constant(key[1]), 128, np.uint8)
            values = codes.view(np.uint8) ^ np.uint8(128), zero_points
            for name, value in zip(moved[key], values, strict=True):
                graph.initializer.append(numpy_helper.from_array(value, name))
        node.input[:] = [moved[key][0], node.input[1], moved[key][1]]


def _quantize_gemm_biases(graph: onnx.GraphProto) -> None:
    view = GraphView.of(graph)
    nodes = []
    for node in graph.node:
        scale = _accumulator_scale(view, node)
        bias = view.constant(node.input[2]) if scale is not None else None
        if scale is not None and bias is not None:
            codes = np.rint(bias.astype(np.float64) / scale)
            # A bias that int32 cannot hold stays float: the Gemm then runs in float and the audit says why.
            if bias.shape == scale.shape and np.abs(codes).max() <= _INT32_MAX:
                nodes.append(_int32_bias(graph, view, node, codes.astype(np.int32), scale))
        nodes.append(node)
    nodes = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def _accumulator_scale(view: GraphView, node: onnx.NodeProto) -> np.ndarray | None:
    """Scale (N,) of the int32 accumulator of a plain Gemm with a bias; None for any other node."""
    if node.op_type != "Gemm" or len(node.input) < 3 or _has_factor(node) or attribute(node, "transA", 0):
        return None
    sources = [view.producer(name) for name in node.input[:2]]
    scales = [
        view.constant(source.input[1])
        for source in sources
        if source is not None and source.op_type == "DequantizeLinear"
    ]
    if len(scales) < 2 or scales[0] is None or scales[1] is None or scales[1].ndim != 1:
        return None
    return np.asarray(scales[0].reshape(()) * scales[1], np.float32)


def _has_factor(node: onnx.NodeProto) -> bool:
    return any(entry.name in ("alpha", "beta") and entry.f != 1.0 for entry in node.attribute)


def _int32_bias(
    graph: onnx.GraphProto, view: GraphView, node: onnx.NodeProto, codes: np.ndarray, scale: np.ndarray
) -> onnx.NodeProto:
    """Give `node` an int32 bias and return the DequantizeLinear that opens it."""
    stem = f"{node.output[0]}_bias"
    names = [free_name(view, f"{stem}_{suffix}") for suffix in ("int32", "scale", "dequantized")]
    for name, value in zip(names, (codes, scale), strict=False):
        graph.initializer.append(numpy_helper.from_array(value, name))
    node.input[2] = names[2]
    return helper.make_node("DequantizeLinear", names[:2], names[2:], name=names[2], axis=0)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [entry for entry in node.attribute if entry.name != name]
    if len(kept) != len(node.attribute):
        del node.attribute[:]
        node.attribute.extend(kept)


def _drop_unused_initializers(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
