"""The same graph in float: held against the formula of each operator, in NumPy, and against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.conversion.float_graph import float_graph
from edgekd.conversion.graph_view import views
from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import open_session
from tests.conversion.graphs import CASES, Writer

HALF_STEP = 0.5
Array = np.ndarray


def run(model: onnx.ModelProto, x: Array) -> Array:
    session = open_session(model)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


class OnCodes:
    """Writes one operator on codes between a QuantizeLinear and a DequantizeLinear."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.random = np.random.default_rng(3)
        self.constants: dict[str, Array] = {}
        self.x = self.random.uniform(-1, 1, (2, *shape)).astype(np.float32)

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def quantizer(self, name: str, scale: float, zero: int) -> list[str]:
        return [self.constant(f"{name}s", scale), self.constant(f"{name}z", zero, np.uint8)]

    def graph(self, op: onnx.NodeProto, made: list[str], floats: bool = False) -> onnx.ModelProto:
        """`made` are the scale and zero point of the operator's output, where it writes codes."""
        read = ["xs", "xz"]
        nodes = [helper.make_node("QuantizeLinear", ["x", *read], ["q"], "quantizer"), op]
        if not floats:
            nodes.append(helper.make_node("DequantizeLinear", ["codes", *made], ["y"], "dequantizer"))
        info, kind = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "g",
            [info("x", kind, ["n", *self.shape])],
            [info("y", kind, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


Row = tuple[onnx.ModelProto, Array, Array, float]
"""A graph, its input, what it is in float by the formula, and one step of its output."""


def conv() -> Row:
    codes = OnCodes((2, 4, 4))
    x = codes.quantizer("x", 0.01, 128)
    y = codes.quantizer("y", 0.02, 120)
    w = codes.random.integers(-127, 128, (3, 2, 1, 1)).astype(np.int8)
    scales = np.array([0.01, 0.02, 0.005], np.float32)
    weight = [
        codes.constant("w", w, np.int8),
        codes.constant("ws", scales),
        codes.constant("wz", [0] * 3, np.int8),
    ]
    bias = codes.constant("b", [1000, -500, 20], np.int32)
    node = helper.make_node("QLinearConv", ["q", *x, *weight, *y, bias], ["codes"], "conv")
    expected = np.einsum("nchw,oc->nohw", codes.x, w[:, :, 0, 0] * scales[:, None])
    expected += (np.array([1000, -500, 20]) * 0.01 * scales)[:, None, None]
    return codes.graph(node, y), codes.x, expected, 0.02


def conv_relu() -> Row:
    codes = OnCodes((1, 4, 4))
    x, y = codes.quantizer("x", 0.01, 128), codes.quantizer("y", 0.01, 0)
    weight = [
        codes.constant("w", [[[[100]]]], np.int8),
        codes.constant("ws", 0.01),
        codes.constant("wz", 0, np.int8),
    ]
    node = helper.make_node("QLinearConv", ["q", *x, *weight, *y], ["codes"], "conv")
    return codes.graph(node, y), codes.x, np.maximum(codes.x, 0), 0.01


def matmul() -> Row:
    codes = OnCodes((3, 4))
    x, y = codes.quantizer("x", 0.01, 128), codes.quantizer("y", 0.02, 128)
    w = codes.random.integers(0, 255, (4, 5)).astype(np.uint8)
    scales = np.linspace(0.005, 0.01, 5).astype(np.float32)
    weight = [
        codes.constant("w", w, np.uint8),
        codes.constant("ws", scales),
        codes.constant("wz", [128] * 5, np.uint8),
    ]
    node = helper.make_node("QLinearMatMul", ["q", *x, *weight, *y], ["codes"], "matmul")
    return codes.graph(node, y), codes.x, codes.x @ ((w.astype(float) - 128) * scales), 0.02


def gemm(quantized: bool) -> Row:
    codes = OnCodes((4,))
    x = codes.quantizer("x", 0.01, 128)
    y = codes.quantizer("y", 0.02, 128) if quantized else []
    w = codes.random.integers(-127, 128, (5, 4)).astype(np.int8)
    scales = np.linspace(0.005, 0.01, 5).astype(np.float32)
    weight = [codes.constant("w", w, np.int8), codes.constant("ws", scales)]
    weight.append(codes.constant("wz", [0] * 5, np.int8))
    bias = codes.constant("b", [100, 200, 300, 0, -100], np.int32)
    node = helper.make_node(
        "QGemm",
        ["q", *x, *weight, bias, *y],
        ["codes" if quantized else "y"],
        "gemm",
        domain="com.microsoft",
        transB=1,
    )
    expected = codes.x @ (w.T * scales) + np.array([100, 200, 300, 0, -100]) * 0.01 * scales
    return codes.graph(node, y, floats=not quantized), codes.x, expected, 0.02


def binary(kind: str) -> Row:
    codes = OnCodes((4,))
    x, y = codes.quantizer("x", 0.01, 128), codes.quantizer("y", 0.02, 128)
    node = helper.make_node(
        f"QLinear{kind}", ["q", *x, "q", *x, *y], ["codes"], "both", domain="com.microsoft"
    )
    return codes.graph(node, y), codes.x, codes.x + codes.x if kind == "Add" else codes.x * codes.x, 0.02


def unary(kind: str, formula: Callable[[Array], Array], **attributes: object) -> Row:
    codes = OnCodes((2, 4, 4))
    x, y = codes.quantizer("x", 0.01, 128), codes.quantizer("y", 0.01, 128)
    node = helper.make_node(
        f"QLinear{kind}", ["q", *x, *y], ["codes"], "one", domain="com.microsoft", **attributes
    )
    return codes.graph(node, y), codes.x, formula(codes.x), 0.01


def concat() -> Row:
    codes = OnCodes((2, 4))
    x, y = codes.quantizer("x", 0.01, 128), codes.quantizer("y", 0.02, 128)
    node = helper.make_node(
        "QLinearConcat", [*y, "q", *x, "q", *x], ["codes"], "join", domain="com.microsoft", axis=1
    )
    return codes.graph(node, y), codes.x, np.concatenate([codes.x, codes.x], 1), 0.02


def matmul_to_float() -> Row:
    codes = OnCodes((4,))
    codes.quantizer("x", 0.01, 128)
    w = codes.random.integers(-127, 128, (4, 5)).astype(np.int8)
    parts = [
        codes.constant("w", w, np.int8),
        "xs",
        codes.constant("ws", 0.01),
        "xz",
        codes.constant("wz", 0, np.int8),
    ]
    bias = codes.constant("b", np.arange(5))
    node = helper.make_node(
        "MatMulIntegerToFloat", ["q", *parts, bias], ["y"], "matmul", domain="com.microsoft"
    )
    return codes.graph(node, [], floats=True), codes.x, codes.x @ (w * 0.01) + np.arange(5), 0.02


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


ROWS: dict[str, Callable[[], Row]] = {
    "QLinearConv": conv,
    "QLinearConv with a Relu": conv_relu,
    "QLinearMatMul": matmul,
    "QGemm": lambda: gemm(True),
    "QGemm to float": lambda: gemm(False),
    "QLinearAdd": lambda: binary("Add"),
    "QLinearMul": lambda: binary("Mul"),
    "QLinearSigmoid": lambda: unary("Sigmoid", sigmoid),
    "QLinearLeakyRelu": lambda: unary("LeakyRelu", lambda x: np.where(x < 0, 0.25 * x, x), alpha=0.25),
    "QLinearSoftmax": lambda: unary(
        "Softmax", lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), opset=13, axis=-1
    ),
    "QLinearAveragePool": lambda: unary(
        "AveragePool",
        lambda x: x.reshape(2, 2, 2, 2, 2, 2).mean((3, 5)),
        kernel_shape=[2, 2],
        strides=[2, 2],
    ),
    "QLinearGlobalAveragePool": lambda: unary(
        "GlobalAveragePool", lambda x: x.mean((2, 3), keepdims=True), channels_last=0
    ),
    "QLinearConcat": concat,
    "MatMulIntegerToFloat": matmul_to_float,
}


@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS.keys())
def test_an_operator_on_codes_is_its_formula_in_float(make: Callable[[], Row]) -> None:
    model, x, expected, step = make()
    made = float_graph(model)
    assert not {node.op_type for node in made.graph.node} & {*ROWS, "QuantizeLinear", "DequantizeLinear"}
    np.testing.assert_allclose(run(made, x), expected, rtol=1e-4, atol=1e-5)
    # The graph of codes itself says nearly the same: the row is what its name says.
    assert np.abs(run(model, x) - expected).max() < 3 * step


