"""The dialect onnxruntime-u8u8: the same student, exact where AVX2 without VNNI saturates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.avx2.emulate import measure_saturation
from edgekd.conversion.check_graph import check_graph, read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.graph_view import GraphView
from edgekd.conversion.specs import spec_of
from edgekd.conversion.to_onnx import export_int8
from edgekd.devices.isa import int8_instruction, saturates
from edgekd.documents.common import InputSpec
from edgekd.documents.scheme import Scheme
from edgekd.errors import ConversionError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import machine_isa, open_session, run_batches
from tests.conversion.graphs import CASES, CLASSES, SCALE, Writer, inputs
from tests.quantization.networks import NETWORKS, SHAPE, Inverted, build, examples

Case = Callable[[], onnx.ModelProto]
U8, EXACT = "onnxruntime-u8", "onnxruntime-u8u8"
KEEP_WIDTHS = {"pad_channels": False}
INPUT = InputSpec(
    name="picture", shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3
)
cases = pytest.mark.parametrize("case", [pytest.param(make, id=name) for name, make in CASES.items()])
here_is_exact = pytest.mark.skipif(
    saturates(int8_instruction(machine_isa().split())), reason="int8 weights saturate on this processor"
)


def weights(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Codes, scales and zero points by the weighted operator that reads them."""
    view, found = GraphView.of(model.graph), {}
    for node in model.graph.node:
        source = view.producer(node.input[1]) if len(node.input) > 1 else None
        if source is not None and source.op_type == "Transpose":
            source = view.producer(source.input[0])
        if node.op_type in ("Conv", "Gemm", "MatMul") and source is not None:
            values = [view.constant(name) for name in source.input]
            if values[0] is not None:
                found[node.name] = tuple(value for value in values if value is not None)
    return found


@cases
def test_weights_that_saturate_are_moved_up_by_128(case: Case) -> None:
    before, after = weights(to_dialect(case(), U8)), weights(to_dialect(case(), EXACT))
    assert before.keys() == after.keys()
    moved = 0
    for name, (codes, scales, zero_points) in after.items():
        old_codes, old_scales, _ = before[name]
        np.testing.assert_array_equal(scales, old_scales)
        assert zero_points.shape == scales.shape
        np.testing.assert_array_equal(codes - zero_points[0].astype(int), old_codes)
        assert (codes.dtype, set(zero_points.flat)) in ((np.uint8, {128}), (np.int8, {0}))
        moved += codes.dtype == np.uint8
    assert moved


@cases
def test_it_meets_its_spec_and_computes_the_same(case: Case) -> None:
    exact, x = to_dialect(case(), EXACT), inputs(case())
    check_graph(exact, spec_of(EXACT), "graph")
    as_written = [
        run_batches(open_session(model, as_written=True), x) for model in (exact, to_dialect(case(), U8))
    ]
    np.testing.assert_array_equal(*as_written)


def assert_the_same_on_onnxruntime(canonical: onnx.ModelProto, x: np.ndarray, path: Path) -> None:
    exact = to_dialect(canonical, EXACT)
    write_graph(exact, path)
    audit = audit_graph(path)
    assert audit.int8_ops == audit.weighted_ops > 0
    expected = run_batches(open_session(to_dialect(canonical, U8)), x)
    np.testing.assert_array_equal(run_batches(open_session(exact), x), expected)


@here_is_exact
@cases
def test_graphs_run_in_int8_and_give_the_same_logits(case: Case, tmp_path: Path) -> None:
    assert_the_same_on_onnxruntime(case(), inputs(case(), 32), tmp_path / "graph.onnx")


@here_is_exact
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_run_in_int8_and_give_the_same_logits(kind: type[nn.Module], tmp_path: Path) -> None:
    quantized = prepare(build(kind), examples(1))
    calibrate(quantized, [examples(64)])
    quantized.set_fake_quantizing(True)
    export_int8(quantized.eval(), INPUT, tmp_path / "canonical.onnx", opset=21)
    x = 1.5 * examples(64, seed=3).numpy()
    assert_the_same_on_onnxruntime(read_graph(tmp_path / "canonical.onnx"), x, tmp_path / "exact.onnx")


def test_a_depthwise_convolution_keeps_its_int8_weights() -> None:
    dtypes = {
        name: codes.dtype.name
        for name, (codes, *_) in weights(to_dialect(CASES["depthwise"](), EXACT)).items()
    }
    assert dtypes == {"/Conv_3": "uint8", "/Conv_8": "int8", "/Conv_13": "uint8", "/Gemm_24": "uint8"}


def with_codes(model: onnx.ModelProto, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        codes = numpy_helper.to_array(tensor)
        if codes.dtype == np.int8 and codes.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(change(codes).astype(np.int8), tensor.name))
    return model


@cases
def test_weights_of_seven_bits_stay_as_they_are(case: Case) -> None:
    canonical = with_codes(case(), lambda codes: codes.clip(-63, 63))
    assert to_dialect(canonical, EXACT) == to_dialect(canonical, U8)


@pytest.mark.parametrize("opened", ["once", "twice"])
def test_one_weight_that_two_operators_read(opened: str) -> None:
    write = Writer()
    weight = write.weight(12, 12)
    x = write.quantize(write.op("Gemm", write.quantize("input"), weight, write.bias(12), transB=1))
    if opened == "twice":
        weight = write.op("DequantizeLinear", *write.nodes[0].input, axis=0)
    model = write.graph(write.op("Gemm", x, weight, write.bias(12), transB=1), shape=(12,))
    exact = to_dialect(model, EXACT, KEEP_WIDTHS)
    found = [codes for codes, *_ in weights(exact).values()]
    assert len(found) == 2
    np.testing.assert_array_equal(*found)
    matrices = [tensor for tensor in exact.graph.initializer if len(tensor.dims) == 2]
    assert [tensor.data_type for tensor in matrices] == [onnx.TensorProto.UINT8]  # one copy for both
    x_N = inputs(model)
    expected = run_batches(open_session(to_dialect(model, U8, KEEP_WIDTHS), as_written=True), x_N)
    np.testing.assert_array_equal(run_batches(open_session(exact, as_written=True), x_N), expected)


