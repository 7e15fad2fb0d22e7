"""The FP8 graph against an independent fake quantization, and what TensorRT says of it."""

from __future__ import annotations

import functools
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.fp8 import check_fp8, to_fp8
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.common import InputSpec
from edgekd.errors import ConversionError, UsageError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer, apply_op
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.runtimes.tensorrt import parse_and_build
from tests.conversion.graphs import CASES, CLASSES, SCALE, Writer, inputs, residual
from tests.quantization.networks import NETWORKS, SHAPE, PreAct, build, examples

INPUT = InputSpec(
    name="picture", shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3
)


@functools.cache
def calibrated(kind: type[nn.Module]) -> QuantizedNetwork:
    quantized = prepare(build(kind), examples(1))
    calibrate(quantized, [examples(64)])
    return quantized.eval()


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda kind: kind.__name__)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[type[nn.Module], onnx.ModelProto]:
    """The canonical int8 graph of each network."""
    path = tmp_path_factory.mktemp("graphs") / "int8.onnx"
    export_int8(calibrated(request.param), INPUT, path, opset=21)
    return request.param, read_graph(path)


def fake_fp8(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """scale * e4m3(x / scale), saturated at 448, in NumPy with another implementation of the type."""
    codes = np.clip(x.astype(np.float32) / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    return (codes.astype(np.float32) * scale).astype(np.float32)


class FakeActivation(nn.Module):
    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.amax = quantizer.amax

    def forward(self, x: Tensor, repeated: bool = False) -> Tensor:
        return torch.from_numpy(fake_fp8(x.numpy(), np.float32(float(self.amax) / 448)))


class FakeWeight(nn.Module):
    def __init__(self, quantizer: WeightQuantizer) -> None:
        super().__init__()
        self.op = quantizer.op

    def forward(self, x: Tensor, input_amax: Tensor) -> Tensor:
        """int8 first, as the canonical graph has it, then float8, both with a scale for each output."""
        w = self.op.weight.detach().numpy()
        shape = (-1, *[1] * (w.ndim - 1))
        step = (np.abs(w.reshape(len(w), -1)).max(1) / np.float32(127)).reshape(shape)
        int8 = np.clip(np.rint(w / step), -127, 127) * step
        fp8 = fake_fp8(int8, (np.abs(int8.reshape(len(w), -1)).max(1) / np.float32(448)).reshape(shape))
        return apply_op(self.op, x, torch.from_numpy(fp8.astype(np.float32)), self.op.bias)


def fake_network(kind: type[nn.Module]) -> nn.Module:
    """The calibrated network with every fake quantizer replaced by the ones above."""
    quantized = prepare(build(kind), examples(1))
    quantized.load_state_dict(calibrated(kind).state_dict())
    for module in list(quantized.graph.modules()):
        if isinstance(module, ActivationQuantizer):
            # Keeps its buffer, which the graph reads on its own.
            module.forward = FakeActivation(module).forward
        elif isinstance(module, WeightQuantizer):
            module.forward = FakeWeight(module).forward
    return quantized.eval()


def test_every_network_as_written_is_the_network_with_float8(
    exported: tuple[type[nn.Module], onnx.ModelProto],
) -> None:
    kind, canonical = exported
    x = examples(128, seed=3) * 1.5  # beyond the calibrated range
    with torch.no_grad():
        expected = fake_network(kind)(x).numpy()
    found = run_batches(open_session(to_fp8(canonical), as_written=True), x.numpy())
    # Equal but for single codes that a different order of summation tips over.
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98
    assert np.abs(found - expected).mean() < 3e-3 * expected.std()


def test_every_network_becomes_an_engine(
    exported: tuple[type[nn.Module], onnx.ModelProto], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    write_graph(to_fp8(exported[1]), tmp_path / "fp8.onnx")
    record = parse_and_build(tmp_path / "fp8.onnx", sm=89, engine=tmp_path / "engine")
    assert (record.status, record.messages) == ("built", ())


def test_the_builder_has_no_float8_below_sm_89(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    write_graph(to_fp8(residual()), tmp_path / "fp8.onnx")
    record = parse_and_build(tmp_path / "fp8.onnx", sm=86, engine=tmp_path / "engine")
    assert record.status == "rejected"
    assert "HW-specific datatypes: fp8_e4m3" in record.messages[0]


def test_another_implementation_agrees() -> None:
    fp8 = to_fp8(residual())
    x = inputs(fp8, 4)
    (expected,) = ReferenceEvaluator(fp8).run(None, {"input": x})
    found = run_batches(open_session(fp8, as_written=True), x)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_what_the_graph_holds(name: str) -> None:
    canonical = CASES[name]()
    fp8 = to_fp8(canonical)
    onnx.checker.check_model(fp8, full_check=True)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in canonical.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in fp8.graph.initializer}
    assert not {value.dtype for value in after.values()} & {np.dtype(np.int8), np.dtype(np.uint8)}
    for old, new in zip(canonical.graph.node, fp8.graph.node, strict=True):
        assert (new.op_type, list(new.output), new.attribute) == (
            old.op_type,
            list(old.output),
            old.attribute,
        )
        if old.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            assert new == old
            continue
        scale, zero = (after[entry] for entry in new.input[1:])
        assert zero.dtype == ml_dtypes.float8_e4m3fn
        assert zero.shape == scale.shape
        assert not zero.astype(np.float32).any()
        if old.input[0] not in before:
            assert scale == np.float32(np.float32(SCALE) * 127 / 448)
    sizes = {
        key: sum(value.nbytes for value in every.values())
        for key, every in (("int8", before), ("fp8", after))
    }
    assert abs(sizes["fp8"] - sizes["int8"]) < 64


def test_weights_by_the_formula() -> None:
    canonical = residual()
    fp8 = to_fp8(canonical)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in canonical.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in fp8.graph.initializer}
    every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    numbers = every[np.isfinite(every)]
    weights = 0
    for old, new in zip(canonical.graph.node, fp8.graph.node, strict=True):
        if old.op_type == "DequantizeLinear" and old.input[0] in before:
            codes, step = before[old.input[0]], before[old.input[1]]
            shape = (-1, *[1] * (codes.ndim - 1))
            w = codes * step.reshape(shape).astype(np.float64)
            scale = np.abs(w.reshape(len(w), -1)).max(1) / 448
            np.testing.assert_allclose(after[new.input[1]], scale, rtol=1e-6)
            ratio = w / after[new.input[1]].astype(np.float64).reshape(shape)
            found = after[new.input[0]].astype(np.float64)
            np.testing.assert_array_equal(
                np.abs(found - ratio), np.abs(ratio[..., None] - numbers).min(-1)
            )  # the nearest
            weights += 1
    assert weights == 4


def test_layers_whose_codes_are_alike_keep_their_own_weights(tmp_path: Path) -> None:
    """The exporter writes equal codes once; their scales differ, and so may their float8."""
    export_int8(calibrated(PreAct), INPUT, tmp_path / "int8.onnx", opset=21)
    canonical = read_graph(tmp_path / "int8.onnx")
    readers = [node.input[0] for node in canonical.graph.node if node.op_type == "DequantizeLinear"]
    shared = [name for name in readers if name.endswith("codes") and readers.count(name) == 2]
    assert len(shared) == 2
    fp8 = to_fp8(canonical)
    pairs = [
        (new.input[0], new.input[1])
        for old, new in zip(canonical.graph.node, fp8.graph.node, strict=True)
        if old.op_type == "DequantizeLinear" and old.input[0] == shared[0]
    ]
    assert len(set(pairs)) == 2


def test_a_weight_of_zeros_has_a_scale() -> None:
    write = Writer()
    gemm = write.gemm(write.quantize("input"), 4, CLASSES)
    codes = next(name for name, tensor in write.constants.items() if list(tensor.dims) == [CLASSES, 4])
    write.constant(codes, np.zeros((CLASSES, 4), np.int8))
    fp8 = to_fp8(write.graph(gemm, shape=(4,)))
    scales = [numpy_helper.to_array(one) for one in fp8.graph.initializer if "scale" in one.name]
    assert all((scale > 0).all() for scale in scales)
    assert np.isfinite(run_batches(open_session(fp8, as_written=True), np.ones((1, 4), np.float32))).all()


def test_declared_types_follow() -> None:
    canonical = CASES["conv_relu"]()
    quantizer = next(node for node in canonical.graph.node if node.op_type == "QuantizeLinear")
    info = helper.make_tensor_value_info(quantizer.output[0], TensorProto.INT8, None)
    canonical.graph.value_info.append(info)
    quantizer.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    fp8 = to_fp8(canonical)
    onnx.checker.check_model(fp8, full_check=True)
    assert fp8.graph.value_info[0].type.tensor_type.elem_type == TensorProto.FLOAT8E4M3FN
    assert open_session(fp8, as_written=True) is not None


def test_a_weight_without_zero_point() -> None:
    """A DequantizeLinear may leave its zero point out."""
    canonical = CASES["conv"]()
    for node in canonical.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[2].startswith("weight_zero"):
            del node.input[2]
    x = inputs(canonical)
    expected = open_session(to_fp8(CASES["conv"]()), as_written=True).run(None, {"input": x})[0]
    found = open_session(to_fp8(canonical), as_written=True).run(None, {"input": x})[0]
    np.testing.assert_array_equal(found, expected)


def test_the_canonical_graph_is_left_as_it_is() -> None:
    canonical = residual()
    to_fp8(canonical)
    assert canonical == residual()


def test_only_a_canonical_graph_is_taken() -> None:
    with pytest.raises(ConversionError, match="canonical graph: breaks"):
        to_fp8(to_dialect(CASES["conv_relu"](), "onnxruntime-u8"))


@pytest.mark.parametrize("sm", [72, 75, 80, 86, 87, 88])
def test_a_gpu_without_float8_is_refused(sm: int) -> None:
    with pytest.raises(UsageError) as caught:
        check_fp8(sm)
    assert str(caught.value) == (
        f"FP8 needs a GPU of SM 89 or later; this one is SM {sm}"
        '\n  try: precision = "int8" or "fp16" for this device'
    )


@pytest.mark.parametrize("sm", [89, 90, 100, 110, 120, None])
def test_a_gpu_with_float8_passes(sm: int | None) -> None:
    check_fp8(sm)
