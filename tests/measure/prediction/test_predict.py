"""Predictions of whole graphs: their sums, their intervals, what the audit says of int8."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.conversion.audit import audit_graph
from edgekd.documents.common import InputSpec
from edgekd.documents.prediction import Prediction
from edgekd.errors import BundleError, UsageError
from edgekd.measure.prediction.predict import predict, read_fused
from edgekd.measure.prediction.roofline import Speeds
from edgekd.measure.prediction.target import Target
from tests.conversion.graphs import Writer as CanonicalWriter
from tests.measure.prediction.graphs import Writer

SPEEDS = Speeds({("gemm", "fp32"): ((1.0, 1e9),)}, ((1.0, 1e9),), move_s=1e-6, call_s=1e-5)
TARGET = Target("board", "stock", "onnxruntime", 1, SPEEDS)


def written(tmp_path, model):
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def unknown_graph(known):
    writer = Writer()
    made = "x"
    for _ in range(known):
        made = writer.conv(made, 4, 4)
    made = writer.op("Mystery", made, domain="com.example")
    return writer.model(("batch", 4, 8, 8), writer.op("Mystery", made, domain="com.example"))


def test_a_prediction_is_the_sum_of_its_operators_and_the_call(tmp_path):
    writer = Writer()
    model = writer.model(("batch", 4, 8, 8), writer.conv(writer.conv("x", 4, 4), 4, 4))
    found = predict(read_fused(written(tmp_path, model), "onnxruntime"), TARGET)
    operations = 2 * 4 * 64 * 36
    assert [one.mid_ms for one in found.operators] == pytest.approx([1e3 * (operations / 1e9 + 1e-6)] * 2)
    assert found.mid_ms == pytest.approx(0.01 + 2e3 * (operations / 1e9 + 1e-6))
    assert (found.low_ms, found.high_ms) == pytest.approx((found.mid_ms / 3, 3 * found.mid_ms))
    assert (found.method, found.coverage, found.missing_ops) == ("roofline, generic efficiencies", 1, {})
    assert found.macs == operations
    assert Prediction.parse(found.model_dump(mode="json", by_alias=True), where="a test") == found


def test_a_calibrated_interval_is_narrower(tmp_path):
    writer = Writer()
    graph = read_fused(written(tmp_path, writer.model((1, 4, 8, 8), writer.conv("x", 4, 4))), "onnxruntime")
    found = predict(graph, Target("local", None, "onnxruntime", 1, SPEEDS, calibration="here"))
    assert (found.low_ms, found.high_ms) == pytest.approx((found.mid_ms / 1.6, 1.6 * found.mid_ms))
    assert found.method == "roofline, calibrated efficiencies"


@pytest.mark.parametrize(("known", "coverage"), [(2, 0.5), (6, 0.75), (0, 0.0)])
def test_unknown_operators_widen_the_interval(tmp_path, known, coverage):
    found = predict(read_fused(written(tmp_path, unknown_graph(known)), "onnxruntime"), TARGET)
    assert found.missing_ops == {"Mystery": 2}
    assert found.coverage == pytest.approx(coverage)
    assert found.high_ms / found.mid_ms == pytest.approx(3 / max(coverage, 0.1))


def int8_graph():
    writer = CanonicalWriter()
    writer.constant("zero", np.uint8(0))
    x = writer.block(writer.quantize("input"), 3, 16)
    return writer.graph(writer.head(x, 16))


def test_int8_is_where_the_audit_finds_it(tmp_path):
    path = written(tmp_path, int8_graph())
    audit = audit_graph(path)
    graph = read_fused(path, "onnxruntime")
    weighted = [one for one in graph.operators if one.macs]
    assert [one.number_type == "int8" for one in weighted] == [one.int8 for one in audit.operators]
    assert any(one.int8 for one in audit.operators)
    assert graph.notes == ()


def test_a_graph_for_tensorrt_runs_in_float_on_onnxruntime(tmp_path):
    model = int8_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "zero":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.int8(0), "zero"))
    path = written(tmp_path, model)
    found = {
        runtime: [one.number_type for one in read_fused(path, runtime).operators if one.kind == "conv"]
        for runtime in ("onnxruntime", "tensorrt")
    }
    assert found == {"onnxruntime": ["fp32"], "tensorrt": ["int8"]}


def test_what_onnxruntime_refuses_is_taken_as_written_and_says_so(tmp_path):
    writer = Writer()
    made = writer.op("Mystery", writer.qconv(writer.codes("x"), 4, 4), domain="com.example")
    graph = read_fused(written(tmp_path, writer.model((1, 4, 8, 8), made)), "onnxruntime")
    assert [one.number_type for one in graph.operators if one.kind == "conv"] == ["int8"]
    (note,) = graph.notes
    assert note.startswith("int8 as the graph's quantizers have it, for ONNX Runtime was not asked: ")


def test_a_free_axis_names_the_file(tmp_path):
    writer = Writer()
    path = written(tmp_path, writer.model(("n", 4, "h", 8), writer.conv("x", 4, 4)))
    with pytest.raises(UsageError) as caught:
        read_fused(path, "onnxruntime")
    assert str(caught.value).startswith(f"{path}: axis 2 of its input 'x' is free (h)")


def test_no_graph(tmp_path):
    with pytest.raises(BundleError):
        read_fused(tmp_path / "none.onnx", "onnxruntime")


def test_the_published_macs_of_resnet20(tmp_path):
    """He et al. 2016, section 4.2; 40.8 million by the counters that the literature uses."""
    from edgekd.conversion.to_onnx import export_fp32
    from edgekd.networks.network import build_network

    shape = (3, 32, 32)
    network = build_network("resnet20", in_channels=3, num_classes=10, input_shape=shape).eval()
    spec = InputSpec(shape=shape, layout="NCHW", raw_dtype="uint8", mean=(0.0,) * 3, std=(1.0,) * 3)
    export_fp32(network, spec, tmp_path / "resnet20.onnx", opset=21)
    graph = read_fused(tmp_path / "resnet20.onnx", "onnxruntime")
    assert 40.8e6 <= sum(one.macs for one in graph.operators) <= 41.0e6
    assert sum(one.weight_bytes for one in graph.operators) == pytest.approx(4 * 0.27e6, rel=0.05)
    assert {"other"} & {one.kind for one in graph.operators} == set()


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet50", 4089), ("vgg19", 19632), ("densenet121", 2834), ("squeezenet", 349)],
)
def test_the_published_macs_of_graphs_that_others_wrote(name, millions):
    """torchvision's table of models; squeezenet is 1.1. The graphs come with the onnx package."""
    path = Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this onnx package comes without its test data")
    graph = read_fused(path, "tensorrt")
    assert sum(one.macs for one in graph.operators) == pytest.approx(millions * 1e6, rel=0.002)
    assert graph.coverage == 1
