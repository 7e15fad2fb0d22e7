"""Logits from the runtime, and top-1 with its interval."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from scipy import stats as scipy_stats

from edgekd.devices.local import LocalDevice
from edgekd.errors import DataError, DeviceError, MeasurementError
from edgekd.measure.accuracy import accuracy, measure_outputs


def graph(folder: Path, output: str, nodes: str) -> Path:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] input) => ({output} logits) {{ {nodes} }}"""
    onnx.save(parser.parse_model(text), folder / "g.onnx")
    return folder / "g.onnx"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.arange(40, dtype=np.float32).reshape(10, 4) - 20)
    return tmp_path / "x.npy"


def run(device, path: Path, inputs: Path) -> np.ndarray:
    return measure_outputs(device, path, inputs, runtime="onnxruntime", threads=1, batch_size=3)


def test_logits_are_those_of_the_runtime(tmp_path, inputs):
    logits = run(LocalDevice(), graph(tmp_path, "float[N,4]", "logits = Relu(input)"), inputs)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, np.maximum(np.load(inputs), 0))


def test_logits_that_are_not_finite(tmp_path, inputs):
    path = graph(tmp_path, "float[N,4]", "logits = Sqrt(input)")
    with pytest.raises(MeasurementError) as caught:
        run(LocalDevice(), path, inputs)
    assert str(caught.value) == (
        f"{path}: the logits of 5 of 10 inputs are not finite\n"
        "  try: look for an overflow: a scale of zero, or float16 where float32 is needed"
    )


@pytest.mark.parametrize(
    ("output", "nodes", "shape"),
    [
        (
            "float[N,4,1]",
            "two = Constant<value = int64[1] {2}>() logits = Unsqueeze(input, two)",
            "(10, 4, 1)",
        ),
        ("float[N]", "logits = ReduceMax<axes = [1], keepdims = 0>(input)", "(10,)"),
    ],
)
def test_outputs_that_are_no_logits(tmp_path, inputs, output, nodes, shape):
    path = graph(tmp_path, output, nodes)
    with pytest.raises(MeasurementError) as caught:
        run(LocalDevice(), path, inputs)
    assert str(caught.value) == (
        f"{path}: the graph's first output is {shape}, not one row of logits for each of 10 inputs"
    )


def test_a_graph_that_mixes_its_examples_up(tmp_path, inputs):
    path = graph(tmp_path, "float[1,4]", "logits = ReduceMax<axes = [0], keepdims = 1>(input)")
    with pytest.raises(MeasurementError, match="10 inputs gave 4 outputs"):
        run(LocalDevice(), path, inputs)


class Tampering(LocalDevice):
    """Changes the file of logits on its way back."""

    def run(self, job, *, timeout_s):
        log = super().run(job, timeout_s=timeout_s)
        np.save(job.outputs, np.zeros((10, 4), np.float32))
        return log


class Losing(LocalDevice):
    """Loses the file of logits on its way back."""

    def run(self, job, *, timeout_s):
        log = super().run(job, timeout_s=timeout_s)
        Path(job.outputs).unlink()
        return log


@pytest.mark.parametrize("device", [Tampering(), Losing()])
def test_logits_that_are_not_the_kits(tmp_path, inputs, device):
    path = graph(tmp_path, "float[N,4]", "logits = Relu(input)")
    with pytest.raises(DeviceError) as caught:
        run(device, path, inputs)
    why = "the logits that came back are not those that the kit wrote"
    assert str(caught.value) == f"{path}: {why}\n  try: run it again"


def test_accuracy_with_wilsons_interval():
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2, 3, 0, 0]]
    found = accuracy(logits, np.array([0, 1, 2, 3, 0, 1, 2, 3, 1, 2]), confidence=0.95)
    assert (found.top1, found.correct, found.count) == (0.8, 8, 10)
    expected = scipy_stats.binomtest(8, 10).proportion_ci(0.9, method="wilson")
    assert (found.interval.lower, found.interval.upper) == pytest.approx((expected.low, expected.high))
    assert found.interval.confidence == 0.9


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "labels: 3 rows of logits, labels of shape (2,)"),
        ([0, 1, 4], "labels: labels from 0 to 4, logits of 4 classes"),
        ([0, -1, 3], "labels: labels from -1 to 3, logits of 4 classes"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(DataError) as caught:
        accuracy(np.zeros((3, 4), np.float32), np.array(labels), confidence=0.95)
    assert str(caught.value) == message
