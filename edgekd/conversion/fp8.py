"""The canonical int8 graph in FP8: every quantizer and weight as float8 (E4M3), for TensorRT on SM >= 89.

    activation   scale = amax / 448, per tensor, where the int8 scale is amax / 127
    weight       scale = max|w| / 448, per output channel, stored as float8; w is what the int8 codes say
    value        scale * e4m3(x / scale), saturated at 448; biases stay in float

Three binary digits follow the leading one, so that a value is off by at most 1/16 of itself, small or large,
where int8 is off by at most half a step of amax / 127. Where the scales fit, int8 is therefore the closer of
the two: on seven small networks the logits of FP8 were 2.5 to 5.4 times as far from fp32 (mean difference).
FP8 is for tensors whose few large values leave int8 no steps for the others. That the weights were rounded to
int8 first does not show: rounded from float instead, the logits were 0.9 to 1.3 times as far.
Sources: ONNX, "Float stored in 8 bits" and QuantizeLinear; Micikevicius et al., arXiv 2209.05433.
tensorrt-rtx 1.7.1 parses such graphs (convolutions, also depthwise; linear maps; attention) and builds them
for SM 89 and above; for SM 86 and below its builder answers that fp8_e4m3 is not there. ONNX Runtime runs
them on a CPU as written, each operator in float between its quantizers: for parity, not for speed. With its
optimizations on, 1.31.1 refuses them: it forms operators that have no float8 kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.e4m3 import LARGEST, to_e4m3
from edgekd.conversion.graph_view import GraphView, attribute
from edgekd.errors import UsageError

LEAST_SM = 89
"""First compute capability with FP8 tensor cores."""
_CODE_MAX = 127
_SMALLEST_SCALE = 2.0**-40
Array = NDArray[np.float32]


def check_fp8(sm: int | None) -> None:
    """See that GPUs of a compute capability, such as 89, have FP8; None is any GPU.

    Raises:
        UsageError: they have not.
    """
    if sm is not None and sm < LEAST_SM:
        raise UsageError(
            f"FP8 needs a GPU of SM {LEAST_SM} or later; this one is SM {sm}",
            hint='precision = "int8" or "fp16" for this device',
        )


def to_fp8(canonical: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the canonical int8 graph with float8 (E4M3) quantizers and weights; opset and signature stay.

    Args:
        canonical: int8, zero point 0, float biases; left as it is.

    Raises:
        ConversionError: the graph is not canonical; the message names every node that is not.
    """
    model = to_dialect(canonical, "tensorrt-s8")
    graph, writer = model.graph, _Writer(GraphView.of(model.graph))
    quantized = set()
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            writer.convert_activation(node)
            quantized.add(node.output[0])
        elif node.op_type == "DequantizeLinear" and writer.view.is_constant(node.input[0]):
            writer.convert_weight(node)
        elif node.op_type == "DequantizeLinear":
            writer.convert_activation(node)
    for info in graph.value_info:
        if info.name in quantized:
            info.type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN
    used = {name for node in graph.node for name in node.input} | {info.name for info in graph.output}
    constants = [*graph.initializer, *writer.constants.values()]
    kept = [tensor for tensor in constants if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


@dataclass
class _Writer:
    """Rewrites nodes, and keeps the constants that they read."""

    view: GraphView
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def convert_activation(self, node: onnx.NodeProto) -> None:
        """A Q or DQ of an activation: the same largest magnitude, now at code 448."""
        scale = self._constant(node.input[1])
        self._give(node, node.input[1], (scale.astype(np.float64) * _CODE_MAX / LARGEST).astype(np.float32))
        kept = [entry for entry in node.attribute if entry.name != "output_dtype"]
        del node.attribute[:]
        node.attribute.extend(kept)

    def convert_weight(self, node: onnx.NodeProto) -> None:
        """A DQ of a constant: its values, rounded to float8."""
        codes, scale = self._constant(node.input[0]).astype(np.float64), self._constant(node.input[1])
        axis = attribute(node, "axis", 1)
        w = codes * _along(scale, axis, codes.ndim)
        others = tuple(place for place in range(w.ndim) if place != axis % w.ndim)
        largest = np.abs(w).max(axis=others) if scale.ndim else np.abs(w).max()
        scale = np.maximum(largest / LARGEST, _SMALLEST_SCALE).astype(np.float32)
        # Named after what it makes: layers whose codes are alike share one constant in an int8 graph.
        node.input[0] = f"{node.output[0]}/fp8"
        self._keep_fp8(node.input[0], to_e4m3(w / _along(scale, axis, w.ndim)))
        self._give(node, node.output[0], scale)

    def _give(self, node: onnx.NodeProto, stem: str, scale: Array) -> None:
        zero = f"zero_fp8_{scale.size}" if scale.ndim else "zero_fp8"
        node.input[:] = [node.input[0], f"{stem}/scale_fp8", zero]
        self.constants[node.input[1]] = numpy_helper.from_array(scale, node.input[1])
        self._keep_fp8(node.input[2], np.zeros(scale.shape, np.uint8))

    def _keep_fp8(self, name: str, codes: NDArray[np.uint8]) -> None:
        self.constants[name] = onnx.TensorProto(
            name=name, data_type=TensorProto.FLOAT8E4M3FN, dims=codes.shape, raw_data=codes.tobytes()
        )

    def _constant(self, name: str) -> np.ndarray:
        value = self.view.constant(name)
        assert value is not None, "a canonical graph's scales and codes are constants"
        return value


def _along(scale: Array, axis: int, rank: int) -> Array:
    """A scale for each channel, shaped so that it multiplies a tensor of this rank."""
    if not scale.ndim:
        return scale
    return scale.reshape([-1 if place == axis % rank else 1 for place in range(rank)])
