from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.check_graph import check_graph
from edgekd.conversion.dialects import non_negative_tensors, to_dialect, write_graph
from edgekd.conversion.graph_view import GraphView
from edgekd.conversion.specs import load_spec
from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import open_session, run_batches
from tests.conversion.graphs import CASES, CLASSES, SCALE, Writer, inputs, residual

cases = pytest.mark.parametrize("case", [pytest.param(make, id=name) for name, make in CASES.items()])
Case = Callable[[], onnx.ModelProto]


UNPADDED = {"pad_channels": False}
"""Test graphs are narrower than the kernels; here that shall not add constants of its own."""


def exactly(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return run_batches(open_session(model, as_written=True), x)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@cases
def test_every_weighted_operator_runs_in_int8(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    write_graph(to_dialect(case(), "onnxruntime-u8"), path)
    audit = audit_graph(path)
    assert [operator.cause for operator in audit.operators if not operator.int8] == []
    assert audit.int8_ops == audit.weighted_ops > 0
    assert not {"Conv", "FusedConv", "Gemm", "MatMul"} & audit.optimized_operators.keys()


@cases
def test_the_unsigned_graph_computes_what_the_canonical_one_does(case: Case) -> None:
    canonical = case()
    unsigned, x = to_dialect(canonical, "onnxruntime-u8"), inputs(canonical)
    # Only an int32 bias may differ, by half a step of its accumulator, here below 2e-4.
    np.testing.assert_allclose(exactly(unsigned, x), exactly(canonical, x), rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["conv", "conv_relu"])
def test_one_fused_convolution_is_within_one_step(name: str) -> None:
    canonical = CASES[name]()
    x = inputs(canonical)
    fused = run_batches(open_session(to_dialect(canonical, "onnxruntime-u8")), x)
    steps = np.abs(fused - exactly(canonical, x)) / SCALE
    assert steps.max() <= 1.001
    assert (steps > 0.5).mean() < 0.01


@cases
def test_the_unsigned_graph_meets_its_spec_and_keeps_every_scale(case: Case) -> None:
    canonical = case()
    unsigned = to_dialect(canonical, "onnxruntime-u8", UNPADDED)
    check_graph(unsigned, load_spec("onnxruntime"), "graph")
    before, after = constants(canonical), constants(unsigned)
    scales = [node.input[1] for node in canonical.graph.node if node.op_type.endswith("quantizeLinear")]
    scales += [node.input[1] for node in canonical.graph.node if node.op_type == "DequantizeLinear"]
    assert scales
    assert all(np.array_equal(before[name], after[name]) for name in scales)


@cases
def test_the_canonical_graph_is_the_tensorrt_dialect(case: Case) -> None:
    canonical = case()
    assert to_dialect(canonical, "tensorrt-s8") == canonical
    assert to_dialect(canonical, "tensorrt-s8") is not canonical


def test_the_canonical_graph_is_left_as_it_is() -> None:
    canonical = residual()
    to_dialect(canonical, "onnxruntime-u8")
    assert canonical == residual()


def test_a_tensor_that_cannot_be_negative_uses_all_255_steps() -> None:
    canonical = CASES["conv_relu"]()
    x = 12 * inputs(canonical)
    unsigned = exactly(to_dialect(canonical, "onnxruntime-u8"), x)
    assert exactly(canonical, x).max() == pytest.approx(127 * SCALE)
    assert 127 * SCALE < unsigned.max() <= 255 * SCALE * 1.0001


def zero_points(model: onnx.ModelProto) -> dict[str, int]:
    values = constants(model)
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0].split("_")[0]: int(values[node.input[2]]) for node in quantizers}


def test_zero_points_follow_the_sign() -> None:
    assert zero_points(to_dialect(CASES["linear_residual"](), "onnxruntime-u8")) == {
        "input": 128,
        "Conv": 128,
        "Relu": 0,
        "Add": 128,
        "GlobalAveragePool": 128,
        "Flatten": 128,
    }
    assert zero_points(to_dialect(CASES["gate"](), "onnxruntime-u8")) == {
        "input": 128,
        "Relu": 0,
        "GlobalAveragePool": 0,
        "Conv": 128,
        "Sigmoid": 0,
        "Mul": 0,
        "Flatten": 0,
    }


