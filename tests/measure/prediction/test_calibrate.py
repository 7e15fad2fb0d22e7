"""The calibration on a made-up device whose speeds are known, and its graphs on ONNX Runtime."""

import math

import numpy as np
import onnx
import pytest

from edgekd.documents.run_log import Facts, RunLog
from edgekd.errors import MissingError
from edgekd.measure.prediction.calibrate import calibrate, work_s
from edgekd.measure.prediction.calibration import speeds_of
from edgekd.measure.prediction.fused_graph import fuse
from edgekd.measure.prediction.micro_graphs import ROW, TINY, benchmarks, empty, moves
from edgekd.measure.prediction.roofline import at
from edgekd.runtimes.onnxruntime import open_session

CALL_S, MOVE_S, LAUNCH_S = 20e-6, 2e-6, 6e-6
RATES = {"Conv": 50e9, "MatMul": 80e9, "Add": 4e9, "MaxPool": 9e9}
INT8_TIMES = 4
MOVED_BYTES_S = 32e9
SIZES = [size for size, _ in benchmarks()]


def facts(**changed):
    data = {
        "machine": "aarch64",
        "system": "Linux",
        "cpu": "Cortex-A76",
        "isa": ("asimd",),
        "cores": 4,
        "memory_bytes": None,
        "governor": None,
        "versions": {"onnxruntime": "1.2.3"},
    }
    return Facts(**{**data, **changed})


