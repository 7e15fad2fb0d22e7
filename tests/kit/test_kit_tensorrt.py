"""The TensorRT side of the kit as far as it goes without a GPU: TensorRT-RTX, of the same API, stands in."""

import importlib.util
import sys

import onnx
import pytest
from onnx import parser

from edgekd.shipped import shipped

trt = pytest.importorskip("tensorrt_rtx")

RELU = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,8] input) => (float[N,8] logits) { logits = Relu(input) }"""


@pytest.fixture
def adapter(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    path = shipped("export", "kit", "runtimes", "tensorrt_runtime.py")
    spec = importlib.util.spec_from_file_location("kit_tensorrt_runtime", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_engine_is_built_for_batches_up_to_the_jobs(adapter, tmp_path):
    onnx.save(parser.parse_model(RELU), tmp_path / "g.onnx")
    plan = adapter._build(str(tmp_path / "g.onnx"), 4, trt.Logger(trt.Logger.ERROR))
    assert plan.nbytes > 1000


def test_a_graph_that_cannot_be_parsed(adapter, tmp_path):
    (tmp_path / "g.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"g\.onnx: TensorRT cannot parse this graph: "):
        adapter._build(str(tmp_path / "g.onnx"), 4, trt.Logger(trt.Logger.INTERNAL_ERROR))


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("Runtime", ["deserialize_cuda_engine"]),
        ("ICudaEngine", ["create_execution_context", "num_io_tensors", "get_tensor_name", "get_tensor_mode"]),
        ("ICudaEngine", ["get_tensor_dtype"]),
        (
            "IExecutionContext",
            ["set_input_shape", "get_tensor_shape", "set_tensor_address", "execute_async_v3"],
        ),
        ("TensorIOMode", ["INPUT"]),
    ],
)
def test_the_names_that_running_needs_are_there(owner, names):
    assert [name for name in names if not hasattr(getattr(trt, owner), name)] == []


def test_session_options_are_refused(adapter):
    with pytest.raises(ValueError, match="TensorRT has no session options, found a, b"):
        adapter.Session("g.onnx", {"session_options": {"b": "1", "a": "1"}})
