"""What a scheme has in float runs in float on ONNX Runtime, and what is int8 in int8."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgekd.conversion.check_graph import check_graph
from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.float_layers import keep_float_layers
from edgekd.conversion.specs import spec_of
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.common import InputSpec
from edgekd.documents.scheme import Scheme
from edgekd.errors import ConversionError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from tests.quantization.networks import SHAPE, Inverted, PostAct, build, examples

INPUT = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)
X = examples(64, seed=2)


class Perceptron(nn.Module):
    """Linear maps; the second one's input is rounded for the other one's sake, its output for the head's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.head, self.tail = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        return self.head(self.second(x).relu()) + self.tail(self.other(x).relu())


def canonical(
    kind: type[nn.Module], layers: tuple[str, ...], folder: Path
) -> tuple[onnx.ModelProto, np.ndarray]:
    """The graph with these layers in float, and what the fake-quantized student says of X."""
    network = prepare(build(kind), examples(2), Scheme(layers=dict.fromkeys(layers, "float")))
    calibrate(network, examples(64).split(16))
    export_int8(network.eval(), INPUT, folder / "canonical.onnx", opset=21)
    network.set_saturation("u8")
    network.set_fake_quantizing(True)
    with torch.no_grad():
        return onnx.load(folder / "canonical.onnx"), network(X).numpy()


def run(model: onnx.ModelProto, folder: Path) -> tuple[np.ndarray, Counter[str]]:
    """Logits on ONNX Runtime, and the operators that run."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    logits = session.run(None, {"input": X.numpy()})[0]
    optimized = onnx.load(folder / "optimized.onnx")
    return logits, Counter(node.op_type.removeprefix("Fused") for node in optimized.graph.node)


@pytest.mark.parametrize(("kind", "layer"), [(PostAct, "conv1"), (PostAct, "conv2"), (Perceptron, "second")])
def test_it_runs_in_float_and_answers_as_the_student(
    kind: type[nn.Module], layer: str, tmp_path: Path
) -> None:
    model, expected = canonical(kind, (layer,), tmp_path)
    found, operators = run(to_dialect(model, "onnxruntime-u8"), tmp_path)
    in_float = {"Conv", "Gemm"} & operators.keys()
    assert in_float == {"Conv" if kind is PostAct else "Gemm"}
    assert operators[in_float.pop()] == 1
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


def test_without_it_the_runtime_rounds_the_weight_by_one_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this is for: if the runtime no longer does so, this can go."""
    monkeypatch.setattr("edgekd.conversion.dialects.keep_float_layers", lambda graph: 0)
    model, _ = canonical(PostAct, ("conv1",), tmp_path)
    _, operators = run(to_dialect(model, "onnxruntime-u8"), tmp_path)
    assert "Conv" not in operators


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    int8, _ = canonical(PostAct, (), tmp_path)
    assert keep_float_layers(int8.graph) == 0
    outer, _ = canonical(PostAct, ("stem.0", "head"), tmp_path)
    # The stem reads the input in float, and what the head yields is not rounded.
    before = outer.SerializeToString(deterministic=True)
    assert keep_float_layers(outer.graph) == 0
    assert outer.SerializeToString(deterministic=True) == before


def test_its_input_is_what_it_was(tmp_path: Path) -> None:
    """One scale for every channel, all alike; whoever else reads that tensor reads it as before."""
    model, _ = canonical(PostAct, ("conv1",), tmp_path)
    before = {node.name: list(node.input) for node in model.graph.node}
    assert keep_float_layers(model.graph) == 1
    onnx.checker.check_model(model)
    nodes = {node.name: node for node in model.graph.node}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    own, shared = makers[nodes["conv1/Conv"].input[0]], makers[before["conv1/Conv"][0]]
    assert own.input[0] == shared.input[0]
    for mine, theirs in zip(own.input[1:], shared.input[1:], strict=True):
        np.testing.assert_array_equal(values[mine], np.repeat(values[theirs], 8))
    assert {name: list(node.input) for name, node in nodes.items() if name != "conv1/Conv"} == {
        **{name: inputs for name, inputs in before.items() if name != "conv1/Conv"},
        own.name: list(own.input),
    }


def test_the_channels_of_a_grouped_convolution_are_all_of_them(tmp_path: Path) -> None:
    model, expected = canonical(Inverted, ("block.3",), tmp_path)
    found, operators = run(to_dialect(model, "onnxruntime-u8"), tmp_path)
    assert operators["Conv"] == 1
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


def test_the_specs_take_it_where_their_runtime_does(tmp_path: Path) -> None:
    model, _ = canonical(PostAct, ("conv1",), tmp_path)
    graph = to_dialect(model, "onnxruntime-u8")
    check_graph(graph, spec_of("onnxruntime-u8"), "graph")
    keep_float_layers(model.graph)
    with pytest.raises(ConversionError) as caught:
        check_graph(model, spec_of("tensorrt-s8"), "graph")
    assert "its scale or zero point is not that of" in str(caught.value)


def test_other_zero_points_behind_a_quantizer_are_still_refused(tmp_path: Path) -> None:
    model, _ = canonical(PostAct, ("conv1",), tmp_path)
    graph = to_dialect(model, "onnxruntime-u8")
    for tensor in graph.graph.initializer:
        if tensor.name.endswith("_zero_point") and tensor.dims:
            codes = onnx.numpy_helper.to_array(tensor).copy()
            codes[3] += 1
            tensor.CopyFrom(onnx.numpy_helper.from_array(codes, tensor.name))
    with pytest.raises(ConversionError, match="its scale or zero point is not that of"):
        check_graph(graph, spec_of("onnxruntime-u8"), "graph")
