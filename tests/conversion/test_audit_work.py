"""What runs in float between operators in int8, and to what each node of the optimized graph is put down."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.conversion.audit import Examined, examine
from edgekd.conversion.auditing.work import Part
from edgekd.conversion.dialects import to_dialect
from tests.conversion.audit_cases import Body, Make, image, rows, unsigned
from tests.conversion.graphs import Writer, depthwise, residual


def examined(model: onnx.ModelProto, tmp_path: Path) -> Examined:
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return examine(model, path)


def between(body: Body) -> Make:
    """Something between two quantized convolutions."""

    def graph(write: Writer, x: str) -> str:
        y = body(write, write.quantize(write.conv(x, 3, 8)))
        return write.quantize(write.conv(write.quantize(y), 8, 8))

    return image(graph)


def pad(write: Writer, x: str) -> str:
    return write.op("Pad", x, write.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)))


def norm(write: Writer, x: str) -> str:
    parts = [write.constant(f"part_{index}", np.ones(8, np.float32)) for index in range(2)]
    return write.op("InstanceNormalization", x, *parts)


def one_float(kind: str) -> Body:
    attributes = {"axis": 1} if kind == "Concat" else {}

    def body(write: Writer, x: str) -> str:
        joined = write.op(kind, x, write.op("Abs", x), **attributes)
        return write.op("Split", joined, axis=1, num_outputs=2) if kind == "Concat" else joined

    return body


def mixed(write: Writer, x: str) -> str:
    other = write.quantize(write.op("Relu", write.conv("DequantizeLinear_1", 3, 8)), zero="u0")
    wide = write.quantize(x, zero=write.constant("z16", np.uint16(0)))
    return write.op("Add", other, wide)


def silu(write: Writer, x: str) -> str:
    return write.op("Mul", x, write.op("Sigmoid", x))


NOTHING = "an activation function runs in float"
ISLANDS: dict[str, tuple[Body, str, str]] = {
    "hard swish": (
        lambda write, x: write.op("HardSwish", x),
        "activation-in-float",
        f"1 HardSigmoid, 1 Mul in float (/HardSwish_6), reading uint8: {NOTHING}",
    ),
    "silu": (
        silu,
        "activation-in-float",
        f"1 Sigmoid, 1 Mul in float (/Sigmoid_6, /Mul_7), reading uint8: {NOTHING}",
    ),
    "mean": (
        lambda write, x: write.op("ReduceMean", x, keepdims=1),
        "reduce-mean-in-float",
        "1 ReduceMean in float (/ReduceMean_6), reading uint8: "
        "a ReduceMean runs in float: it has no int8 kernel",
    ),
    "pad": (pad, "pad-in-float", "1 Pad in float (/Pad_6), reading uint8: a Pad runs in float"),
    "norm": (
        norm,
        "norm-in-float",
        "1 InstanceNormalization in float (/InstanceNormalization_6), reading uint8: "
        "a normalization or Softmax runs in float",
    ),
    "pooling": (
        lambda write, x: write.op("GlobalMaxPool", x),
        "pool-in-float",
        "1 GlobalMaxPool in float (/GlobalMaxPool_6), reading uint8: a pooling runs in float",
    ),
    "an addition with one float": (
        one_float("Add"),
        "add-in-float",
        "1 Abs, 1 Add in float (/Abs_6, /Add_7), reading uint8: an Add or Mul runs in float",
    ),
    "an addition of two types": (
        mixed,
        "add-in-float",
        "1 Add in float (/Add_13), reading uint8 and uint16: it reads uint8 and uint16 at once",
    ),
    "anything": (
        lambda write, x: write.op("Abs", x),
        "float-island",
        "1 Abs in float (/Abs_6), reading uint8: operators between those in int8 run in float",
    ),
}


@pytest.mark.parametrize(("body", "cause_id", "message"), ISLANDS.values(), ids=ISLANDS.keys())
def test_an_island_is_found(body: Body, cause_id: str, message: str, tmp_path: Path) -> None:
    found = examined(between(body)(), tmp_path)
    assert found.audit.int8_ops == found.audit.weighted_ops
    around = ("quantizers-left", "layout-conversion")
    islands = [one for one in found.audit.findings if one.cause_id not in around]
    assert [(one.cause_id, one.message) for one in islands] == [(cause_id, message)]
    assert islands[0].advice


def parts(found: Examined) -> list[tuple[str, Part]]:
    return [(one.node.op_type, found.work.parts[one.index]) for one in found.optimized.nodes]


def test_everything_of_the_right_dialect_is_in_int8(tmp_path: Path) -> None:
    found = examined(to_dialect(residual(), "onnxruntime-u8"), tmp_path)
    assert found.audit.findings == ()
    buckets = Counter(part.bucket for _, part in parts(found))
    assert set(buckets) <= {"int8", "layout", "quantizers", "other"}
    weighted = [part.weighted for _, part in parts(found) if part.weighted is not None]
    assert sorted(weighted) == [0, 1, 2, 3]
    assert [part.cause_id for kind, part in parts(found) if kind == "QuantizeLinear"] == [None]


def test_quantizers_belong_to_what_they_were_left_for(tmp_path: Path) -> None:
    found = examined(residual(), tmp_path)
    floats = [(kind, part) for kind, part in parts(found) if part.cause_id == "relu-zero-point"]
    assert [kind for kind, part in floats if part.weighted is not None] == ["FusedConv"] * 2
    kinds = Counter(kind for kind, part in floats if part.weighted is None)
    assert kinds["QuantizeLinear"] == 2
    assert kinds["DequantizeLinear"] >= 2  # the opened weights and biases, which ONNX Runtime does not fold
    (island,) = found.work.islands
    assert [one.node.op_type for one in island.nodes] == ["Add", "Relu"]
    assert {part.island for _, part in parts(found) if part.bucket == "island"} == {0}


def test_an_addition_says_why_it_was_not_fused(tmp_path: Path) -> None:
    (one,) = [one for one in examined(residual(), tmp_path).audit.findings if one.cause_id == "add-in-float"]
    assert one.message == (
        "1 Add, 1 Relu in float (/Add_16, /Relu_17), reading uint8 and int8: the Relu after it is quantized "
        "to int8 with zero point 0, as TensorRT wants it; ONNX Runtime folds a Relu only into codes that "
        "start at it"
    )
    assert one.advice == "use the dialect onnxruntime-u8: uint8 with zero point 0 after a Relu"


def test_a_float_graph_has_no_islands(tmp_path: Path) -> None:
    write = Writer()
    y = write.op("Softmax", write.op("Conv", "input", write.float_weight(8, 3, 3, 3)))
    found = examined(write.graph(write.op("HardSwish", y), rank=4), tmp_path)
    assert found.audit.findings == ()
    assert {part.bucket for _, part in parts(found)} <= {"float", "other", "layout"}


def test_what_prepares_the_input_is_no_island(tmp_path: Path) -> None:
    """Not even where it reads a constant that a DequantizeLinear opens."""

    def graph() -> onnx.ModelProto:
        write = unsigned()
        mean = write.op(
            "DequantizeLinear", write.constant("mean", np.full((1, 3, 1, 1), 7, np.int8)), "scale"
        )
        x = write.quantize(write.op("Sub", write.op("Abs", "input"), mean))
        return write.graph(write.quantize(write.conv(x, 3, 8)), rank=4)

    found = examined(graph(), tmp_path)
    assert found.audit.findings == ()
    assert {part.bucket for kind, part in parts(found) if kind in ("Sub", "Abs")} == {"other"}


def test_what_follows_a_product_that_writes_floats_is_an_island(tmp_path: Path) -> None:
    found = examined(
        rows(lambda write, x: write.op("Softmax", write.op("Gemm", x, write.weight(5, 4), transB=1)))(),
        tmp_path,
    )
    assert [operator.runs_as for operator in found.audit.operators] == ["QGemm"]
    assert [one.cause_id for one in found.audit.findings] == ["norm-in-float"]


def test_moves_of_the_users_own_are_not_the_runtimes(tmp_path: Path) -> None:
    def transposed(write: Writer, x: str) -> str:
        for _ in range(4):
            x = write.quantize(write.op("MatMul", x, write.weight(5, 5, axis=1)))
            x = write.quantize(write.op("Transpose", x, perm=[0, 2, 1]))
        return x

    found = examined(rows(transposed, rank=3, width=5)(), tmp_path)
    moved = [one for one in found.optimized.nodes if one.node.op_type == "Transpose"]
    assert len(moved) > 2
    assert [one for one in found.audit.findings if one.cause_id == "layout-conversion"] == []


def test_quantizers_that_stand_alone_are_found(tmp_path: Path) -> None:
    def again(write: Writer, x: str) -> str:
        wide = write.quantize(write.quantize(write.conv(x, 3, 8)), zero=write.constant("z16", np.uint16(0)))
        return write.quantize(write.op("Abs", wide))

    found = examined(image(again)(), tmp_path).audit.findings
    (one,) = [one for one in found if one.cause_id == "quantizers-left"]
    assert one.level == "warning"
    assert one.message.endswith("stand alone: no kernel took them in")


def test_moves_between_layouts_are_found(tmp_path: Path) -> None:
    def back_and_forth(write: Writer, x: str) -> str:
        for _ in range(3):
            x = write.quantize(write.op("HardSwish", write.conv(write.quantize(write.conv(x, 3, 3)), 3, 3)))
        return x

    found = examined(image(back_and_forth)(), tmp_path).audit.findings
    assert [one.message for one in found if one.cause_id == "layout-conversion"] == [
        "tensors are moved between layouts: 6 Transpose"
    ]
    assert not [
        one
        for one in examined(to_dialect(depthwise(), "onnxruntime-u8"), tmp_path).audit.findings
        if one.cause_id == "layout-conversion"
    ]


def test_an_island_in_a_branch_is_found(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (bool c, float[N, 2] x) => (float[N, 2] y) <float s = {0.1}, uint8 z = {0}>
        {
          y = If (c) <then_branch = a () => (float[N, 2] u)
                        { q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
                          h = HardSwish (d) r = QuantizeLinear (h, s, z) u = DequantizeLinear (r, s, z) },
                      else_branch = b () => (float[N, 2] v) { v = Relu (x) }>
        }"""
    )
    found = examined(model, tmp_path).audit.findings
    assert "activation-in-float" in [one.cause_id for one in found]
