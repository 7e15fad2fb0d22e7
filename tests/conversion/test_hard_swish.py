from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekd.conversion.check_graph import check_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.remove_quantizers import remove_quantizers
from edgekd.conversion.specs import spec_of
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.common import InputSpec
from edgekd.documents.scheme import Scheme
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.runtimes.tensorrt import parse_and_build
from tests.conversion.graphs import SCALE, Writer
from tests.quantization.networks import CLASSES, SHAPE, conv_bn, examples


def swish(write: Writer, x: str, alpha: float = 1 / 6, beta: float = 0.5) -> str:
    return write.op("Mul", x, write.op("HardSigmoid", x, alpha=alpha, beta=beta))


def activation(scale: float = SCALE) -> onnx.ModelProto:
    """Quantizer, HardSwish, quantizer; x has steps of `scale`, the result of 0.05."""
    write = Writer()
    write.constant("scale", np.float32(scale))
    write.constant("scale_y", np.float32(0.05))
    return write.graph(write.quantize(swish(write, write.quantize("input")), scale="scale_y"), rank=4)


def optimized(model: onnx.ModelProto, tmp_path: Path) -> Counter[str]:
    open_session(model, optimized=tmp_path / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)


def test_it_runs_as_an_addition_and_a_product_of_codes(tmp_path: Path) -> None:
    model = to_dialect(activation(), "onnxruntime-u8")
    check_graph(model, spec_of("onnxruntime-u8"), "graph")
    found = optimized(model, tmp_path)
    assert found == {"QuantizeLinear": 1, "QLinearAdd": 1, "QLinearMul": 1, "DequantizeLinear": 1}


@pytest.mark.parametrize("scale", [0.01, 0.0236, SCALE, 0.3])
def test_codes_are_those_of_the_formula(scale: float) -> None:
    """y = q(x * g / 6), g = clip(rint((x + 3) * 255 / 6), 0, 255) * 6 / 255, all rounded half to even."""
    x = np.random.default_rng(0).normal(size=(64, 3, 12, 12)).astype(np.float32) * 4
    found = run_batches(open_session(to_dialect(activation(scale), "onnxruntime-u8")), x)
    codes = np.clip(np.rint(x / np.float32(scale)), -128, 127) * np.float64(np.float32(scale))
    gate = np.clip(np.rint((codes + 3) * 255 / 6), 0, 255) * 6 / 255
    expected = np.clip(np.rint(codes * gate / 6 / 0.05), -128, 127) * 0.05
    steps = np.abs(found - expected) / 0.05
    assert (steps > 0.5).mean() < 0.01  # ties, which float32 and float64 round apart
    assert steps.max() <= 1.001


def test_without_its_quantizers_it_is_hard_swish() -> None:
    x = np.linspace(-6, 6, 16 * 432, dtype=np.float32).reshape(16, 3, 12, 12)
    bare = remove_quantizers(to_dialect(activation(), "onnxruntime-u8"))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in bare.graph.node}
    expected = x.astype(np.float64) * np.clip(x.astype(np.float64) + 3, 0, 6) / 6
    np.testing.assert_allclose(run_batches(open_session(bare), x), expected, atol=1e-5)


def other_factors(write: Writer, x: str) -> str:
    return swish(write, x, alpha=0.2)


def gate_of_another(write: Writer, x: str) -> str:
    return write.op("Mul", write.op("Relu", x), write.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def gate_alone(write: Writer, x: str) -> str:
    return write.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def read_in_float(write: Writer, x: str) -> str:
    return write.op("Sqrt", swish(write, x))


@pytest.mark.parametrize("form", [other_factors, gate_of_another, gate_alone, read_in_float])
def test_other_operations_stay(form: object) -> None:
    write = Writer()
    y = form(write, write.quantize("input"))  # type: ignore[operator]
    model = to_dialect(write.graph(write.quantize(y), rank=4), "onnxruntime-u8")
    assert "HardSigmoid" in {node.op_type for node in model.graph.node}


def test_a_float_input_stays() -> None:
    write = Writer()
    model = to_dialect(write.graph(write.quantize(swish(write, "input")), rank=4), "onnxruntime-u8")
    assert "HardSigmoid" in {node.op_type for node in model.graph.node}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(*conv_bn(3, 10), nn.Hardswish(), *conv_bn(10, 10, groups=10), nn.Hardswish(), *conv_bn(10, 12, 1)),
        *(nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES)),
    ).eval()


def student(seed: int, **rewrites: bool) -> QuantizedNetwork:
    quantized = prepare(network(seed), examples(1), Scheme(rewrites=rewrites)).eval()
    calibrate(quantized, [examples(64)])
    quantized.set_fake_quantizing(True)
    return quantized


def exported(quantized: QuantizedNetwork, tmp_path: Path) -> onnx.ModelProto:
    spec = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)
    export_int8(quantized, spec, tmp_path / "canonical.onnx", opset=21)
    return onnx.load(tmp_path / "canonical.onnx")


@pytest.mark.parametrize("seed", range(2))
def test_the_runtime_computes_what_the_fake_quantized_network_does(seed: int, tmp_path: Path) -> None:
    quantized, x = student(seed), examples(128, seed=5)
    canonical = exported(quantized, tmp_path)
    model = to_dialect(canonical, "onnxruntime-u8")
    assert optimized(model, tmp_path)["QLinearMul"] == 3
    for saturation, found in (
        ("u8", run_batches(open_session(model), x.numpy())),
        ("s8", run_batches(open_session(canonical, as_written=True), x.numpy())),
    ):
        quantized.set_saturation(saturation)  # type: ignore[arg-type]
        with torch.no_grad():
            expected = quantized(x).numpy()
        difference = np.abs(found - expected) / expected.std()
        assert difference.mean() < 2e-3
        assert difference.max() < 0.1


def test_a_graph_is_the_same_whatever_was_simulated_last(tmp_path: Path) -> None:
    quantized = student(0)
    first = exported(quantized, tmp_path)
    quantized.set_saturation("u8")
    assert exported(quantized, tmp_path) == first


def test_in_float_it_is_one_operator_between_two_quantizers(tmp_path: Path) -> None:
    canonical = exported(student(0, int8_hard_swish=False), tmp_path)
    found = Counter(node.op_type for node in to_dialect(canonical, "onnxruntime-u8").graph.node)
    assert found["HardSwish"] == 3
    assert not found["HardSigmoid"]


def test_tensorrt_takes_the_canonical_graph(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "graph.onnx"
    write_graph(to_dialect(exported(student(0), tmp_path), "tensorrt-s8"), path)
    record = parse_and_build(path, sm=89, engine=tmp_path / "engine")
    assert record.status == "built", record.messages
