"""Any ONNX file: whatever it is, the audit says what it sees, and nothing crashes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgekd.conversion.audit import TOO_LARGE
from edgekd.documents.audit import Audit
from edgekd.documents.headline import headline
from edgekd.documents.runtime import TargetRuntime
from edgekd.documents.sarif import to_sarif
from edgekd.errors import BundleError, EdgekdError
from edgekd.pipeline.audit import Request, audit
from edgekd.runtimes import profiling
from tests.conversion.graphs import CASES, Writer, conv_relu, residual

NODE_GRAPHS = Path(onnx.__file__).parent / "backend/test/data"
HEAD = '<ir_version: 10, opset_import: ["": 21]>'


def written(model: onnx.ModelProto | str, folder: Path) -> Path:
    model = onnx.parser.parse_model(model) if isinstance(model, str) else model
    onnx.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


def look(path: Path, **options: object) -> Audit:
    """The audit without cost; its text and its SARIF can be made too."""
    found = audit(path, Request(**{"cost": False, **options}))  # type: ignore[arg-type]
    assert headline(found)
    assert to_sarif(found, path, "1", root=path.parent)["runs"]
    return found


UNKNOWN = """<ir_version: 10, opset_import: ["": 21, "a": 1]>
    g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float s = {0.1}, uint8 z = {0}>
    {
      h = a.B (x)  i = a.C (h)  j = a.B (i)
      q = QuantizeLinear (j, s, z)  d = DequantizeLinear (q, s, z)
      y = MatMul (d, w)
    }"""


def test_unknown_operators_are_listed_and_the_file_is_read(tmp_path: Path) -> None:
    found = look(written(UNKNOWN, tmp_path))
    assert not found.loaded
    assert found.problems == (
        "ONNX Runtime cannot load the graph: Fatal error: a:B(-1) is not a registered function/op",
        "operators that ONNX Runtime does not know: 2 a.B, 1 a.C",
    )
    (operator,) = found.operators
    assert (operator.int8, operator.runs_as, operator.cause_id) == (
        False,
        "not loaded",
        "weight-not-quantized",
    )
    assert found.quantization == "qdq"
    assert found.optimized_operators == {}


def test_an_opset_that_the_runtimes_own_rewrite_cannot_live_with(tmp_path: Path) -> None:
    write = Writer(opset=10)
    codes = write.constant("codes", np.ones((8, 3, 3, 3), np.int8))
    weight = write.op("DequantizeLinear", codes, "scale", "zero")
    y = write.quantize(write.op("Conv", write.quantize("input"), weight, write.bias(8)))
    found = look(written(write.graph(y, rank=4), tmp_path))
    assert "No Op registered for Round" in found.problems[0]
    assert found.problems[1:] == (
        "its own rewrite needs Round, which this opset lacks: write it with opset 13 or later",
        "it loads with all optimizations off, and so node by node as it is written",
    )
    assert found.operators[0].cause_id == "not-loaded"


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 12, 13, 15, 17, 19, 21, 22, 23, 24])
def test_other_opsets(opset: int, tmp_path: Path) -> None:
    write = Writer(opset=opset)
    model = write.graph(write.op("Relu", write.op("Conv", "input", write.float_weight(8, 3, 3, 3))), rank=4)
    model.ir_version = 3 if opset < 9 else 8
    if opset < 9:  # every initializer was an input then
        info = helper.make_tensor_value_info
        model.graph.input.extend(info(one.name, one.data_type, one.dims) for one in model.graph.initializer)
    found = look(written(model, tmp_path))
    assert [(one.cause_id, one.op_type) for one in found.operators] == [("graph-not-quantized", "Conv")]


def half_quantized(tmp_path: Path) -> Path:
    """The first convolution as it was trained, the rest in int8."""
    write = Writer()
    x = write.quantize(write.op("Relu", write.op("Conv", "input", write.float_weight(8, 3, 3, 3))))
    return written(write.graph(write.quantize(write.conv(x, 8, 8)), rank=4), tmp_path)


def test_half_quantized(tmp_path: Path) -> None:
    first, second = look(half_quantized(tmp_path)).operators
    assert (first.int8, first.cause_id) == (False, "weight-not-quantized")
    assert second.int8


def test_a_free_number_of_axes(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        f"{HEAD} g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {{1, 2, 3, 4}}>{{ y = MatMul (x, w) }}"
    )
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.ClearField("shape")
    path = written(model, tmp_path)
    assert look(path).operators[0].cause_id == "graph-not-quantized"
    assert audit(path).not_measured == (
        "neither latency nor a profile: the number of axes of its input 'x' is free; "
        "give arrays of a fixed shape with --inputs",
    )
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    assert audit(path, Request(inputs=tmp_path / "x.npy")).profile is not None


def test_no_inputs(tmp_path: Path) -> None:
    path = written(
        f"{HEAD} g () => (float[2, 2] y) <float[2, 2] w = {{1, 2, 3, 4}}> {{ y = MatMul (w, w) }}", tmp_path
    )
    found = audit(path)
    assert found.operators[0].cause_id == "removed"
    assert found.not_measured == ("neither latency nor a profile: the graph has no inputs",)


def test_a_graph_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "TIMEOUT_S", 2.0)
    text = f"""{HEAD} g (float[N, 2] x) => (float[N, 2] y) <bool t = {{1}}>
        {{ y = Loop (, t, x) <body = b (int64 i, bool c, float[N, 2] a) => (bool d, float[N, 2] e)
                               {{ d = Identity (c) e = Relu (a) }}> }}"""
    found = audit(written(text, tmp_path))
    assert found.not_measured[1] == "no profile: the profiler did not end within 2 s"


def test_a_recurrent_network(tmp_path: Path) -> None:
    text = f"""{HEAD} g (float[S, 1, 2] x) => (float[S, 1, 1, 2] y) <float[1, 8, 2] w, float[1, 8, 2] r>
        {{ y, h, c = LSTM <hidden_size = 2> (x, w, r) }}"""
    model = onnx.parser.parse_model(text)
    del model.graph.value_info[:]
    weight = np.ones((1, 8, 2), np.float32)
    model.graph.initializer.extend(numpy_helper.from_array(weight, name) for name in ("w", "r"))
    (operator,) = look(written(model, tmp_path)).operators
    assert (operator.op_type, operator.cause_id) == ("LSTM", "graph-not-quantized")


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (
        lambda data: data[: len(data) // 2],
        "is not an ONNX graph: it is damaged or of another kind",
    ),
    "empty": (lambda data: b"", "is not an ONNX graph: it has no nodes"),
    "something else": (lambda data: b"<html>", "is not an ONNX graph: it is damaged or of another kind"),
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(
    damage: Callable[[bytes], bytes], message: str, runtime: TargetRuntime, tmp_path: Path
) -> None:
    path = written(residual(), tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError) as caught:
        audit(path, Request(runtime=runtime))
    assert str(caught.value) == f"{path}: {message}"


def external(tmp_path: Path) -> Path:
    onnx.save(
        residual(), tmp_path / "graph.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    return tmp_path / "graph.onnx"


def test_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert look(path).weighted_ops == 4
    (tmp_path / "w.bin").unlink()
    with pytest.raises(BundleError, match=r"is missing: there is no file 'w\.bin'"):
        look(path)


def test_external_data_outside(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
    onnx.save(model, path)
    shutil.move(tmp_path / "w.bin", tmp_path.parent / "w.bin")
    with pytest.raises(BundleError, match="outside the graph's folder"):
        look(path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_more_than_two_gibibytes_are_read_from_the_file(runtime: TargetRuntime, tmp_path: Path) -> None:
    """Nothing of the weights is read: the file has no content, only a size."""
    path = written(residual(), tmp_path)
    model = onnx.load(path)
    huge = next(
        one for one in model.graph.initializer if one.name.startswith("weight_") and len(one.dims) == 4
    )
    sizes = {"location": "huge.bin", "offset": "0", "length": str(2**31 + 8)}
    huge.ClearField("raw_data")
    huge.data_location = onnx.TensorProto.EXTERNAL
    for key, value in sizes.items():
        huge.external_data.add(key=key, value=value)
    onnx.save(model, path)
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(2**31 + 8)
    found = look(path, runtime=runtime)
    assert not found.loaded
    assert found.problems == (TOO_LARGE,)
    assert found.weighted_ops == 4
    if runtime == "onnxruntime":
        assert found.operators[0].cause_id == "relu-zero-point"
        assert found.operators[3].cause_id == "gemm-bias"


@pytest.mark.parametrize("part", range(8))
def test_onnx_own_graphs_are_audited(part: int) -> None:
    audited = 0
    for path in sorted(NODE_GRAPHS.glob("*/*/model.onnx"))[part::8]:
        found = look(path)
        audited += found.loaded
        assert found.loaded or found.problems
        assert all(operator.cause_id for operator in found.operators)
    assert audited > 5


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(sorted(CASES)), seed=st.integers(0, 2**32 - 1))
def test_a_graph_that_was_tampered_with_is_audited_or_refused(
    name: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One thing about a graph is changed at random: an input, an output, a type, an attribute, a constant."""
    random, model = np.random.default_rng(seed), CASES[name]()
    node = model.graph.node[int(random.integers(len(model.graph.node)))]
    constant = model.graph.initializer[int(random.integers(len(model.graph.initializer)))]
    names = [one for each in model.graph.node for one in (*each.input, *each.output)]
    match int(random.integers(7)):
        case 0:
            node.input[int(random.integers(len(node.input)))] = str(random.choice(names))
        case 1:
            del node.input[int(random.integers(len(node.input))) :]
        case 2:
            node.op_type = str(
                random.choice(["Relu", "Conv", "MatMul", "Gemm", "Add", "Concat", "HardSwish"])
            )
        case 3:
            del node.attribute[:]
        case 4:
            constant.data_type = int(random.integers(1, 13))
        case 5:
            value = numpy_helper.to_array(constant)
            constant.CopyFrom(numpy_helper.from_array(np.asarray(value).reshape(-1)[:1], constant.name))
        case 6:
            model.graph.output[0].name = str(random.choice(names))
    path = written(model, tmp_path_factory.mktemp("tampered"))
    try:
        found = look(path)
    except EdgekdError:
        return
    assert found.weighted_ops >= 0


def test_a_name_that_looks_like_ours(tmp_path: Path) -> None:
    """Nodes are numbered before the runtime is asked; a user's own such names do no harm."""
    model = conv_relu()
    for node in model.graph.node:
        node.name = "<999>"
    found = look(written(model, tmp_path))
    assert [(one.name, one.cause_id) for one in found.operators] == [("<999>", "relu-zero-point")]
