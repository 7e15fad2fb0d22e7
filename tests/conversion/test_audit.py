from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.documents.audit import Audit, AuditedOperator
from edgekd.errors import BundleError, ConversionError
from tests.conversion.graphs import CASES, IMAGE, Writer, residual

NODE_GRAPHS = Path(onnx.__file__).parent / "backend/test/data"


def audit(model: onnx.ModelProto, tmp_path: Path) -> Audit:
    write_graph(model, tmp_path / "graph.onnx")
    return audit_graph(tmp_path / "graph.onnx")


def unsigned() -> Writer:
    """A writer whose quantizers have uint8 codes with zero point 128, and `u0` for 0."""
    write = Writer()
    write.constant("zero", np.uint8(128))
    write.constant("u0", np.uint8(0))
    return write


def image(make: Callable[[Writer, str], str]) -> Callable[[], onnx.ModelProto]:
    """A graph on quantized images."""

    def graph() -> onnx.ModelProto:
        write = unsigned()
        return write.graph(make(write, write.quantize("input")), rank=4)

    return graph


def rows(make: Callable[[Writer, str], str], rank: int = 2) -> Callable[[], onnx.ModelProto]:
    """A graph on quantized rows of 4 (rank 2), or on sequences of them (rank 3)."""

    def graph() -> onnx.ModelProto:
        write = unsigned()
        shape = (4,) if rank == 2 else (5, 4)
        return write.graph(make(write, write.quantize("input")), shape=shape, rank=rank)

    return graph


def clip(write: Writer, x: str, scale: float) -> str:
    bounds = [write.constant(f"bound_{value}", np.float32(value)) for value in (0, 6)]
    step = write.constant("step", np.float32(scale))
    return write.quantize(write.op("Clip", write.conv(x, 3, 8), *bounds), step, "u0")


