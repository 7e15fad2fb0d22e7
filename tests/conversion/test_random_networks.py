"""Every dialect of a random network computes what its fake-quantized form does, and TensorRT builds it."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from edgekd.conversion.check_graph import check_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.specs import spec_of
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.common import InputSpec
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session
from edgekd.runtimes.tensorrt import parse_and_build
from tests.conversion.random_networks import SHAPE, networks

INPUT = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)
ENOUGH = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def prepared(network):
    """Calibrated and fake-quantizing, with examples that it was not calibrated on."""
    torch.manual_seed(1)
    quantized = prepare(network, torch.randn(2, *SHAPE)).eval()
    calibrate(quantized, [torch.randn(128, *SHAPE)])
    quantized.set_fake_quantizing(True)
    return quantized, torch.randn(32, *SHAPE)


def canonical_of(quantized, folder):
    path = folder / "canonical.onnx"
    export_int8(quantized, INPUT, path, opset=21)
    return onnx.load(path)


def last_step(canonical):
    """Scale of the quantizer that the head reads, and the largest sum of weights over one of its outputs."""
    producers = {name: node for node in canonical.graph.node for name in node.output}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in canonical.graph.initializer}
    head = [node for node in canonical.graph.node if node.op_type == "Gemm"][-1]
    opened, weight = (producers[name] for name in head.input[:2])
    codes, scale_O = values[weight.input[0]].astype(np.float64), values[weight.input[1]]
    return float(values[opened.input[1]]), np.abs(codes * scale_O[:, None]).max()


@ENOUGH
@given(networks())
def test_dialects_agree_with_the_student_within_a_code_step(tmp_path, network):
    quantized, x = prepared(network)
    canonical = canonical_of(quantized, tmp_path)
    step, largest = last_step(canonical)
    for dialect in ("onnxruntime-u8", "onnxruntime-u8u8", "tensorrt-s8"):
        graph = to_dialect(canonical, dialect)
        check_graph(graph, spec_of(dialect), dialect)
        quantized.set_saturation(spec_of(dialect).codes)
        with torch.no_grad():
            expected = quantized(x).numpy()
        session = open_session(graph, as_written=dialect == "tensorrt-s8")
        found = session.run(None, {"input": x.numpy()})[0]
        # A channel that rounds the other way moves a logit by one step times its weight.
        assert np.abs(found - expected).max() <= 2 * step * largest, dialect
        assert np.abs(found - expected).mean() <= 0.02 * expected.std(), dialect


@settings(ENOUGH, max_examples=6)
@given(networks())
def test_tensorrt_builds_every_one(tmp_path, network):
    pytest.importorskip("tensorrt_rtx")
    quantized, _ = prepared(network)
    path = tmp_path / "graph.onnx"
    write_graph(to_dialect(canonical_of(quantized, tmp_path), "tensorrt-s8"), path)
    record = parse_and_build(path, sm=89, engine=tmp_path / "engine")
    assert record.status == "built", record.messages
