"""The audit on the network that TensorRT's parser makes; the parser is the real one of TensorRT for RTX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.conversion.audit import TOO_LARGE
from edgekd.conversion.auditing import tensorrt as auditing
from edgekd.conversion.auditing.optimized import numbered
from edgekd.conversion.auditing.tensorrt import NOTE, audit_tensorrt
from edgekd.conversion.dialects import to_dialect
from edgekd.documents.audit import Audit
from edgekd.errors import MissingError
from edgekd.runtimes import tensorrt as host
from edgekd.runtimes.tensorrt import parse_network
from edgekd.runtimes.tensorrt_network import Layer, ParsedNetwork
from tests.conversion.audit_cases import Body, Make, conv_with, image, opened, rows, signed
from tests.conversion.graphs import CASES, Writer, conv_relu, residual

PARSED = "CONVOLUTION of int8 x int8"


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("tensorrt_rtx")


def audit(model: onnx.ModelProto, tmp_path: Path) -> Audit:
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return audit_tensorrt(model, path)


def findings(found: Audit) -> list[tuple[str, str]]:
    return [(one.cause_id, one.message) for one in found.findings]


@pytest.mark.parametrize("name", CASES)
def test_every_operator_of_a_canonical_graph_is_parsed_in_int8(name: str, tmp_path: Path) -> None:
    found = audit(CASES[name](), tmp_path)
    assert [operator.cause for operator in found.operators if not operator.int8] == []
    assert found.loaded
    assert found.problems == ()
    assert {operator.runs_as.split(" of ")[1] for operator in found.operators} == {"int8 x int8"}
    assert found.notes[0] == NOTE
    assert found.runtime == "tensorrt"
    assert found.runtime_version.startswith("tensorrt-rtx 1.")


def test_what_the_parsed_network_holds(tmp_path: Path) -> None:
    found = audit(conv_relu(), tmp_path)
    assert found.optimized_operators == {
        "ACTIVATION": 1,
        "CONSTANT": found.optimized_operators["CONSTANT"],
        "CONVOLUTION": 1,
        "DEQUANTIZE": 3,
        "QUANTIZE": 2,
    }
    assert [operator.runs_as for operator in found.operators] == [PARSED]
    assert findings(found) == []


def test_the_dialect_of_another_runtime_is_refused_with_the_node(tmp_path: Path) -> None:
    found = audit(to_dialect(residual(), "onnxruntime-u8"), tmp_path)
    assert not found.loaded
    (problem,) = found.problems
    assert problem.startswith("tensorrt-rtx's parser refuses QuantizeLinear '")
    assert "Non-zero zero point is not supported" in problem
    assert "\n" not in problem
    assert {operator.runs_as for operator in found.operators} == {"not parsed"}
    causes = {operator.cause_id for operator in found.operators}
    assert causes == {"zero-point", "unsigned-codes"}
    assert found.int8_ops == 0


def test_uint8_codes_count_as_wrong_though_the_parser_takes_them(tmp_path: Path) -> None:
    write = Writer()
    write.constant("zero", np.uint8(0))
    found = audit(write.graph(write.quantize(write.conv(write.quantize("input"), 3, 8)), rank=4), tmp_path)
    assert found.loaded
    (operator,) = found.operators
    assert (operator.int8, operator.runs_as, operator.cause_id) == (False, PARSED, "unsigned-codes")
    assert operator.cause == (
        "the codes of its input are uint8, which TensorRT reads as int8 and so clips at half of their range"
    )
    assert any("UINT8" in note for note in found.notes)


def int32_bias(write: Writer, x: str) -> str:
    bias = opened(write, np.arange(8, dtype=np.int32), np.full(8, 0.001))
    return conv_with(write, x, write.weight(8, 3, 3, 3), bias)


CAUSES: dict[str, tuple[Make, str, str]] = {
    "float weight": (
        signed(lambda write, x: write.quantize(write.op("Conv", x, write.float_weight(8, 3, 3, 3)))),
        "weight-not-quantized",
        "its weight is not quantized",
    ),
    "float input": (
        signed(lambda write, x: write.quantize(write.conv("input", 3, 8))),
        "input-not-quantized",
        "its input 'input' has no DequantizeLinear",
    ),
    "zero point of a weight": (
        signed(lambda write, x: conv_with(write, x, opened(write, np.ones((8, 3, 3, 3), np.int8), 0.1, 3))),
        "zero-point",
        "the zero point of its weight is 3, not 0",
    ),
    "int32 bias": (signed(int32_bias), "int32-bias", "its bias is int32, which TensorRT refuses"),
    "weight alone": (
        lambda: (lambda write: write.graph(write.conv("input", 3, 8), rank=4))(Writer()),
        "input-not-quantized",
        "its input 'input' has no DequantizeLinear",
    ),
    "uint8": (
        image(lambda write, x: write.quantize(write.conv(x, 3, 8))),
        "zero-point",
        "the zero point of its input is 128, not 0",
    ),
}


def no_zero_point() -> onnx.ModelProto:
    write = Writer()
    x = write.op("DequantizeLinear", write.op("QuantizeLinear", "input", "scale"), "scale")
    return write.graph(write.quantize(write.conv(x, 3, 8)), rank=4)


CAUSES["uint8 for want of a zero point"] = (
    no_zero_point,
    "unsigned-codes",
    "the codes of its input are uint8, which TensorRT reads as int8 and so clips at half of their range",
)


@pytest.mark.parametrize(("make", "cause_id", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_each_cause_is_named(make: Make, cause_id: str, cause: str, tmp_path: Path) -> None:
    (operator,) = audit(make(), tmp_path).operators
    assert (operator.int8, operator.cause_id, operator.cause) == (False, cause_id, cause)
    assert operator.advice


def before_relu(write: Writer, x: str) -> str:
    return write.quantize(write.op("Relu", write.quantize(write.conv(x, 3, 8))))


def before_add(write: Writer, x: str) -> str:
    left, right = (write.quantize(write.conv(x, 3, 8)) for _ in range(2))
    return write.quantize(write.op("Relu", write.op("Add", left, right)))


def float_skip(write: Writer, x: str) -> str:
    skip = write.op("Abs", write.conv(x, 3, 8))
    return write.quantize(write.op("Relu", write.op("Add", write.conv(x, 3, 8), skip)))


def batch_norm(write: Writer, x: str) -> str:
    parts = [write.constant(f"part_{index}", np.ones(8, np.float32)) for index in range(4)]
    return write.quantize(write.op("BatchNormalization", write.conv(x, 3, 8), *parts))


def concat(write: Writer, x: str) -> str:
    left = write.quantize(write.conv(x, 3, 8))
    right = write.quantize(write.conv(x, 3, 8), write.constant("other", np.float32(0.03)))
    return write.quantize(write.op("Concat", left, right, axis=1))


def silu(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    return write.quantize(write.op("Mul", y, write.op("Sigmoid", y)))


def softmax(write: Writer, x: str) -> str:
    return write.quantize(write.op("Softmax", write.quantize(write.conv(x, 3, 8)), axis=1))


REMARKS: dict[str, tuple[Body, list[tuple[str, str]]]] = {
    "nothing to say": (lambda write, x: write.quantize(write.op("Relu", write.conv(x, 3, 8))), []),
    "quantizer before an activation": (
        before_relu,
        [
            (
                "quantizer-before-activation",
                "/Conv_3: a quantizer stands between it and Relu '/Relu_6'",
            )
        ],
    ),
    "quantizers before an addition": (
        before_add,
        [
            (
                "quantizer-before-add",
                "/Conv_3: a quantizer stands between it and Add '/Add_10', which becomes a kernel of its own",
            )
        ],
    ),
    "float skip connection": (
        float_skip,
        [
            (
                "skip-not-quantized",
                "/Conv_6: the other input of Add '/Add_7', 'Abs_4', is float, and so the result is too",
            ),
            ("float-result", "/Conv_3 writes float: UNARY read it without a quantizer"),
            (
                "float-island",
                "1 UNARY, 1 SUM, 1 RELU in float (/Abs_4, /Add_7, /Relu_8): expect reformats at its ends",
            ),
        ],
    ),
    "batch norm": (
        batch_norm,
        [
            ("batch-norm-not-folded", "/Conv_3: BatchNormalization '/BatchNormalization_4' follows it"),
            ("float-result", "/Conv_3 writes float: SCALE read it without a quantizer"),
            ("float-island", "1 SCALE in float (/BatchNormalization_4): expect reformats at its ends"),
        ],
    ),
    "concatenation": (concat, [("concat-scales", "Concat '/Concat_10': its inputs have 2 scales")]),
    "SiLU": (
        silu,
        [
            ("float-result", "/Conv_3 writes float: ACTIVATION, ELEMENTWISE read it without a quantizer"),
            ("float-island", "1 SIGMOID, 1 PROD in float (/Sigmoid_4, /Mul_5): expect reformats at its ends"),
        ],
    ),
    "softmax": (
        softmax,
        [("float-island", "1 SOFTMAX in float (/Softmax_6): expect reformats at its ends")],
    ),
    "float output": (lambda write, x: write.conv(x, 3, 8), []),
}


@pytest.mark.parametrize(("body", "expected"), REMARKS.values(), ids=REMARKS.keys())
def test_what_keeps_kernels_apart(body: Body, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    found = audit(signed(body)(), tmp_path)
    assert [operator.cause for operator in found.operators if not operator.int8] == []
    assert findings(found) == expected


def test_a_graph_that_is_not_quantized(tmp_path: Path) -> None:
    write = Writer()
    y = write.op("Conv", "input", write.float_weight(8, 3, 3, 3))
    (operator,) = audit(write.graph(y, rank=4), tmp_path).operators
    assert (operator.cause_id, operator.runs_as) == ("graph-not-quantized", "CONVOLUTION of float")


def test_operators_on_codes_are_not_known_to_it(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
        g (uint8[N, 1, 4, 4] x) => (uint8[N, 1, 4, 4] y)
        <float s = {0.1}, uint8 z = {0}, int8[1, 1, 1, 1] w = {3}, int8 wz = {0}>
        { y = QLinearConv (x, s, z, w, s, wz, s, z) }"""
    found = audit(onnx.parser.parse_model(text), tmp_path)
    assert found.operators[0].cause == (
        "TensorRT knows no QLinearConv; it reads int8 from QuantizeLinear and DequantizeLinear alone"
    )
    assert found.problems


