"""Networks that other people wrote go the whole way: trace, fold, calibrate, fake-quantize, export, run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.check_graph import check_graph, read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.specs import load_spec
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.common import InputSpec
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.canonical import replace_relu6
from edgekd.quantization.prepare import fold_network, prepare
from edgekd.runtimes.onnxruntime import open_session, run_batches

timm = pytest.importorskip("timm")

SHAPE = (3, 32, 32)
INPUT = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)
NETWORKS = {
    "resnet18": {},
    "mobilenetv2_100": {},
    "mobilenetv3_small_100": {},
    "efficientnet_lite0": {},
    "regnetx_002": {},
    "repvgg_a0": {},
    "vit_tiny_patch16_224": {"img_size": 32},
}
# With random weights the transformer answers a millionth more input with 3 % other classes.
LEAST_AGREEMENT = dict.fromkeys(NETWORKS, 0.995) | {"vit_tiny_patch16_224": 0.9}
LARGEST_MEAN_DIFFERENCE = dict.fromkeys(NETWORKS, 0.02) | {"vit_tiny_patch16_224": 0.1}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=10, **NETWORKS[name])
    return replace_relu6(network).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_timm_network_goes_the_whole_way(name: str, tmp_path: Path) -> None:
    network, x = build(name), torch.randn(128, *SHAPE)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(fold_network(network, x[:1])(x), expected, rtol=1e-3, atol=1e-4)
        quantized = prepare(network, x[:1]).eval()
        calibrate(quantized, [x[:64]])
        quantized.set_fake_quantizing(True)
        quantized.set_saturation("u8")
        logits = quantized(x).numpy()
    export_int8(quantized, INPUT, tmp_path / "s8.onnx", opset=21)
    canonical = read_graph(tmp_path / "s8.onnx")
    check_graph(canonical, load_spec("tensorrt"), "s8")
    write_graph(to_dialect(canonical, "onnxruntime-u8"), tmp_path / "u8.onnx")
    found = run_batches(open_session(read_graph(tmp_path / "u8.onnx")), x.numpy())
    assert (found.argmax(1) == logits.argmax(1)).mean() >= LEAST_AGREEMENT[name]
    assert np.abs(found - logits).mean() < LARGEST_MEAN_DIFFERENCE[name] * logits.std()
    audit = audit_graph(tmp_path / "u8.onnx")
    assert [operator.cause for operator in audit.operators if not operator.int8] == []
    assert audit.weighted_ops >= 20
