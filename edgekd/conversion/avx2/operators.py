"""The operators that hold int8 products in ONNX Runtime's graphs, done in NumPy.

Each one is: sums of products of codes (avx2.products), an int32 bias, the scales in float32, and then codes
again, rounded half to even, or floats. Only uint8 activations with int8 weights are done here, since only
their products saturate. Without saturation the answers are those that ONNX Runtime gives with VNNI, bit for
bit where they are codes. Sources: onnxruntime's docs/ContribOperators.md, core/providers/cpu/quantization
and core/mlas/lib/quantize.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edgekd.conversion.avx2.convolution import convolve, filters_can_saturate
from edgekd.conversion.avx2.products import Products, can_saturate, multiply

Array = npt.NDArray[Any]

_INPUTS = {
    "QLinearConv": ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "int32_bias"),
    "QLinearMatMul": ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"),
    "QGemm": ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "int32_bias", "y_scale", "y_zero"),
    "MatMulIntegerToFloat": ("x", "w", "x_scale", "w_scale", "x_zero", "w_zero", "bias"),
    "MatMulInteger": ("x", "w", "x_zero", "w_zero"),
}
"""Operator to its inputs, in order, by what they mean."""


@dataclass(frozen=True)
class Answer:
    """What an operator makes of a batch, of how many pairs of products, and how many of them were clipped."""

    y: Array
    pairs: int
    saturated: int


def is_int8_product(node: onnx.NodeProto) -> bool:
    """Whether an operator is one of those that `apply` does."""
    return node.op_type in _INPUTS


def operands(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> dict[str, Array]:
    """Inputs of an int8 operator by what they mean; a zero point that is left out is 0."""
    names = _INPUTS[node.op_type]
    given = {name: np.asarray(value) for name, value in zip(names, inputs, strict=False) if value is not None}
    return {"x_zero": np.zeros((), np.uint8), "w_zero": np.zeros((), np.int8), **given}


def can_apply(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> bool:
    """Whether an operator has uint8 activations with one zero point, and int8 filters or an int8 matrix."""
    if not is_int8_product(node):
        return False
    given = operands(node, inputs)
    types = given["x"].dtype.name, given["w"].dtype.name
    is_known = node.op_type == "QLinearConv" or given["w"].ndim == 2
    return types == ("uint8", "int8") and is_known and given["x_zero"].size == 1


def weights_can_saturate(node: onnx.NodeProto, w: Array) -> bool:
    """Whether some activations make an int8 operator with these int8 weights saturate."""
    attributes = _attributes(node)
    if node.op_type == "QLinearConv":
        return filters_can_saturate(w, attributes.get("group", 1))
    return can_saturate(w.T if attributes.get("transB", 0) else w)


def apply(node: onnx.NodeProto, inputs: Sequence[Array | None], *, saturate: bool) -> Answer:
    """Do an int8 operator on its inputs, in the operator's order; None stands for one that is left out."""
    given, attributes = operands(node, inputs), _attributes(node)
    products = (_convolve if node.op_type == "QLinearConv" else _multiply)(given, attributes, saturate)
    y = _scaled(products.sums, given, attributes.get("alpha", 1.0))
    if node.op_type == "QLinearConv" and not attributes.get("channels_last", 0):
        y = np.moveaxis(y, -1, 1)
    return Answer(y, products.pairs, products.saturated)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _convolve(given: Mapping[str, Array], attributes: Mapping[str, Any], saturate: bool) -> Products:
    x = given["x"] if attributes.get("channels_last", 0) else np.moveaxis(given["x"], 1, -1)
    zero, w_zeros = int(given["x_zero"].reshape(())), given["w_zero"].reshape(-1)
    return convolve(x, given["w"], zero, w_zeros, attributes, saturate=saturate)


def _multiply(given: Mapping[str, Array], attributes: Mapping[str, Any], saturate: bool) -> Products:
    x = given["x"].T if attributes.get("transA", 0) else given["x"]
    w = given["w"].T if attributes.get("transB", 0) else given["w"]
    zero, w_zeros = int(given["x_zero"].reshape(())), given["w_zero"].reshape(-1)
    rows = x.reshape(-1, x.shape[-1])
    products = multiply(rows, w, zero=zero, weight_zeros=w_zeros, saturate=saturate)
    return replace(products, sums=products.sums.reshape(*x.shape[:-1], -1))


def _scaled(sums: Array, given: Mapping[str, Array], alpha: float) -> Array:
    """Codes; floats where the output has no scale, or the sums where nothing has."""
    sums = sums + given.get("int32_bias", np.int32(0))
    if "x_scale" not in given:
        return sums
    scale = np.float32(alpha) * given["x_scale"] * given["w_scale"]
    if "y_scale" not in given:
        return sums.astype(np.float32) * scale + given.get("bias", np.float32(0))
    zero = int(given["y_zero"].reshape(()))
    steps = np.rint(sums.astype(np.float32) * (scale / given["y_scale"]))
    return (steps.clip(-zero, 255 - zero) + np.float32(zero)).astype(np.uint8)
