from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.errors import MeasurementError
from edgekd.runtimes import onnxruntime_worker, profiling
from edgekd.runtimes.profiling import KernelTimes, middle_mean, profile


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')


CHAIN = """g (float[N, 64] x) => (float[N, 64] y) <float[64, 64] w>
    { a = MatMul (x, w) b = Tanh (a) y = Softmax (b) }"""
ENDLESS = """g (float[N, 2] x) => (float[N, 2] y) <bool t = {1}>
    { y = Loop (, t, x) <body = b (int64 i, bool c, float[N, 2] a) => (bool d, float[N, 2] e)
                          { d = Identity (c) e = Relu (a) }> }"""
LOOP = """g (float[N, 2] x) => (float[N, 2] y) <bool t = {1}, int64 n = {7}>
    { y = Loop (n, t, x) <body = b (int64 i, bool c, float[N, 2] a) => (bool d, float[N, 2] e)
                          { d = Identity (c) e = Sin (a) }> }"""


def chain() -> onnx.ModelProto:
    model = parse(CHAIN)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(64, dtype=np.float32), "w"))
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = f"the {node.op_type}"
    return model


def test_every_node_of_every_graph_has_its_time() -> None:
    found = profile({"one": chain(), "other": chain()}, np.ones((8, 64), np.float32))
    assert set(found) == {"one", "other"}
    for times in found.values():
        assert times.names == (
            ("the MatMul", "MatMul"),
            ("the Tanh", "Tanh"),
            ("the Softmax", "Softmax"),
        )
        assert 5 <= times.runs <= profiling.MOST_RUNS
        assert times.us_NR.shape == (3, times.runs)
        assert (times.us_NR >= 0).all()
        assert times.total_us > 0
        assert times.node_us("the Tanh", "Tanh") is not None
        assert times.node_us("nothing", "Tanh") is None


def test_the_time_of_a_loop_is_that_of_its_body() -> None:
    times = profile({"one": parse(LOOP)}, np.ones((1, 2), np.float32))["one"]
    assert "Sin" in [kind for _, kind in times.names]
    assert "Loop" not in [kind for _, kind in times.names]


def test_a_graph_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "TIMEOUT_S", 2.0)
    with pytest.raises(MeasurementError) as caught:
        profile({"one": parse(ENDLESS)}, np.ones((1, 2), np.float32))
    assert caught.value.message == "the profiler did not end within 2 s"


def test_what_the_runtime_says_is_told() -> None:
    with pytest.raises(MeasurementError) as caught:
        profile({"one": chain()}, np.ones((8, 63), np.float32))
    assert caught.value.message.startswith("ONNX Runtime cannot run it: INVALID_ARGUMENT : Got invalid")
    assert "Got: 63 Expected: 64" in caught.value.message
    assert "\n" not in caught.value.message


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    profile({"one": chain()}, np.ones((1, 64), np.float32))
    assert os.listdir(tmp_path) == []


def test_the_worker_is_given_bytes(tmp_path: Path) -> None:
    """A graph that names other files for its weights is not followed: its own folder is not known."""
    model = chain()
    onnx.save(model, tmp_path / "graph.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    np.save(tmp_path / "x.npy", np.ones((1, 64), np.float32))
    job = {
        "graphs": {"one": str(tmp_path / "graph.onnx")},
        "inputs": str(tmp_path / "x.npy"),
        "threads": 1,
        "most_runs": 5,
        "folder": str(tmp_path),
    }
    with pytest.raises(Exception, match=r"w\.bin"):
        onnxruntime_worker.work(job)


def event(name: str, ts: int, dur: int, cat: str = "Node", op: str = "Add") -> dict[str, object]:
    return {"name": name, "ts": ts, "dur": dur, "cat": cat, "args": {"op_name": op}}


def test_events_are_put_to_their_runs() -> None:
    events = [
        event("a_kernel_time", 5, 99),  # before the first of the two runs that count
        event("model_run", 10, 50, "Session"),
        event("a_kernel_time", 11, 1),
        event("a_fence_before", 12, 77),
        event("b_kernel_time", 13, 2),
        event("l_kernel_time", 14, 55, op="Loop"),
        event("b_kernel_time", 15, 3),
        event("model_run", 100, 50, "Session"),
        event("a_kernel_time", 101, 4),
    ]
    assert onnxruntime_worker._kernels(events, 2) == [("a", "Add", [1, 4]), ("b", "Add", [5, 0])]


def test_the_middle_mean_leaves_out_what_is_far_off() -> None:
    assert middle_mean(np.array([5, 1000, 6, 0])) == 5.5
    assert middle_mean(np.array([3])) == 3
    times = KernelTimes((("a", "Add"),), np.array([[1, 2, 3, 100]]))
    assert times.node_us("a", "Add") == 2.5
    assert times.total_us == 2.5