@pytest.mark.parametrize("name", CASES)
def test_a_graph_with_quantizers_computes_nearly_the_same_in_float(name: str) -> None:
    model = CASES[name]()
    made = float_graph(model)
    types = {node.op_type for view in views(made) for node in view.graph.node}
    assert not types & {"QuantizeLinear", "DequantizeLinear"}
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    expected = run(model, x)
    assert np.abs(run(made, x) - expected).mean() < 0.1 * expected.std()


def test_nodes_keep_their_names_and_the_graph_is_left_as_it_was() -> None:
    model, *_ = conv()
    before = model.SerializeToString()
    assert [node.name for node in float_graph(model).graph.node if node.op_type == "Conv"] == ["conv"]
    assert model.SerializeToString() == before


DYNAMIC = """<ir_version: 10, opset_import: ["": 21]>
    g (float[N, {shape}] x) => (float[N, {result}] y) <float ws = {{0.1}}, uint8 wz = {{100}}>
    {{
      q, s, z = DynamicQuantizeLinear (x)
      p = {kind}Integer (q, w, z, wz)
      f = Cast <to = 1> (p)
      t = Mul (s, ws)
      y = Mul (f, t)
    }}"""


@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
def test_dynamic_quantization_is_the_product_in_float(kind: str) -> None:
    shape, result, weight = {"MatMul": ("4", "5", (4, 5)), "Conv": ("2, 3, 3", "5, 3, 3", (5, 2, 1, 1))}[kind]
    model = onnx.parser.parse_model(DYNAMIC.format(kind=kind, shape=shape, result=result))
    w = np.random.default_rng(1).integers(0, 255, weight).astype(np.uint8)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    size = [2, *map(int, shape.split(", "))]
    x = np.random.default_rng(2).normal(size=size).astype(np.float32)
    real = (w.astype(float) - 100) * 0.1
    expected = x @ real if kind == "MatMul" else np.einsum("nchw,oc->nohw", x, real[:, :, 0, 0])
    np.testing.assert_allclose(run(float_graph(model), x), expected, rtol=1e-4, atol=1e-4)


