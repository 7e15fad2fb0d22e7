from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekd.conversion import remove_quantizers as subject
from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.graph_view import GraphView
from edgekd.conversion.remove_quantizers import dequantize, quantized_tensors, remove_quantizers
from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import open_session, run_batches
from tests.conversion.graphs import CASES, SCALE, Writer, inputs, residual

QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}


def types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return run_batches(open_session(model, as_written=True), x)


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("unsigned", [False, True])
def test_the_float_form_of_a_graph(name: str, unsigned: bool) -> None:
    model = CASES[name]()
    model = to_dialect(model, "onnxruntime-u8") if unsigned else model
    before = model.SerializeToString(deterministic=True)
    bare = remove_quantizers(model)
    onnx.checker.check_model(bare, full_check=True)
    assert model.SerializeToString(deterministic=True) == before
    kept = [op_type for op_type in types(model) if op_type not in QUANTIZERS]
    assert [op_type for op_type in types(bare) if op_type != "Identity"] == kept
    assert {tensor.data_type for tensor in bare.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    x = inputs(model)
    # What is left out is rounding: half a step of 0.08 at each of a few quantizers.
    assert np.abs(run(bare, x) - run(model, x)).max() < 10 * SCALE


def test_a_convolution_by_hand() -> None:
    """One example whose only window is the whole picture: the sum of products, and the bias."""
    write = Writer()
    write.conv(write.quantize("input"), 3, 8)
    node = write.nodes[-1]
    model = write.graph(node.output[0], rank=4)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in write.constants.values()}
    opened = next(one for one in write.nodes if one.output[0] == node.input[1])
    weight = held[opened.input[0]] * held[opened.input[1]].reshape(-1, 1, 1, 1)
    x = inputs(model)
    expected = (x[:, None, :, 4:7, 4:7] * weight).sum(axis=(2, 3, 4)) + held[node.input[2]]
    np.testing.assert_allclose(run(remove_quantizers(model), x)[:, :, 5, 5], expected, rtol=1e-4, atol=1e-5)


def test_chosen_tensors_alone() -> None:
    model = to_dialect(residual(), "onnxruntime-u8")
    tensors = quantized_tensors(model)
    activations = [one.name for one in tensors if one.kind == "activation"]
    constants = [one.name for one in tensors if one.kind == "constant"]
    assert len(activations) == 7
    assert len(constants) == 5  # four weights, and the bias of the Gemm in int32
    partly = remove_quantizers(model, [activations[1], constants[0]])
    left = [one.name for one in quantized_tensors(partly)]
    assert left == [one.name for one in tensors if one.name not in (activations[1], constants[0])]
    assert types(partly).count("QuantizeLinear") == 6
    onnx.checker.check_model(partly, full_check=True)
    nothing = remove_quantizers(model, [])
    assert np.array_equal(run(nothing, inputs(model)), run(model, inputs(model)))


def test_an_output_behind_a_quantizer_keeps_its_name() -> None:
    model = CASES["conv"]()
    bare = remove_quantizers(model)
    assert bare.graph.output[0].name == model.graph.output[0].name
    assert types(bare) == ["Conv", "Identity"]


def test_codes_that_are_moved_on_their_way() -> None:
    model = parse(
        "g (float[N,4,2] x) => (float[N,2,2] a, float[N,2,2] b)"
        " <float s = {0.1}, int8 z = {0}, int64[2] two = {2, 2}> {"
        " q = QuantizeLinear (x, s, z) p, r = Split <axis = 1> (q, two)"
        " t = Transpose <perm = [0, 2, 1]> (r)"
        " a = DequantizeLinear (p, s, z) b = DequantizeLinear (t, s, z) }"
    )
    (tensor,) = quantized_tensors(model)
    assert (tensor.name, len(tensor.dequantizers)) == ("x", 2)
    bare = remove_quantizers(model)
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    a, b = open_session(bare, as_written=True).run(None, {"x": x})
    np.testing.assert_array_equal(a, x[:, :2])
    np.testing.assert_array_equal(b, x[:, 2:].transpose(0, 2, 1))


def test_a_quantizer_whose_codes_something_else_reads_stays() -> None:
    model = parse(
        "g (float[N,4] x) => (float[N,4] y, int8[N,4] q) <float s = {0.1}, int8 z = {0}> {"
        " q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"
    )
    assert quantized_tensors(model) == ()
    assert types(remove_quantizers(model)) == types(model)


