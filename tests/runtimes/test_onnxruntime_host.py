from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import machine_isa, open_session, run_batches

AFFINE = """<ir_version: 10, opset_import: ["": 21]>
g (float[n, 2] x) => (float[n, 3] y)
<float[2, 3] w = {1, 2, 3, 4, 5, 6}>
{ y = MatMul (x, w) }"""


def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(AFFINE)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_batches_give_what_one_run_gives(batch_size: int) -> None:
    x = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    logits = run_batches(open_session(model()), x, batch_size)
    np.testing.assert_allclose(logits, x @ np.array([[1, 2, 3], [4, 5, 6]], np.float32), rtol=1e-5)
    assert logits.shape == (7, 3)


def test_options_reach_the_session(tmp_path: Path) -> None:
    session = open_session(
        model(),
        threads=2,
        options={"session.intra_op.allow_spinning": "0"},
        optimized=tmp_path / "optimized.onnx",
    )
    options = session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert onnx.load(tmp_path / "optimized.onnx").graph.node


def test_a_graph_as_it_is_written_keeps_its_quantizers(tmp_path: Path) -> None:
    def operators(as_written: bool) -> list[str]:
        text = """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 2] x) => (float[n, 2] y)
        <float s = {0.5}, uint8 z = {0}>
        { r = Relu (x) q = QuantizeLinear (r, s, z) y = DequantizeLinear (q, s, z) }"""
        path = tmp_path / "optimized.onnx"
        session = open_session(onnx.parser.parse_model(text), optimized=path, as_written=as_written)
        y = run_batches(session, np.array([[-1.0, 1.2]], np.float32))
        np.testing.assert_array_equal(y, [[0.0, 1.0]])
        return [node.op_type for node in onnx.load(path).graph.node]

    assert operators(as_written=True) == ["Relu", "QuantizeLinear", "DequantizeLinear"]
    assert operators(as_written=False) == ["QuantizeLinear", "DequantizeLinear"]


def test_a_graph_that_cannot_be_loaded() -> None:
    broken = model()
    broken.graph.node[0].op_type = "Unknown"
    with pytest.raises(ConversionError) as caught:
        open_session(broken)
    assert str(caught.value).startswith("ONNX Runtime cannot load the graph: ")
    assert "Unknown" in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ConversionError, match=r"^ONNX Runtime cannot run the graph: Got invalid dimensions"):
        run_batches(open_session(model()), np.zeros((1, 5), np.float32))


def test_isa_of_x86_and_of_arm(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: X\nflags\t\t: fpu sse avx2 avx512f avx512_vnni\n\nflags\t: none\n")
    assert machine_isa(cpuinfo).split()[1:] == ["avx2", "avx512f", "avx512_vnni"]
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert machine_isa(cpuinfo).split()[1:] == ["asimd", "asimddp"]
    assert len(machine_isa(tmp_path / "none").split()) == 1
