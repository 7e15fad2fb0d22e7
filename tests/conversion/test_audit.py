from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekd.conversion.audit import audit_graph, quantization_of
from edgekd.conversion.auditing.causes.explain import explain, remarks
from edgekd.conversion.auditing.causes.processor import Processor
from edgekd.conversion.auditing.optimized import with_names
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.graph_view import views
from edgekd.documents.audit import Audit, AuditedOperator
from edgekd.errors import BundleError, ConversionError
from edgekd.runtimes.onnxruntime import open_session, run_batches
from tests.conversion.audit_cases import (
    CAUSES,
    INT8,
    ON_X86,
    Make,
    codes,
    conv_with,
    image,
    opened,
    rows,
    unsigned,
)
from tests.conversion.graphs import CASES, IMAGE, Writer, residual

NODE_GRAPHS = Path(onnx.__file__).parent / "backend/test/data"
X86 = Processor(unsigned_alone=True, signed_weights=True)
ARM = Processor(unsigned_alone=False, signed_weights=False)


def audit(model: onnx.ModelProto, tmp_path: Path) -> Audit:
    write_graph(model, tmp_path / "graph.onnx")
    return audit_graph(tmp_path / "graph.onnx")


@pytest.mark.parametrize(("make", "cause_id", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_each_cause_is_named(make: Make, cause_id: str, cause: str, tmp_path: Path) -> None:
    found = [operator for operator in audit(make(), tmp_path).operators if not operator.int8]
    assert {operator.cause for operator in found} == {cause}
    assert {operator.cause_id for operator in found} == {cause_id}
    assert found[0].advice


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="Arm has kernels for int8 codes")
@pytest.mark.parametrize(("make", "cause"), ON_X86.values(), ids=ON_X86.keys())
def test_signed_codes_that_stay_are_named(make: Make, cause: str, tmp_path: Path) -> None:
    found = [operator for operator in audit(make(), tmp_path).operators if not operator.int8]
    assert {(operator.cause_id, operator.cause) for operator in found} == {("signed-codes", cause)}


@pytest.mark.parametrize("make", [make for make, _ in ON_X86.values()], ids=ON_X86.keys())
def test_signed_codes_are_no_cause_on_arm(make: Make) -> None:
    (view,) = views(make())
    node = next(node for node in view.graph.node if node.op_type in ("Conv", "Gemm"))
    assert explain(view, node, "Conv", X86).cause_id == "signed-codes"
    assert explain(view, node, "Conv", ARM).cause_id in ("not-fused", "gemm-bias")


def test_the_bounds_of_an_old_clip_are_attributes() -> None:
    write = unsigned()
    clip = write.op("Clip", write.conv(write.quantize("input"), 3, 8), min=0.0, max=6.0)
    (view,) = views(write.graph(write.quantize(clip, zero="u0"), rank=4))
    node = next(node for node in view.graph.node if node.op_type == "Conv")
    assert explain(view, node, "Conv", X86).text == (
        "the Clip [0, 6] after it is narrower than its quantizer [0, 20.4]"
    )


def test_the_processor_is_known_by_its_machine() -> None:
    assert Processor.of("x86_64 avx2 avx512_vnni") == X86
    assert Processor.of("x86_64 avx2 avx512f") == Processor(unsigned_alone=True, signed_weights=False)
    assert Processor.of("aarch64 asimd asimddp i8mm") == ARM
    assert Processor.of("armv7l neon") == ARM


def test_a_message_of_the_runtime_names_the_users_nodes() -> None:
    model = residual()
    names = [node.name for node in model.graph.node]
    assert with_names("in <0> and <1>", model) == f"in {names[0]} and {names[1]}"
    assert with_names("in <9999>", model) == "in <9999>"


def test_what_no_cause_explains_is_told_with_what_is_known() -> None:
    (view,) = views(image(lambda write, x: write.quantize(write.conv(x, 3, 8)))())
    node = next(node for node in view.graph.node if node.op_type == "Conv")
    assert explain(view, node, "Conv", X86).text == (
        "ONNX Runtime did not fuse it, for a reason that edgekd does not know: it reads uint8, its weight is "
        "int8, and its result goes into QuantizeLinear '/QuantizeLinear_4'"
    )


@pytest.mark.parametrize(("make", "runs_as"), INT8.values(), ids=INT8.keys())
def test_what_runs_in_int8_is_counted(make: Make, runs_as: str, tmp_path: Path) -> None:
    found = audit(make(), tmp_path)
    (operator,) = found.operators
    assert (operator.int8, operator.runs_as, operator.cause, operator.advice) == (True, runs_as, None, None)
    assert [one.cause_id for one in found.findings if one.level == "error"] == []


def wrong_axis(write: Writer, x: str) -> str:
    """Without a bias ONNX Runtime takes the scales of input channels for those of output channels."""
    x = write.quantize(write.conv(x, 3, 8))
    scales = write.random.uniform(0.001, 0.01, 8)
    return conv_with(write, x, opened(write, codes(write, 8, 8, 3, 3), scales, [0] * 8, axis=1))


WRONG: dict[str, tuple[Make, str]] = {
    "convolution": (image(wrong_axis), "its weight has its scales on axis 1, not on axis 0"),
    "product": (
        rows(lambda write, x: write.op("MatMul", x, write.weight(4, 4, axis=0)), rank=3),
        "its weight has its scales on axis 0, not on axis 1",
    ),
    "gemm": (
        rows(lambda write, x: write.quantize(write.op("Gemm", x, write.weight(4, 4, axis=1), transB=1))),
        "its weight has its scales on axis 1, not on axis 0",
    ),
}


@pytest.mark.parametrize(("make", "cause"), WRONG.values(), ids=WRONG.keys())
def test_int8_that_computes_something_else_is_an_error(make: Make, cause: str, tmp_path: Path) -> None:
    found = audit(make(), tmp_path)
    (fault,) = [one for one in found.findings if one.level == "error"]
    name = found.operators[-1].name
    assert (fault.cause_id, fault.operators) == ("weight-axis", (name,))
    assert fault.message == f"{name} runs in int8 and computes something else, or fails when it runs: {cause}"
    model = make()
    shape = [2, *(axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    written, optimized = (
        open_session(model, as_written=plain).run(None, {"input": x})[0] for plain in (True, False)
    )
    assert np.abs(written - optimized).max() > 0.1 * np.abs(written).max()


def test_an_output_with_many_scales_is_an_error(tmp_path: Path) -> None:
    def per_channel(write: Writer, x: str) -> str:
        parts = [
            write.constant("s8", np.full(8, 0.05, np.float32)),
            write.constant("z8", np.full(8, 128, np.uint8)),
        ]
        made = write.op("QuantizeLinear", write.conv(x, 3, 8), *parts, axis=1)
        return write.op("DequantizeLinear", made, *parts, axis=1)

    found = audit(image(per_channel)(), tmp_path)
    (fault,) = [one for one in found.findings if one.level == "error"]
    text = "/Conv_3 runs in int8 and computes something else, or fails when it runs:"
    assert fault.message == f"{text} its output has 8 scales, not one"
    with pytest.raises(ConversionError, match="zero point"):
        run_batches(open_session(image(per_channel)()), np.zeros((1, *IMAGE), np.float32))


def remarked(make: Make, processor: Processor) -> list[str]:
    """What is said of the last weighted operator of a graph."""
    (view,) = views(make())
    node = [node for node in view.graph.node if re.search("Conv|MatMul|Gemm", node.op_type)][-1]
    return [f"{one.cause_id}: {one.text}" for one in remarks(view, node, processor)]


def with_weight(dtype: type, zero: object) -> Make:
    return image(
        lambda write, x: conv_with(write, x, opened(write, codes(write, 8, 3, 3, 3, dtype=dtype), 0.01, zero))
    )


def test_slow_weights_are_told() -> None:
    slow = "unsigned-weights: its weight is uint8; int8 weights have faster kernels here"
    assert remarked(with_weight(np.int8, 0), X86) == []
    assert remarked(with_weight(np.uint8, 128), X86) == [slow]
    assert remarked(with_weight(np.uint8, 128), Processor(unsigned_alone=True, signed_weights=False)) == []
    assert remarked(with_weight(np.int8, 3), X86) == [
        "asymmetric-weights: its weight has the zero point 3, not 0 alone"
    ]
    per_channel = image(
        lambda write, x: conv_with(
            write, x, opened(write, codes(write, 8, 3, 3, 3), np.full(8, 0.01), np.arange(8))
        )
    )
    assert remarked(per_channel, X86) == [
        "asymmetric-weights: its weight has zero points 1 to 7, not 0 alone"
    ]


def operator_on_codes(dtype: str, weight: str) -> Make:
    text = f"""<ir_version: 10, opset_import: ["": 21]>
        g ({dtype}[N, 1, 4, 4] x) => ({dtype}[N, 1, 4, 4] y)
        <float s = {{0.1}}, {dtype} z = {{0}}, {weight}[1, 1, 1, 1] w = {{3}}, {weight} wz = {{0}}>
        {{ y = QLinearConv (x, s, z, w, s, wz, s, z) }}"""
    return lambda: onnx.parser.parse_model(text)


def test_slow_activations_of_operators_on_codes_are_told() -> None:
    text = "its activations are int8, for which ONNX Runtime has no fast kernel on this processor"
    slow = f"signed-activations: {text}"
    assert remarked(operator_on_codes("int8", "int8"), X86) == [slow]
    assert remarked(operator_on_codes("int8", "int8"), ARM) == []
    assert remarked(operator_on_codes("uint8", "int8"), X86) == []


DYNAMIC = """<ir_version: 10, opset_import: ["": 21]>
    g (float[N, 4] x) => (float[N, 5] y) <int8[4, 5] w, int8 wz = {0}, float ws = {0.1}>
    {
      q, s, z = DynamicQuantizeLinear (x)
      p = MatMulInteger (q, w, z, wz)
      f = Cast <to = 1> (p)
      t = Mul (s, ws)
      y = Mul (f, t)
    }"""


def dynamic() -> onnx.ModelProto:
    model = onnx.parser.parse_model(DYNAMIC)
    values = np.arange(-10, 10, dtype=np.int8).reshape(4, 5)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    del model.graph.value_info[:]
    return model


def test_dynamic_quantization_is_told(tmp_path: Path) -> None:
    found = audit(dynamic(), tmp_path)
    (operator,) = found.operators
    assert (operator.int8, operator.runs_as, found.quantization) == (True, "DynamicQuantizeMatMul", "dynamic")
    assert [(one.cause_id, one.level) for one in found.findings] == [("dynamic-quantization", "note")]
    fused = "com.microsoft.DynamicQuantizeMatMul (x, w, s)"
    text = f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        g (float[N, 2] x) => (float[N, 2] y)
        <int8[2, 2] w = {{1, 2, 3, 4}}, float s = {{0.1}}> {{ y = {fused} }}"""
    assert remarked(lambda: onnx.parser.parse_model(text), X86) == [
        "dynamic-quantization: the input is quantized anew at each run"
    ]


def test_how_a_graph_is_quantized() -> None:
    assert quantization_of(float_chain()) == "none"
    assert quantization_of(residual()) == "qdq"
    assert quantization_of(operator_on_codes("uint8", "int8")()) == "qoperator"
    assert quantization_of(dynamic()) == "dynamic"
    both = residual()
    both.graph.node.extend(dynamic().graph.node)
    assert quantization_of(both) == "mixed"


def test_the_canonical_graph_names_its_dialect_as_the_cause(tmp_path: Path) -> None:
    found = audit(residual(), tmp_path)
    assert (found.int8_ops, found.weighted_ops) == (1, 4)
    assert found.operators[0] == AuditedOperator(
        name="/Conv_3",
        op_type="Conv",
        int8=False,
        runs_as="FusedConv",
        cause="the Relu after it is quantized to int8 with zero point 0, as TensorRT wants it; "
        "ONNX Runtime folds a Relu only into codes that start at it",
        advice="use the dialect onnxruntime-u8: uint8 with zero point 0 after a Relu",
        cause_id="relu-zero-point",
    )


def test_what_the_audit_says_of_the_graph_and_the_machine(tmp_path: Path) -> None:
    found = audit(to_dialect(residual(), "onnxruntime-u8"), tmp_path)
    assert (found.int8_ops, found.weighted_ops) == (4, 4)
    assert found.graph == "graph.onnx"
    assert found.graph_sha256 == hashlib.sha256((tmp_path / "graph.onnx").read_bytes()).hexdigest()
    assert (found.runtime, found.runtime_version) == ("onnxruntime", onnxruntime.__version__)
    assert found.optimized_operators["QLinearConv"] == 3
    assert found.optimized_operators["QLinearAdd"] == 1


def float_chain() -> onnx.ModelProto:
    """Float operators that ONNX Runtime renames: NCHWc convolutions, MatMul with Add, a fused Relu."""
    write = Writer()
    x = write.op("Relu", write.op("Conv", "input", write.float_weight(16, 3, 3, 3)))
    y = write.op("Conv", x, write.float_weight(16, 16, 1, 1))
    x = write.op("HardSwish", write.op("Add", x, y))
    x = write.op("Flatten", write.op("GlobalAveragePool", x))
    x = write.op("Relu", write.op("Add", write.op("MatMul", x, write.float_weight(16, 20)), write.bias(20)))
    return write.graph(write.op("MatMul", x, write.op("Transpose", write.float_weight(5, 20))), IMAGE)


def test_renamed_float_operators_are_found_again(tmp_path: Path) -> None:
    found = audit(float_chain(), tmp_path)
    assert [(operator.op_type, operator.runs_as) for operator in found.operators] == [
        ("Conv", "Conv"),
        ("Conv", "Conv"),
        ("MatMul", "FusedGemm"),
        ("MatMul", "MatMul"),
    ]
    assert {operator.cause for operator in found.operators} == {"the graph is not quantized"}


def test_nodes_without_names_and_with_the_same_name(tmp_path: Path) -> None:
    model = to_dialect(CASES["depthwise"](), "onnxruntime-u8")
    for number, node in enumerate(model.graph.node):
        node.name = "" if number % 2 else "same"
    found = audit(model, tmp_path)
    assert found.int8_ops == found.weighted_ops == 4
    assert {operator.name for operator in found.operators} <= {
        "same",
        *(f"{node.op_type} of '{node.output[0]}'" for node in model.graph.node),
    }


def test_a_graph_that_was_optimized_before(tmp_path: Path) -> None:
    write_graph(to_dialect(CASES["residual"](), "onnxruntime-u8"), tmp_path / "graph.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "graph.onnx", options)
    found = audit_graph(tmp_path / "optimized.onnx")
    assert [operator.runs_as for operator in found.operators] == ["QLinearConv"] * 3 + ["QGemm"]
    assert (found.int8_ops, found.quantization) == (4, "qoperator")


def test_a_fused_operator_of_a_graph_that_was_optimized_before(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        g (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y)
        <float s = {0.1}, uint8 z = {0}, float[1, 1, 1, 1] w = {3}>
        {
          q = QuantizeLinear (x, s, z)
          d = DequantizeLinear (q, s, z)
          y = com.microsoft.FusedConv <activation = "Relu"> (d, w)
        }"""
    )
    (operator,) = audit(model, tmp_path).operators
    assert (operator.cause_id, operator.cause) == (
        "no-int8-kernel",
        "ONNX Runtime's CPU provider has no int8 FusedConv",
    )
    assert operator.advice == "give the runtime the graph as it was before it was optimized"


def test_operators_in_a_branch_and_in_a_function(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21, "local": 1]>
        g (bool c, float[N, 2] x) => (float[N, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}>
        {
          h = local.Layer (x, w)
          y = If (c) <then_branch = a () => (float[N, 2] u) { u = MatMul (h, w) },
                      else_branch = b () => (float[N, 2] v) { v = Relu (h) }>
        }
        <domain: "local", opset_import: ["": 21]>
        Layer (x, w) => (y) { y = Gemm (x, w) }"""
    )
    found = audit(model, tmp_path)
    assert [(operator.op_type, operator.runs_as) for operator in found.operators] == [
        ("Gemm", "Gemm"),
        ("MatMul", "MatMul"),
    ]


def test_an_operator_whose_result_is_constant(tmp_path: Path) -> None:
    write = Writer()
    product = write.op("MatMul", write.float_weight(4, 4), write.float_weight(4, 4))
    found = audit(write.graph(write.op("Add", "input", product), shape=(4, 4), rank=3), tmp_path)
    assert [(operator.runs_as, operator.cause_id) for operator in found.operators] == [("nothing", "removed")]
    assert found.operators[0].cause == "the runtime removed it: the result is constant or not used"


def test_an_operator_that_is_not_found_is_no_removed_one() -> None:
    """Else the share of int8 operators would rise by each one that the audit loses sight of."""
    write = Writer()
    product = write.op("MatMul", "input", write.float_weight(4, 4))
    view = next(views(write.graph(write.op("Relu", product), shape=(4,), rank=2)))
    node = next(node for node in view.graph.node if node.op_type == "MatMul")
    found = explain(view, node, None, X86)
    assert (found.cause_id, found.text) == (
        "not-fused",
        "edgekd did not find it in the graph that runs: it may run in float",
    )


def test_a_graph_that_the_runtime_cannot_load(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    text = '<ir_version: 10, opset_import: ["": 21, "a": 1]> g (float[N] x) => (float[N] y) { y = a.B (x) }'
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(ConversionError) as caught:
        audit_graph(path)
    assert str(caught.value) == (
        f"{path}: ONNX Runtime cannot load the graph: Fatal error: a:B(-1) is not a registered function/op"
    )


def test_the_runtimes_message_names_the_users_node(tmp_path: Path) -> None:
    old = NODE_GRAPHS / "pytorch-operator/test_operator_addconstant/model.onnx"
    with pytest.raises(ConversionError) as caught:
        audit_graph(old)
    assert "node with name 'Add of '2''" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"no graph at all")
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        audit_graph(tmp_path / "graph.onnx")


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    audit(residual(), tmp_path)
    audit(float_chain(), tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", range(4))
def test_onnx_own_graphs_are_audited_or_refused(part: int) -> None:
    audited = 0
    for path in sorted(NODE_GRAPHS.glob("*/*/model.onnx"))[part::4]:
        try:
            found = audit_graph(path)
        except ConversionError:  # operators of old opsets, which ONNX Runtime no longer has
            continue
        audited += 1
        assert all(operator.runs_as != "nothing" and operator.cause for operator in found.operators)
    assert audited > 10