class MadeUpDevice:
    """Takes as long for a graph as its operators say, with a spread of one in a thousand."""

    name = "made up"

    def __init__(self):
        self.random = np.random.default_rng(0)

    def facts(self, runtime):
        return facts()

    def close(self):
        pass

    def run(self, job, *, timeout_s):
        elements = np.load(job.inputs, mmap_mode="r").shape[1]
        graphs = []
        for graph in job.graphs:
            taken = 1e9 * seconds_of(onnx.load(graph.path), elements)
            samples = [round(taken * spread) for spread in self.random.normal(1, 0.001, 60)]
            blocks = [number // 20 for number in range(60)]
            made = {"latency_ns": samples, "block_of_sample": blocks, "warmup_converged": True}
            graphs.append({"name": graph.name, "load_ns": 1, "first_ns": 1, **made})
        log = {"mode": job.mode, "runtime": job.runtime, "facts": facts().model_dump(mode="json")}
        return RunLog.parse({"schema": 1, **log, "graphs": graphs}, where="a test")


def seconds_of(model, elements):
    """By the shapes that the graph's own constants say."""
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    shape = next(constants[node.input[1]] for node in model.graph.node if node.op_type == "Reshape")
    times = INT8_TIMES if "QuantizeLinear" in [node.op_type for node in model.graph.node] else 1
    total = CALL_S
    for node in model.graph.node:
        if node.op_type in ("Neg", "Abs"):
            total += MOVE_S + 8 * math.prod(shape) / MOVED_BYTES_S
        if node.op_type not in RATES:
            continue
        operations = math.prod(shape) * (9 if node.op_type == "MaxPool" else 1)
        if node.op_type in ("Conv", "MatMul"):
            codes = makers[node.input[1]].input[0] if node.input[1] in makers else node.input[1]
            weight = constants[codes].shape
            operations *= 2 * (math.prod(weight[1:]) if node.op_type == "Conv" else weight[0])
        total += LAUNCH_S + operations / (times * RATES[node.op_type])
    return total


@pytest.fixture(scope="module")
def calibration():
    lines = []
    found = calibrate(MadeUpDevice(), threads=2, say=lines.append)
    assert len(lines) == 4
    return found


def test_it_finds_what_the_device_does(calibration):
    assert calibration.call_us == pytest.approx(20, rel=0.15)
    assert calibration.key.processor == "Cortex-A76"
    assert (calibration.key.runtime_version, calibration.key.threads) == ("1.2.3", 2)
    for one in calibration.launches:
        assert one.launch_us == pytest.approx(6, rel=0.05), one
    truth = {"gemm": "MatMul", "elementwise": "Add", "pooling": "MaxPool"}
    for one in calibration.rates:
        times = INT8_TIMES if one.number_type == "int8" else 1
        expected = times * RATES[truth.get(one.kind, "Conv")] / 1e9
        assert one.gops == pytest.approx(expected, rel=0.25), one


def test_it_finds_the_bandwidth_of_every_size(calibration):
    assert [one.held_bytes for one in calibration.bandwidths] == [2**17, 2**21, 2**24]
    for one in calibration.bandwidths:
        assert one.gb_s == pytest.approx(32, rel=0.05)


def test_its_speeds_are_the_roofline_s(calibration):
    speeds = speeds_of(calibration)
    assert speeds.rate("conv", "int8", 36864) == pytest.approx(200e9, rel=0.1)
    assert at(speeds.bandwidth, 2**21) == pytest.approx(32e9, rel=0.05)
    assert speeds.launch_s("gemm", "fp32") == pytest.approx(6e-6, rel=0.05)
    assert speeds.launch_s("data movement", "fp32") == pytest.approx(calibration.move_us * 1e-6)


def test_the_runtime_is_not_there():
    device = MadeUpDevice()
    with pytest.raises(MissingError, match="openvino is not installed there"):
        calibrate(device, runtime="openvino")


def test_work_is_what_is_left_and_never_nothing():
    assert work_s(9.0, 1.0, 4, 0.5) == pytest.approx(1.5)
    assert work_s(1.0, 1.1, 4, 0.5) == pytest.approx(0.005)


@pytest.mark.parametrize("number", range(len(SIZES)), ids=[size.name for size in SIZES])
def test_each_chain_runs_as_what_it_is_for(number):
    size, build = list(benchmarks())[number]
    model = build(2)
    found = [one for one in fuse(model, "onnxruntime") if one.kind == size.kind]
    found = [
        one for one in found if one.op_types[0] not in ("QuantizeLinear", "DequantizeLinear", "ReduceMax")
    ]
    assert {one.number_type for one in found} == {size.number_type}
    assert [one.width for one in found if one.macs] == ([size.width] * 2 if found[0].macs else [])
    relu = size.kind in ("conv", "pointwise", "depthwise") and size.number_type == "fp32"
    elements = int(size.base.split()[0])
    assert sum(one.operations for one in found) == 2 * (size.operations + relu * elements)


@pytest.mark.parametrize("kind", ["conv", "pointwise", "depthwise", "gemm", "elementwise", "pooling"])
@pytest.mark.parametrize("number_type", ["fp32", "int8"])
def test_the_runtime_has_the_kernel_that_is_meant(kind, number_type, tmp_path):
    build = next(b for size, b in benchmarks() if (size.kind, size.number_type) == (kind, number_type))
    file = tmp_path / "optimized.onnx"
    session = open_session(build(3), optimized=file)
    x = np.ones((1, ROW), np.float32)
    assert np.isfinite(session.run(None, {"x": x})[0])
    types = [node.op_type for node in onnx.load(file).graph.node]
    name = {"gemm": "MatMul", "elementwise": "Add", "pooling": "MaxPool"}.get(kind, "Conv")
    on_codes = f"QLinear{name}" if kind != "pooling" else "MaxPool"
    runs = sum(on_codes in one if number_type == "int8" else name in one for one in types)
    assert runs == 3, types
    if number_type == "int8":
        assert types.count("QuantizeLinear") == types.count("DequantizeLinear") == 1


def test_chains_without_work_run_too():
    for model, shape in ((empty(4096, "int8"), ROW), (moves(TINY, 3), ROW), (moves(2 * ROW, 3), 2 * ROW)):
        assert open_session(model).run(None, {"x": np.ones((1, shape), np.float32)})[0] in (1, -1)
