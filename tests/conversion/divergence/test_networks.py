"""Every network that the quantizer is tested with: healthy in every dialect, broken where it is broken."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.divergence.question import Runtime
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.documents.common import InputSpec
from edgekd.documents.spec import Int8Dialect
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from tests.conversion.divergence.planted import ACTIVATIONS, WEIGHTS, quantizers, weights
from tests.conversion.divergence.small import Small, ask, optimized
from tests.quantization.networks import CLASSES, NETWORKS, SHAPE, build, conv_bn, examples

pytestmark = pytest.mark.slow  # 2 to 4 seconds of export for each network


class Swish(nn.Module):
    """HardSwish, which one dialect writes with additions, and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8), nn.Hardswish())
        self.block = nn.Sequential(*conv_bn(8, 8, groups=8), nn.SiLU(), *conv_bn(8, 8, 1))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).mean((2, 3)))


ALL = (*NETWORKS, Swish)
INPUT = InputSpec(
    name="picture", shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """A network in float and in a dialect, exported once."""
    folder = tmp_path_factory.mktemp("graphs")

    @cache
    def graphs(kind):
        network = build(kind)
        quantized = prepare(network, examples(2))
        calibrate(quantized, [examples(256)])
        quantized.eval().set_fake_quantizing(True)
        paths = folder / f"{kind.__name__}.fp32.onnx", folder / f"{kind.__name__}.int8.onnx"
        export_fp32(network, INPUT, paths[0], opset=21)
        export_int8(quantized, INPUT, paths[1], opset=21)
        return tuple(map(read_graph, paths))

    def given(kind, dialect: Int8Dialect) -> Small:
        reference, canonical = graphs(kind)
        return Small(reference, to_dialect(canonical, dialect), examples(48, seed=9).numpy(), dialect)

    return given


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dialect", ["onnxruntime-u8", "tensorrt-s8", "onnxruntime-u8u8"])
def test_a_healthy_graph_raises_no_alarm(exported, kind, dialect) -> None:
    runtime = None if dialect == "tensorrt-s8" else Runtime("optimized", optimized)
    chain = ask(exported(kind, dialect), runtime=runtime).chain
    assert chain.findings == ()
    assert not any(link.parts for link in chain.links)
    compared = [row for row in chain.layers if row.computes and row.reference is not None]
    missed = [row.name for row in chain.layers if row.computes and row.reference is None]
    assert all("hardsigmoid" in name for name in missed)  # its spelling in int8 has no counterpart
    assert len(compared) >= 4
    assert chain.links[0].parity.top1_agreement >= 0.95


@settings(deadline=None, max_examples=32, derandomize=True)
@given(data=st.data())
def test_a_planted_fault_is_found_at_its_layer(exported, data) -> None:
    kind = data.draw(st.sampled_from(NETWORKS))
    given = exported(kind, data.draw(st.sampled_from(["onnxruntime-u8", "tensorrt-s8"])))
    names = ["scale x 4", "scale / 4", "zero point of one half", "all channels x 4", "batch norm not folded"]
    fault = data.draw(st.sampled_from(names))
    plant = (ACTIVATIONS | WEIGHTS)[fault]
    places = quantizers(given.candidate) if fault in ACTIVATIONS else weights_of(given.candidate)
    place = data.draw(st.sampled_from(places))
    answer = ask(given, plant(given.candidate, place))
    assert answer.chain.findings[0].layer == _layer_with(answer, place), fault


def weights_of(model) -> list[str]:
    """Operators whose weight is in codes, and no other's too."""
    readers = Counter(name for node in model.graph.node for name in node.input)
    opened = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    held = {tensor.name for tensor in model.graph.initializer}
    read = {node.output[0]: list(node.input) for node in model.graph.node}
    return [
        name
        for name in weights(model)
        if (node := opened.get(read[name][1])) is not None
        and node.input[0] in held
        and readers[node.output[0]] == 1
    ]


def _layer_with(answer, place: str) -> str:
    """The layer that gives what a quantizer reads, or that an operator makes a part of."""
    candidate = answer.found.candidate
    node = candidate.view.producers[place]
    tensor = node.input[0] if node.op_type == "QuantizeLinear" else place
    return next(layer.name for layer in candidate.layers if tensor in layer.tensors)


def test_examples_decide_how_much_is_known(exported) -> None:
    """A single example is enough for weights and operators, and raises no alarm over scales."""
    given = exported(NETWORKS[0], "onnxruntime-u8")
    single = Small(given.reference, given.candidate, given.x[:1], given.dialect)
    assert ask(single).chain.findings == ()
    assert np.isfinite(ask(single).chain.links[0].parity.mean_difference)
