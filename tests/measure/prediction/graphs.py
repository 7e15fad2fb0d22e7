"""Small graphs to count by hand, written node by node."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


class Writer:
    """Nodes and constants; each method returns the name of the tensor that it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, shape: tuple[int, ...], dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ones(shape, dtype), name))
        return name

    def value(self, value: object, dtype: type = np.int64) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        name = f"{op_type}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, domain=domain, **attributes))
        return name

    def conv(self, x: str, c_in: int, c_out: int, kernel: int = 3, **attributes: object) -> str:
        group = int(attributes.get("group", 1))  # type: ignore[call-overload]
        weight = self.constant((c_out, c_in // group, kernel, kernel))
        return self.op("Conv", x, weight, pads=[kernel // 2] * 4, **attributes)

    def quantize(self, x: str) -> str:
        return self.op("QuantizeLinear", x, self.constant(()), self.constant((), np.uint8))

    def dequantize(self, x: str) -> str:
        return self.op("DequantizeLinear", x, self.constant(()), self.constant((), np.uint8))

    def codes(self, x: str) -> str:
        return self.dequantize(self.quantize(x))

    def weight(self, *shape: int) -> str:
        codes = self.constant(shape, np.int8)
        return self.op("DequantizeLinear", codes, self.constant(()), self.constant((), np.int8))

    def qconv(self, x: str, c_in: int, c_out: int, kernel: int = 3, **attributes: object) -> str:
        weight = self.weight(c_out, c_in, kernel, kernel)
        return self.op("Conv", x, weight, pads=[kernel // 2] * 4, **attributes)

    def model(self, shape: tuple[object, ...], *outputs: str, dtype: int = FLOAT) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", dtype, shape)
        ends = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", [x], ends, self.constants)
        imports = [
            helper.make_opsetid(*each) for each in (("", 20), ("com.microsoft", 1), ("com.example", 1))
        ]
        return helper.make_model(graph, opset_imports=imports, ir_version=9)