def silu(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    return write.quantize(write.op("Mul", y, write.op("Sigmoid", y)))


def unquantized_add(write: Writer, x: str) -> str:
    skip = write.quantize(write.conv(x, 3, 8))
    return write.quantize(write.op("Add", write.conv(x, 3, 8), skip))


def read_twice(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    return write.op("Mul", write.quantize(write.op("Relu", y), zero="u0"), y)


def dedicated(write: Writer, x: str) -> str:
    y = write.op("Relu", write.conv(x, 3, 8))
    other = write.constant("other", np.float32(0.05))
    left, right = write.quantize(y, zero="u0"), write.quantize(y, other, "u0")
    return write.quantize(write.op("Add", left, right))


def batch_norm(write: Writer, x: str) -> str:
    statistics = [write.constant(f"statistic_{index}", np.ones(8, np.float32)) for index in range(4)]
    return write.quantize(write.op("BatchNormalization", write.conv(x, 3, 8), *statistics))


def wide_weight(write: Writer, x: str) -> str:
    codes = write.constant("codes", np.ones((8, 3, 3, 3), np.int16))
    return write.quantize(write.op("Conv", x, write.op("DequantizeLinear", codes, "scale")))


def wide_output(write: Writer, x: str) -> str:
    return write.quantize(write.conv(x, 3, 8), zero=write.constant("z16", np.uint16(0)))


def wide_input(write: Writer, x: str) -> str:
    wide = write.quantize("input", zero=write.constant("z16", np.uint16(0)))
    return write.quantize(write.conv(wide, 3, 8))


FIRST = "its output goes into"
CAUSES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "hard swish": (
        image(lambda write, x: write.quantize(write.op("HardSwish", write.conv(x, 3, 8)))),
        "HardSwish is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "silu": (
        image(silu),
        "SiLU is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "leaky": (
        image(lambda write, x: write.quantize(write.op("LeakyRelu", write.conv(x, 3, 8)))),
        "LeakyRelu is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "relu6": (
        image(lambda write, x: clip(write, x, 0.08)),
        "the Clip [0, 6] after it is narrower than its quantizer [0, 20.4]",
    ),
    "relu in a signed grid": (
        image(lambda write, x: write.quantize(write.op("Relu", write.conv(x, 3, 8)))),
        "the Relu after it is quantized to uint8 with zero point 128",
    ),
    "float input": (
        image(lambda write, x: write.quantize(write.conv("input", 3, 8))),
        "its input 'input' has no DequantizeLinear",
    ),
    "float input from an operator": (
        image(lambda write, x: write.quantize(write.conv(write.op("Tanh", x), 3, 8))),
        "its input 'Tanh_2', made by Tanh '/Tanh_2', has no DequantizeLinear",
    ),
    "layout in between": (
        rows(lambda write, x: write.gemm(write.op("Flatten", x), 4, 5)),
        "Flatten '/Flatten_2' is between it and its input's DequantizeLinear",
    ),
    "float output": (image(lambda write, x: write.conv(x, 3, 8)), "its output leaves the graph in float"),
    "unquantized add": (image(unquantized_add), f"{FIRST} Add '/Add_8' without a QuantizeLinear"),
    "read in float": (image(read_twice), f"{FIRST} Mul '/Mul_7' without a QuantizeLinear"),
    "dedicated quantizers": (image(dedicated), "its output has 2 quantizers, one for each reader"),
    "batch norm": (image(batch_norm), "BatchNormalization '/BatchNormalization_4' follows it"),
    "transposed convolution": (
        image(
            lambda write, x: write.quantize(write.op("ConvTranspose", x, write.weight(3, 8, 3, 3, axis=1)))
        ),
        "ONNX Runtime's CPU provider has no int8 ConvTranspose",
    ),
    "computed weight": (
        image(lambda write, x: write.quantize(write.op("Conv", x, write.op("Tanh", "input")))),
        "its weight is not a constant",
    ),
    "int16 weight": (image(wide_weight), "its weight is int16 and its input uint8"),
    "uint16 input": (image(wide_input), "its input is quantized to uint16"),
    "uint16 output": (image(wide_output), "its input is uint8 and its output uint16"),
    "gemm's float bias": (
        rows(lambda write, x: write.gemm(x, 4, 5)),
        "its output is float and its bias is not quantized",
    ),
    "gemm's factor": (
        rows(lambda write, x: write.op("Gemm", x, write.weight(5, 4), write.bias(5), transB=1, beta=2.0)),
        "it has a factor beta",
    ),
    "float weight": (
        rows(lambda write, x: write.op("MatMul", x, write.float_weight(4, 5)), rank=3),
        "its weight is not quantized",
    ),
    "weight alone": (
        rows(lambda write, x: write.op("MatMul", "input", write.weight(4, 5, axis=1)), rank=3),
        "its input 'input' has no DequantizeLinear",
    ),
}


@pytest.mark.parametrize(("make", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_each_cause_is_named(make: Callable[[], onnx.ModelProto], cause: str, tmp_path: Path) -> None:
    found = [operator for operator in audit(make(), tmp_path).operators if not operator.int8]
    assert [operator.cause for operator in found] == [cause]
    assert found[0].advice


INT8: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "narrow range under a clip": (image(lambda write, x: clip(write, x, 6 / 255)), "QLinearConv"),
    "quantizers around the activation": (
        image(lambda write, x: write.quantize(write.op("LeakyRelu", write.quantize(write.conv(x, 3, 8))))),
        "QLinearConv",
    ),
    "gemm without bias": (
        rows(lambda write, x: write.op("Gemm", x, write.weight(5, 4), transB=1)),
        "QGemm",
    ),
    "gemm before a quantizer": (rows(lambda write, x: write.quantize(write.gemm(x, 4, 5))), "QGemm"),
    "matrix product": (
        rows(lambda write, x: write.op("MatMul", x, write.weight(4, 5, axis=1)), rank=3),
        "MatMulIntegerToFloat",
    ),
}


@pytest.mark.parametrize(("make", "runs_as"), INT8.values(), ids=INT8.keys())
def test_what_runs_in_int8_is_counted(
    make: Callable[[], onnx.ModelProto], runs_as: str, tmp_path: Path
) -> None:
    (operator,) = audit(make(), tmp_path).operators
    assert (operator.int8, operator.runs_as, operator.cause, operator.advice) == (True, runs_as, None, None)


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
    assert found.int8_ops == 4


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
    assert [(operator.runs_as, operator.cause) for operator in found.operators] == [
        ("nothing", "the runtime removed it: its result is constant or not used")
    ]


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