def test_a_name_that_is_taken() -> None:
    write = Writer()
    gemm = write.gemm(write.quantize("input"), 4, CLASSES)
    (codes,) = [name for name in write.constants if name.startswith("weight_") and name[-1].isdigit()][:1]
    write.constant(f"{codes}_uint8_0", np.float32(0.25))
    model = write.graph(write.op("Mul", gemm, f"{codes}_uint8_0"), shape=(4,))
    x = inputs(model)
    as_written = [
        run_batches(open_session(to_dialect(model, one), as_written=True), x) for one in (EXACT, U8)
    ]
    np.testing.assert_array_equal(*as_written)


def problems(model: onnx.ModelProto, dialect: str = EXACT) -> list[str]:
    with pytest.raises(ConversionError) as caught:
        check_graph(model, spec_of(dialect), "graph")
    return [line.strip() for line in caught.value.message.splitlines()]


def test_int8_weights_that_saturate_are_refused() -> None:
    assert problems(to_dialect(CASES["conv"](), U8)) == [
        "breaks 1 rule of the dialect onnxruntime-u8u8",
        "DequantizeLinear '/DequantizeLinear_2': an int8 weight that saturates on AVX2 without VNNI; "
        "wanted: uint8",
    ]


def test_uint8_weights_are_of_this_dialect_alone_and_have_128_as_their_zero_point() -> None:
    exact = to_dialect(CASES["conv"](), EXACT)
    assert problems(exact, U8)[1:] == [
        "DequantizeLinear '/DequantizeLinear_2': a weight in uint8; allowed: int8",
        "DequantizeLinear '/DequantizeLinear_2': a weight with a zero point other than 0",
    ]
    (zero_points,) = [one for one in exact.graph.initializer if one.name.endswith("_uint8_0_zero_point")]
    wrong = numpy_helper.to_array(zero_points).copy()
    wrong[3] = 127
    zero_points.CopyFrom(numpy_helper.from_array(wrong, zero_points.name))
    message = "DequantizeLinear '/DequantizeLinear_2': a weight with a zero point other than 128"
    assert problems(exact)[1:] == [message]
    node = next(one for one in exact.graph.node if one.name == "/DequantizeLinear_2")
    del node.input[2]
    assert problems(exact)[1:] == [message]


@pytest.mark.parametrize("form", ["MatMul", "MatMul of Transpose", "Gemm", "Gemm with transB"])
def test_the_pairs_are_those_of_the_summed_axis(form: str) -> None:
    """Large weights side by side along the outputs do not meet; side by side along the sum they do."""
    codes = np.zeros((8, 6), np.int8)  # (K, N)
    codes[0], codes[2] = 127, -127
    is_turned = form in ("MatMul of Transpose", "Gemm with transB")
    for row, dtype in ((4, "int8"), (1, "uint8")):
        write, value = Writer(), codes.copy()
        value[row] = 127
        name = write.constant("codes", value.T.copy() if is_turned else value)
        scales = write.constant("scales", np.full(6, SCALE, np.float32))
        weight = write.op("DequantizeLinear", name, scales, axis=0 if is_turned else 1)
        if form == "MatMul of Transpose":
            weight = write.op("Transpose", weight)
        options = {"transB": 1} if form == "Gemm with transB" else {}
        y = write.op(form.split()[0], write.quantize("input"), weight, **options)
        ((found, *_),) = weights(to_dialect(write.graph(y, shape=(8,)), EXACT)).values()
        assert found.dtype.name == dtype


def test_a_student_of_seven_bits_needs_no_dialect_of_its_own(tmp_path: Path) -> None:
    quantized = prepare(build(Inverted), examples(1), Scheme(reduce_range=True))
    calibrate(quantized, [examples(64)])
    quantized.set_fake_quantizing(True)
    export_int8(quantized.eval(), INPUT, tmp_path / "canonical.onnx", opset=21)
    canonical = read_graph(tmp_path / "canonical.onnx")
    plain = to_dialect(canonical, U8)
    check_graph(plain, spec_of(EXACT), "graph")
    assert plain == to_dialect(canonical, EXACT)
    x = 4 * examples(32, seed=3).numpy()
    cost = measure_saturation(plain, x)
    assert len(cost.operators) == 5
    assert (cost.share, cost.parity.max_difference) == (0, 0)


def test_a_constant_on_the_left_is_no_weight() -> None:
    """int8 times uint8 is exact: only the second operand of a product is read as a weight."""
    write = Writer()
    left = write.constant("codes", np.full((4, 8), 127, np.int8))
    scales = write.constant("scales", np.full(8, SCALE, np.float32))
    x = write.quantize(write.op("Flatten", "input", axis=1))
    y = write.op("MatMul", write.op("DequantizeLinear", left, scales, axis=1), write.op("Transpose", x))
    model = write.graph(write.op("Transpose", y), shape=(8,))
    exact = to_dialect(model, EXACT)
    assert [tensor.data_type for tensor in exact.graph.initializer if list(tensor.dims) == [4, 8]] == [
        onnx.TensorProto.INT8
    ]