def test_every_node_that_the_parser_refuses_is_named(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "a": 1]>
        g (float[N, 2] x) => (float[N, 2] y) { h = a.B (x) y = a.C (h) }"""
    found = audit(onnx.parser.parse_model(text), tmp_path)
    assert [problem.split(":")[0] for problem in found.problems] == [
        "tensorrt-rtx's parser refuses B 'B of 'h''",
        "tensorrt-rtx's parser refuses C 'C of 'y''",
    ]
    assert not found.loaded


def test_a_matrix_product_is_found_behind_its_bias(tmp_path: Path) -> None:
    found = audit(rows(lambda write, x: write.gemm(x, 4, 5))(), tmp_path)
    assert found.operators[0].cause_id == "zero-point"
    write = Writer()
    model = write.graph(write.quantize(write.gemm(write.quantize("input"), 4, 5)), shape=(4,))
    (operator,) = audit(model, tmp_path).operators
    assert (operator.int8, operator.runs_as) == (True, "MATRIX_MULTIPLY of int8 x int8")


def test_a_crash_of_the_parser_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "start", lambda *_, **__: ["crashed (SIGSEGV)", "its last words"])
    found = audit(residual(), tmp_path)
    assert found.problems == (
        "tensorrt-rtx's parser refuses the graph: the parser crashed (SIGSEGV); its last words",
    )
    assert {operator.cause_id for operator in found.operators} == {"parser-refused"}


def test_a_graph_that_is_not_whole_is_not_given_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "parse_network", None)
    path = tmp_path / "graph.onnx"
    onnx.save(residual(), path)
    found = audit_tensorrt(residual(), path, whole=False)
    assert found.problems == (TOO_LARGE,)
    assert found.weighted_ops == 4


def test_without_tensorrt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_TOOLS", {"no_such_tensorrt": "tensorrt"})
    with pytest.raises(MissingError) as caught:
        parse_network(residual())
    assert (caught.value.exit_code, str(caught.value)) == (
        3,
        'neither tensorrt-rtx nor tensorrt is installed\n  try: pip install "edgekd[tensorrt-rtx]"',
    )


def test_what_no_cause_explains_is_told_with_its_types() -> None:
    layer = Layer("c", "CONVOLUTION", ("<3>",), None, ("x", "w"), ("y",))
    network = ParsedNetwork("tensorrt", "10", (layer,), {"x": "HALF", "w": "FP8"})
    cause = auditing._unexplained(layer, ("HALF", "FP8"), network)
    assert cause.text == "the parser gives it half and fp8, for a reason that edgekd does not know"


def test_fp8_is_told_apart() -> None:
    layer = Layer("c", "CONVOLUTION", ("<3>",), None, ("x", "w"), ("y",))
    network = ParsedNetwork("tensorrt", "10", (layer,), {"x": "FP8", "w": "FP8"})
    assert auditing._unexplained(layer, ("FP8", "FP8"), network).cause_id == "fp8-codes"


def test_the_network_answers_who_makes_and_who_reads() -> None:
    network = parse_network(numbered(conv_relu()))
    (conv,) = [layer for layer in network.layers if layer.kind == "CONVOLUTION"]
    assert network.layers_of(conv.nodes[0]) == [conv]
    (relu,) = network.readers(conv.outputs[0])
    assert (relu.kind, relu.operation) == ("ACTIVATION", "RELU")
    assert network.maker(relu.outputs[0]) == relu
    assert network.maker("input") is None
    assert network.dtypes["input"] == "FLOAT"