def test_dynamic_quantization_as_the_runtime_fuses_it() -> None:
    w = np.random.default_rng(1).integers(-127, 127, (4, 5)).astype(np.int8)
    node = helper.make_node(
        "DynamicQuantizeMatMul", ["x", "w", "ws", "wz", "b"], ["y"], "m", domain="com.microsoft"
    )
    info, kind = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    constants = {"w": w, "ws": np.float32(0.1), "wz": np.int8(3), "b": np.arange(5, dtype=np.float32)}
    graph = helper.make_graph(
        [node],
        "g",
        [info("x", kind, ["n", 4])],
        [info("y", kind, ["n", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    made = float_graph(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    x = np.random.default_rng(2).normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(run(made, x), x @ ((w - 3.0) * 0.1) + np.arange(5), rtol=1e-4, atol=1e-4)


def test_what_has_no_float_form_is_refused() -> None:
    write = Writer()
    made = write.op("QuantizeLinear", "input", "scale", "zero")
    model = write.graph(
        write.op("DequantizeLinear", write.op("BitShift", made, "zero"), "scale", "zero"), rank=4
    )
    with pytest.raises(ConversionError) as caught:
        float_graph(model)
    assert caught.value.message == (
        "QuantizeLinear '/QuantizeLinear_0' has no float form: it computes with codes"
    )
    model, *_ = unary("GlobalAveragePool", lambda x: x, channels_last=1)
    with pytest.raises(ConversionError) as caught:
        float_graph(model)
    assert caught.value.message == (
        "QLinearGlobalAveragePool 'one' has no float form: its channels come last"
    )