@pytest.mark.parametrize(
    ("bounds", "expected"), [((0.0, 6.0), True), ((-1.0, 6.0), False), ((0.5,), True), ((), False)]
)
def test_clip_by_its_lower_bound(bounds: tuple[float, ...], expected: bool) -> None:
    write = Writer()
    limits = [write.constant(f"bound_{value}", np.float32(value)) for value in bounds]
    clipped = write.op("Clip", "input", *limits)
    view = GraphView.of(write.graph(clipped, rank=4).graph)
    assert (clipped in non_negative_tensors(view)) is expected


def test_a_sum_is_non_negative_only_when_both_sides_are() -> None:
    write = Writer()
    positive = write.op("Relu", "input")
    mixed, both = write.op("Add", positive, "input"), write.op("Add", positive, positive)
    view = GraphView.of(write.graph(mixed, rank=4).graph)
    assert both in non_negative_tensors(view)
    assert mixed not in non_negative_tensors(view)


def test_int32_bias_of_a_gemm_by_its_formula() -> None:
    canonical = residual()
    unsigned = to_dialect(canonical, "onnxruntime-u8", UNPADDED)
    before, after = constants(canonical), constants(unsigned)
    gemm = next(node for node in canonical.graph.node if node.op_type == "Gemm")
    weight = next(node for node in canonical.graph.node if node.output[0] == gemm.input[1])
    step = np.float32(SCALE) * before[weight.input[1]]
    names = [name for name in after if name not in before and "bias" in name]
    codes, scale = (after[name] for name in sorted(names))
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(scale, step)
    np.testing.assert_array_equal(codes, np.rint(before[gemm.input[2]] / step))


def test_a_bias_beyond_int32_stays_float() -> None:
    write = Writer()
    gemm = write.gemm(write.quantize("input"), 4, CLASSES)
    bias = write.nodes[-1].input[2]
    write.constant(bias, np.full(CLASSES, 1e7, np.float32))
    unsigned = to_dialect(write.graph(gemm, shape=(4,)), "onnxruntime-u8")
    assert next(node for node in unsigned.graph.node if node.op_type == "Gemm").input[2] == bias


def test_types_that_the_graph_declares_follow() -> None:
    canonical = CASES["conv_relu"]()
    codes = next(node.output[0] for node in canonical.graph.node if node.op_type == "QuantizeLinear")
    info = helper.make_tensor_value_info(codes, onnx.TensorProto.INT8, None)
    canonical.graph.value_info.append(info)
    quantizer = next(node for node in canonical.graph.node if node.op_type == "QuantizeLinear")
    quantizer.attribute.append(helper.make_attribute("output_dtype", onnx.TensorProto.INT8))
    unsigned = to_dialect(canonical, "onnxruntime-u8", UNPADDED)
    onnx.checker.check_model(unsigned, full_check=True)
    assert unsigned.graph.value_info[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert open_session(unsigned) is not None


def test_a_graph_that_is_not_canonical_is_refused() -> None:
    unsigned = to_dialect(CASES["conv_relu"](), "onnxruntime-u8")
    with pytest.raises(ConversionError) as caught:
        to_dialect(unsigned, "onnxruntime-u8")
    assert str(caught.value) == (
        "canonical graph: breaks 3 rules of the dialect tensorrt-s8\n"
        "  QuantizeLinear '/QuantizeLinear_0': uint8; allowed: int8\n"
        "  QuantizeLinear '/QuantizeLinear_0': zero point 128; allowed: 0\n"
        "  QuantizeLinear '/QuantizeLinear_5': uint8; allowed: int8"
    )


def test_a_graph_with_a_subgraph_is_refused() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (bool c, float[N] x) => (float[N] y)'
        " { y = If (c) <then_branch = a () => (float[N] u) { u = Identity (x) },"
        " else_branch = b () => (float[N] v) { v = Relu (x) }> }"
    )
    with pytest.raises(ConversionError, match="canonical graph: has an If, a Loop or a Scan"):
        to_dialect(model, "tensorrt-s8")


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    write_graph(residual(), tmp_path / "a.onnx")
    write_graph(residual(), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert onnx.load(tmp_path / "a.onnx") == residual()
