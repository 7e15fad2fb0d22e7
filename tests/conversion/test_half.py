"""The fp32 graph in float16: on ONNX Runtime, in TensorRT's parser, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.dialects import write_graph
from edgekd.conversion.half import fp16_notes, to_fp16
from edgekd.conversion.to_onnx import export_fp32
from edgekd.documents.common import InputSpec
from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.runtimes.tensorrt import parse_and_build
from tests.conversion.graphs import residual
from tests.quantization.networks import NETWORKS, SHAPE, PostAct, build, examples

OPSET = 21
INPUT = InputSpec(
    name="picture", shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3
)


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda kind: kind.__name__)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The fp32 graph of each network."""
    path = tmp_path_factory.mktemp("graphs") / "fp32.onnx"
    export_fp32(build(request.param), INPUT, path, opset=OPSET)
    return read_graph(path)


def test_every_network_runs_within_the_rounding_of_float16(exported: onnx.ModelProto) -> None:
    half, x = to_fp16(exported), examples(64).numpy()
    expected = run_batches(open_session(exported), x)
    found = run_batches(open_session(half), x)
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max() / expected.std()
    assert 0 < difference < 5e-3  # 2^-11 a rounding, some ten of them
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98


def test_every_network_becomes_an_engine(exported: onnx.ModelProto, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    write_graph(to_fp16(exported), tmp_path / "half.onnx")
    record = parse_and_build(tmp_path / "half.onnx", sm=89, engine=tmp_path / "engine")
    assert (record.status, record.messages) == ("built", ())


def test_names_types_and_opset_stay_outside(exported: onnx.ModelProto) -> None:
    half = to_fp16(exported)
    assert half.graph.input == exported.graph.input
    assert half.graph.output == exported.graph.output
    assert half.opset_import == exported.opset_import


def test_no_tensor_inside_is_float32(exported: onnx.ModelProto) -> None:
    half = onnx.shape_inference.infer_shapes(to_fp16(exported), strict_mode=True)
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in half.graph.initializer}
    ends = {half.graph.output[0].name}
    floats = {
        info.name for info in half.graph.value_info if info.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    assert floats <= ends


def test_the_fp32_graph_is_left_as_it_is(exported: onnx.ModelProto) -> None:
    before = exported.SerializeToString(deterministic=True)
    to_fp16(exported)
    assert exported.SerializeToString(deterministic=True) == before


def graph_of(text: str, *constants: onnx.TensorProto, opset: int = 21) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {text}')
    model.graph.initializer.extend(constants)
    return model


def constant(name: str, *values: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return open_session(model).run(None, {model.graph.input[0].name: x})[0]


def test_every_constant_is_the_nearest_float16() -> None:
    values = [1.0, 1 / 3, 65504.0, 65519.0, -65504.0, 6e-8, 1e-9, np.inf]
    half = to_fp16(graph_of("(float[N] x) => (float[N] y) { y = Add (x, c) }", constant("c", *values)))
    found = numpy_helper.to_array(half.graph.initializer[0])
    assert found.dtype == np.float16
    expected = [1.0, np.float16(1 / 3), 65504.0, 65504.0, -65504.0, 2.0**-24, 0.0, np.inf]
    np.testing.assert_array_equal(found, np.array(expected, np.float16))


def test_a_weight_beyond_float16_is_refused() -> None:
    model = graph_of(
        "(float[N] x) => (float[N] y) { z = Add (x, c)  u = Mul (z, d)  y = Mul (u, e) }",
        constant("c", 1.0, -70000.0),
        constant("d", 1.0, 2.0),
        constant("e", 1e20, 3.0),
    )
    with pytest.raises(ConversionError) as caught:
        to_fp16(model)
    assert str(caught.value) == (
        "fp32 graph: 2 constants are beyond float16 (largest: 65504)\n"
        "  'c' reaches 70000\n"
        "  'e' reaches 1e+20\n"
        "  try: fine-tune the network with weight decay, or keep it in fp32"
    )


def test_a_limit_beyond_float16_limits_as_well_at_its_end() -> None:
    model = graph_of(
        "(float[N] x) => (float[N] y) { y = Clip (x, low, high) }",
        numpy_helper.from_array(np.float32(-1.0), "low"),
        numpy_helper.from_array(np.float32(3.4e38), "high"),
    )
    half = to_fp16(model)
    x = np.array([-5.0, 60000.0], np.float32)
    assert run(half, x).tolist() == [-1.0, 60000.0]
    high = next(tensor for tensor in half.graph.initializer if tensor.name == "high")
    assert numpy_helper.to_array(high) == 65504.0


def test_constants_of_every_form_become_float16() -> None:
    model = graph_of(
        """(float[N] x) => (float[N] y) {
            a = Constant <value_float = 2.0> ()
            b = Constant <value_floats = [3.0]> ()
            c = Constant <value = float {4.0}> ()
            size = Shape (x)
            d = ConstantOfShape <value = float[1] {5.0}> (size)
            e = Cast <to = 1> (size)
            s1 = Add (x, a)  s2 = Add (s1, b)  s3 = Add (s2, c)  s4 = Add (s3, d)  y = Add (s4, e)
        }"""
    )
    half = to_fp16(model)
    found = run(half, np.ones(2, np.float32))
    assert found.tolist() == [17.0, 17.0]
    names = {info.name: info for info in onnx.shape_inference.infer_shapes(half).graph.value_info}
    assert all(names[name].type.tensor_type.elem_type == TensorProto.FLOAT16 for name in "abcde")


def test_a_resize_keeps_its_scales_in_float32() -> None:
    """One constant for both, which each reads in its own type from then on."""
    model = graph_of(
        '(float[1,1,4,4] x) => (float[1,1,8,8] y) { z = Add (x, c)  y = Resize <mode = "nearest"> (z, , s) }',
        constant("s", 1.0, 1.0, 2.0, 2.0),
        constant("c", 0.5, 0.5, 0.5, 0.5),
    )
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(run(to_fp16(model), x), run(model, x))
    shared = graph_of(
        '(float[1,1,4,4] x) => (float[1,1,8,8] y) { z = Add (x, s)  y = Resize <mode = "nearest"> (z, , s) }',
        constant("s", 1.0, 1.0, 2.0, 2.0),
    )
    np.testing.assert_array_equal(run(to_fp16(shared), x), run(shared, x))


def test_other_types_pass_as_they_are() -> None:
    model = graph_of(
        "(int64[N] i, float[N] x) => (float[N] y, int64[N] j) { j = Add (i, i)  k = Cast <to = 1> (j)"
        "  y = Mul (x, k) }"
    )
    feeds = {"i": np.array([3]), "x": np.array([0.5], np.float32)}
    y, j = open_session(to_fp16(model)).run(None, feeds)
    assert (y.tolist(), y.dtype, j.tolist()) == ([3.0], np.float32, [6])


def test_an_input_that_has_a_value_of_its_own() -> None:
    """An initializer that is listed among the inputs too, as old exporters do."""
    model = graph_of("(float[N] x, float[1] c) => (float[N] y) { y = Add (x, c) }", constant("c", 0.5))
    half = to_fp16(model)
    assert run(half, np.ones(2, np.float32)).tolist() == [1.5, 1.5]


def test_an_output_that_other_nodes_read() -> None:
    model = graph_of("(float[N] x) => (float[N] y, float[N] z) { y = Relu (x)  z = Neg (y) }")
    y, z = open_session(to_fp16(model)).run(None, {"x": np.array([2.0], np.float32)})
    assert (y.dtype, z.dtype, y.tolist(), z.tolist()) == (np.float32, np.float32, [2.0], [-2.0])


def test_a_quantized_graph_is_refused() -> None:
    with pytest.raises(ConversionError) as caught:
        to_fp16(residual())
    assert str(caught.value) == (
        "fp32 graph: is quantized, first at '/QuantizeLinear_0'; float16 would move its scales"
        "\n  try: give the fp32 graph of the network"
    )


def test_a_graph_with_a_subgraph_is_refused() -> None:
    model = graph_of(
        "(bool c, float[N] x) => (float[N] y) { y = If (c) <then_branch = a () => (float[N] u)"
        " { u = Identity (x) }, else_branch = b () => (float[N] v) { v = Relu (x) }> }"
    )
    with pytest.raises(ConversionError, match=r"^fp32 graph: has an If, a Loop, a Scan or a function$"):
        to_fp16(model)


def test_an_operator_without_a_float16_form_is_named() -> None:
    boxes = helper.make_node("NonMaxSuppression", ["x", "s"], ["y"], name="boxes")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [boxes],
        "g",
        [info("x", TensorProto.FLOAT, [1, 2, 4]), info("s", TensorProto.FLOAT, [1, 1, 2])],
        [info("y", TensorProto.INT64, ["count", 3])],
    )
    with pytest.raises(ConversionError, match=r"^fp16 graph: an operator has no float16 form: .*boxes"):
        to_fp16(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def test_notes_count_what_is_lost() -> None:
    model = graph_of(
        "(float[N] x) => (float[N] y) { z = Add (x, c)  y = Add (z, d) }",
        constant("c", 0.0, 1.0, 1e-9, 1e-9, 1e-5),
        constant("d", 1.0, 2.0**-14),
    )
    assert fp16_notes(model) == ("'c': of 5 values 2 become 0 and 1 lose digits (below 2^-14)",)


def test_a_weight_that_is_beyond_in_a_network(tmp_path: Path) -> None:
    network = build(PostAct)
    assert isinstance(network.head, nn.Linear)
    with torch.no_grad():
        network.head.weight[0, 0] = 1e5
    export_fp32(network, INPUT, tmp_path / "fp32.onnx", opset=OPSET)
    with pytest.raises(ConversionError, match=r"'head\.weight' reaches 100000"):
        to_fp16(read_graph(tmp_path / "fp32.onnx"))