def test_another_scale_behind_is_a_product() -> None:
    model = parse(
        "g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, float t = {0.4}, int8 z = {0}> {"
        " q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, t, z) }"
    )
    bare = remove_quantizers(model)
    assert types(bare) == ["Mul"]
    x = np.array([[0.5, -1, 0, 3]], np.float32)
    np.testing.assert_allclose(run(bare, x), 4 * x, rtol=1e-6)


@pytest.mark.parametrize("scale", ["nan", "0.0"])
def test_a_scale_that_is_no_number_is_no_product(scale: str) -> None:
    model = parse(
        "g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, int8 z = {0}> {"
        " q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"
    )
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(scale), "s"))
    assert types(remove_quantizers(model)) == ["Identity"]


def test_weights_of_four_bits_behind_a_cast() -> None:
    model = parse(
        "g (float[N,2] x) => (float[N,2] y) <float[2] s = {0.5, 2}> {"
        " c = Cast <to = 3> (w) d = DequantizeLinear <axis = 1> (c, s) y = MatMul (x, d) }"
    )
    packed = helper.make_tensor("w", TensorProto.INT4, [2, 2], [-8, 7, 3, -1])
    model.graph.initializer.append(packed)
    bare = remove_quantizers(model)
    assert types(bare) == ["MatMul"]
    np.testing.assert_allclose(run(bare, np.eye(2, dtype=np.float32)), [[-4, 14], [1.5, -2]])


def test_bodies_of_an_if_too() -> None:
    model = parse(
        "g (float[N,4] x, bool c) => (float[N,4] y) <float s = {0.1}, int8 z = {0}> {"
        " y = If (c) <then_branch = a () => (float[N,4] u) { q = QuantizeLinear (x, s, z)"
        " d = DequantizeLinear (q, s, z) u = Relu (d) },"
        " else_branch = b () => (float[N,4] v) { v = Neg (x) }> }"
    )
    bare = remove_quantizers(model)
    x = np.array([[0.55, -1, 0, 3]], np.float32)
    (y,) = open_session(bare, as_written=True).run(None, {"x": x, "c": np.array(True)})
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    assert not bare.graph.initializer


def test_constants_that_nothing_reads_go_also_where_they_are_inputs() -> None:
    model = CASES["conv_relu"]()
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.input.append(info)
    bare = remove_quantizers(model)
    named = {tensor.name for tensor in bare.graph.initializer}
    assert {entry.name for entry in bare.graph.input} - named == {"input"}
    assert not any(name.startswith(("weight_scale", "zero", "scale")) for name in named)


def test_a_float_form_beyond_one_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = residual()
    monkeypatch.setattr(subject, "MAX_GRAPH_BYTES", remove_quantizers(model).ByteSize() - 1)
    with pytest.raises(ConversionError, match="is larger than 2 GiB with its weights in float"):
        remove_quantizers(model)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    axis=st.integers(0, 2),
    kind=st.sampled_from(["tensor", "axis", "block"]),
    zero=st.integers(-5, 5),
    negative=st.booleans(),
)
def test_codes_by_their_formula(shape: list[int], axis: int, kind: str, zero: int, negative: bool) -> None:
    random = np.random.default_rng(0)
    axis %= len(shape)
    codes = random.integers(-128, 128, shape).astype(np.int8)
    block = 2
    sizes = {"tensor": [], "axis": [shape[axis]], "block": list(shape)}[kind]
    if kind == "block":
        sizes[axis] = -(-shape[axis] // block)
    scale = random.uniform(0.1, 1, sizes).astype(np.float32)
    zeros = np.full(sizes, zero, np.int8)
    given_axis = axis - len(shape) if negative else axis
    found = dequantize(codes, scale, zeros, axis=given_axis, block=block if kind == "block" else 0)
    for index in np.ndindex(*shape):
        place = {"tensor": (), "axis": (index[axis],), "block": list(index)}[kind]
        if kind == "block":
            place = tuple(i // block if at == axis else i for at, i in enumerate(index))
        assert found[index] == pytest.approx((int(codes[index]) - zero) * float(scale[place]), rel=1e-6)
    assert found.dtype == np.float32


def test_scales_that_do_not_fit_open_nothing() -> None:
    model = parse(
        "g (float[N,2] x) => (float[N,2] y) <int8[2,2] w = {1, 2, 3, 4}, float[3] s = {1, 1, 1}> {"
        " d = DequantizeLinear <axis = 1> (w, s) y = MatMul (x, d) }"
    )
    assert quantized_tensors(model) == ()
    view = GraphView.of(model.graph)
    assert subject.constant_behind(view, model.graph.node[0]) is None
