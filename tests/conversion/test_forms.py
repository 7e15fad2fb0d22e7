"""Rewrites of a network as its runtime sees them: the operators that run, and the values that they give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.common import InputSpec
from edgekd.documents.scheme import Scheme
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.runtimes.tensorrt import parse_and_build
from tests.quantization.networks import CLASSES, SHAPE, Attention, conv_bn, examples

INPUT = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)


class Swish(nn.Module):
    """SiLU between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*conv_bn(3, 8), nn.SiLU(), *conv_bn(8, 8), nn.SiLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Dense(nn.Module):
    """Each layer reads all before it, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(*conv_bn(3 + 8 * i, 8), nn.ReLU()) for i in range(3))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        made: list[Tensor] = []
        for layer in self.layers:
            made.append(layer(torch.cat([x, *made], 1)))
        return self.head(F.relu(torch.cat(made[1:], 1)).mean((2, 3)))


class Runs:
    """A network under some choices: exported, run, and what runs."""

    def __init__(self, kind: type[nn.Module], folder: Path, **rewrites: bool) -> None:
        torch.manual_seed(0)
        self.quantized = prepare(kind().eval(), examples(1), Scheme(rewrites=rewrites)).eval()
        calibrate(self.quantized, [examples(64)])
        self.quantized.set_fake_quantizing(True)
        export_int8(self.quantized, INPUT, folder / "canonical.onnx", opset=21)
        self.canonical = onnx.load(folder / "canonical.onnx")
        self.folder, self.rewrites = folder, rewrites

    def operators(self) -> Counter[str]:
        path = self.folder / "optimized.onnx"
        open_session(to_dialect(self.canonical, "onnxruntime-u8", self.rewrites), optimized=path)
        return Counter(node.op_type for node in onnx.load(path).graph.node)

    def assert_parity(self) -> None:
        x = examples(128, seed=5)
        unsigned = open_session(to_dialect(self.canonical, "onnxruntime-u8", self.rewrites))
        for saturation, session in (
            ("u8", unsigned),
            ("s8", open_session(self.canonical, as_written=True)),
        ):
            self.quantized.set_saturation(saturation)  # type: ignore[arg-type]
            with torch.no_grad():
                expected = self.quantized(x).numpy()
            difference = np.abs(run_batches(session, x.numpy()) - expected) / expected.std()
            assert difference.mean() < 3e-3
            assert difference.max() < 0.15

    def assert_built(self) -> None:
        pytest.importorskip("tensorrt_rtx")
        write_graph(to_dialect(self.canonical, "tensorrt-s8", self.rewrites), self.folder / "signed.onnx")
        record = parse_and_build(self.folder / "signed.onnx", sm=89, engine=self.folder / "engine")
        assert record.status == "built", record.messages


def test_tokens_as_rows_are_products_with_their_bias_in_one_kernel(tmp_path: Path) -> None:
    runs = Runs(Attention, tmp_path)
    found = runs.operators()
    assert found["QGemm"] == 5
    assert not found["MatMulIntegerToFloat"]
    assert not found["BiasGelu"]
    # two residual sums, and none for a bias
    assert found["Add"] == 2
    # products of the attention, in float: no quantizer but those that linear maps read
    assert found["MatMul"] + found["FusedMatMul"] == 2
    assert found["QuantizeLinear"] == 6
    runs.assert_parity()
    runs.assert_built()


def test_tokens_as_they_are_take_a_product_and_an_addition(tmp_path: Path) -> None:
    runs = Runs(Attention, tmp_path, tokens_as_rows=False)
    found = runs.operators()
    assert found["MatMulIntegerToFloat"] == 4
    assert found["Add"] + found["BiasGelu"] == 2 + 4
    runs.assert_parity()


def test_attention_and_sums_in_int8(tmp_path: Path) -> None:
    runs = Runs(Attention, tmp_path, float_attention=False, float_sums=False)
    found = runs.operators()
    assert found["QLinearAdd"] == 2
    assert found["MatMulIntegerToFloat"] + found["QLinearMatMul"] == 2
    runs.assert_parity()
    runs.assert_built()


def test_silu_in_int8_is_a_table_and_a_product(tmp_path: Path) -> None:
    runs = Runs(Swish, tmp_path)
    found = runs.operators()
    assert (found["QLinearSigmoid"], found["QLinearMul"], found["DequantizeLinear"]) == (2, 2, 0)
    runs.assert_parity()
    runs.assert_built()


def test_silu_in_float_lies_between_two_quantizers(tmp_path: Path) -> None:
    runs = Runs(Swish, tmp_path, int8_silu=False)
    found = runs.operators()
    assert (found["Sigmoid"], found["Mul"], found["QLinearSigmoid"], found["QLinearMul"]) == (2, 2, 0, 0)
    assert found["QLinearConv"] == 2
    runs.assert_parity()


def test_silu_as_hard_swish_is_an_addition_and_a_product(tmp_path: Path) -> None:
    runs = Runs(Swish, tmp_path, silu_as_hard_swish=True)
    found = runs.operators()
    assert (found["QLinearAdd"], found["QLinearMul"], found["QLinearSigmoid"]) == (2, 2, 0)
    runs.assert_parity()


def scales_of_concatenations(model: onnx.ModelProto) -> list[set[str]]:
    """The scales that each QLinearConcat reads: its own, and those of its operands."""
    return [
        {node.input[0], *node.input[3::3]} for node in model.graph.node if node.op_type == "QLinearConcat"
    ]


def test_concatenations_with_one_scale(tmp_path: Path) -> None:
    apart, shared = Runs(Dense, tmp_path), Runs(Dense, tmp_path, shared_concat_scale=True)
    for runs, single in ((apart, False), (shared, True)):
        assert runs.operators()["QLinearConcat"] == 3
        found = scales_of_concatenations(onnx.load(tmp_path / "optimized.onnx"))
        assert (len(found[-1]) == 1) is single
        runs.assert_parity()
    shared.assert_built()
