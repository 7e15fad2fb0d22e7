from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.check_graph import check_graph, read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.specs import load_spec
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.documents.common import InputSpec
from edgekd.errors import ConversionError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.canonical import replace_relu6
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session, run_batches
from tests.quantization.networks import (
    CLASSES,
    NETWORKS,
    SHAPE,
    Attention,
    Branches,
    Inverted,
    PostAct,
    PreAct,
    build,
    examples,
)

OPSET = 21
INPUT = InputSpec(
    name="picture", shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3
)


def calibrated(network: nn.Module) -> QuantizedNetwork:
    quantized = prepare(network, examples(1))
    calibrate(quantized, [examples(64)])
    quantized.set_fake_quantizing(True)
    return quantized.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[nn.Module]], onnx.ModelProto]:
    """The canonical graph of each network, exported once for all tests."""
    graphs: dict[type[nn.Module], onnx.ModelProto] = {}

    def canonical(kind: type[nn.Module]) -> onnx.ModelProto:
        if kind not in graphs:
            path = tmp_path_factory.mktemp("graphs") / "model.onnx"
            export_int8(calibrated(build(kind)), INPUT, path, opset=OPSET)
            graphs[kind] = read_graph(path)
        return graphs[kind]

    return canonical


Exported = Callable[[type[nn.Module]], onnx.ModelProto]


def logits(quantized: QuantizedNetwork, x: Tensor, saturation: str) -> np.ndarray:
    quantized.set_saturation(saturation)
    with torch.no_grad():
        return quantized(x).numpy()


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for single codes that a different order of summation tips over."""
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995
    assert np.abs(found - expected).mean() < 2e-3 * expected.std()


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_canonical_graph_as_written_is_the_fake_quantized_network(
    kind: type[nn.Module], exported: Exported
) -> None:
    check_graph(exported(kind), load_spec("tensorrt"), "canonical")
    x = examples(256, seed=3) * 1.5  # beyond the calibrated range
    found = run_batches(open_session(exported(kind), as_written=True), x.numpy())
    assert_same(found, logits(calibrated(build(kind)), x, "s8"))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_unsigned_dialect_optimized_is_the_network_with_its_saturation(
    kind: type[nn.Module], exported: Exported
) -> None:
    dialect = to_dialect(exported(kind), "onnxruntime-u8")
    check_graph(dialect, load_spec("onnxruntime"), "u8")
    x = examples(256, seed=3) * 1.5
    assert_same(run_batches(open_session(dialect), x.numpy()), logits(calibrated(build(kind)), x, "u8"))


@pytest.mark.parametrize("kind", NETWORKS)
def test_both_sides_agree_which_tensors_are_never_negative(kind: type[nn.Module], exported: Exported) -> None:
    dialect = to_dialect(exported(kind), "onnxruntime-u8")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in dialect.graph.initializer}
    found = {
        (float(constants[node.input[1]]), int(constants[node.input[2]]) == 0)
        for node in dialect.graph.node
        if node.op_type == "QuantizeLinear"
    }
    quantized = calibrated(build(kind))
    signs = {q.label: q.non_negative for q in quantized.quantizers()}
    assert found == {(scale, signs[label]) for label, scale in quantized.scales().items()}


@pytest.mark.parametrize("kind", [PostAct, PreAct, Inverted, Branches])
def test_every_weighted_operator_runs_in_int8(
    kind: type[nn.Module], exported: Exported, tmp_path: Path
) -> None:
    write_graph(to_dialect(exported(kind), "onnxruntime-u8"), tmp_path / "model.onnx")
    audit = audit_graph(tmp_path / "model.onnx")
    assert [operator.cause for operator in audit.operators if not operator.int8] == []
    assert audit.weighted_ops >= 4
    assert "Conv" not in audit.optimized_operators
    assert "Add" not in audit.optimized_operators


def test_what_the_canonical_graph_holds(exported: Exported) -> None:
    graph = exported(PostAct).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    codes = [value for value in constants.values() if value.dtype == np.int8 and value.ndim > 1]
    assert sorted(value.shape for value in codes) == [(4, 8), (8, 3, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3)]
    assert all(np.abs(value.reshape(len(value), -1)).max(1).tolist() == [127] * len(value) for value in codes)
    floats = [value.shape for value in constants.values() if value.dtype == np.float32 and value.ndim]
    assert Counter(floats) == {(8,): 6, (4,): 2}  # scales and biases
    assert Counter(node.op_type for node in graph.node)["GlobalAveragePool"] == 1
    assert "ReduceMean" not in {node.op_type for node in graph.node}


def test_input_output_and_batch_are_named(exported: Exported) -> None:
    graph = exported(PostAct).graph
    (entry,), (result,) = graph.input, graph.output
    assert (entry.name, result.name) == ("picture", "logits")
    dims = entry.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", *SHAPE]
    assert [d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim] == ["batch", CLASSES]
    assert exported(PostAct).opset_import[0].version == OPSET


@pytest.mark.parametrize("kind", [Inverted, Attention])
def test_the_fp32_graph_is_the_network(kind: type[nn.Module], tmp_path: Path) -> None:
    network = replace_relu6(build(kind))
    export_fp32(network, INPUT, tmp_path / "model.onnx", opset=OPSET)
    model = read_graph(tmp_path / "model.onnx")
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    x = examples(65)
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(run_batches(open_session(model), x.numpy()), expected, rtol=1e-3, atol=1e-4)


def test_bytes_are_the_same_again_and_tell_nothing_of_this_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    quantized = calibrated(build(PostAct))
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        for name in ("first", "second"):
            export_int8(quantized, INPUT, tmp_path / name, opset=OPSET)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""
    data = (tmp_path / "first").read_bytes()
    assert data == (tmp_path / "second").read_bytes()
    for trace in (b"/site-packages", b".py", str(Path.cwd()).encode(), b"pkg.torch", b"stack"):
        assert trace not in data
    for name, value in quantized.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_a_dead_channel_with_a_live_bias_survives(tmp_path: Path) -> None:
    network = build(Inverted)
    norm = network.block[4]
    norm.weight.data[:8] = 1e-12
    norm.bias.data[:8] = 1.0
    quantized = calibrated(network)
    export_int8(quantized, INPUT, tmp_path / "model.onnx", opset=OPSET)
    dialect = to_dialect(read_graph(tmp_path / "model.onnx"), "onnxruntime-u8")
    x = examples(64, seed=3)
    assert_same(run_batches(open_session(dialect), x.numpy()), logits(quantized, x, "u8"))


def test_without_scales_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="6 activations have no scale, the first is input"):
        export_int8(prepare(build(PostAct), examples(1)), INPUT, tmp_path / "model.onnx", opset=OPSET)
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    quantized = calibrated(build(PostAct))
    quantized.graph.get_submodule("conv2.op").weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ConversionError) as caught:
        export_int8(quantized, INPUT, tmp_path / "model.onnx", opset=OPSET)
    assert str(caught.value) == "conv2: the weight holds a value that is not finite"


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.special.bessel_j0(x).mean((2, 3)))


def test_an_operation_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        export_fp32(Sorted(), INPUT, tmp_path / "model.onnx", opset=OPSET)
    assert "bessel_j0" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.where == "Sorted"
    assert not list(tmp_path.iterdir())


def test_nodes_are_named_after_the_modules_that_they_came_from(exported: Exported) -> None:
    names = [node.name for node in exported(Inverted).graph.node]
    assert len(names) == len(set(names))
    weighted = {node.name for node in exported(Inverted).graph.node if node.op_type in ("Conv", "Gemm")}
    modules = {
        name for name, module in Inverted().named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert {name.split("/")[0] for name in weighted} <= modules


class TwoRanges(nn.Module):
    """A layer called twice; the second time its input is so small that its bias needs a coarser weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)) * torch.full((1, 3, 1, 1), 1e-8)
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def test_a_layer_called_twice_has_the_codes_of_each_call(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TwoRanges().eval()
    network.conv.bias.data.fill_(20.0)
    quantized = calibrated(network)
    export_int8(quantized, INPUT, tmp_path / "model.onnx", opset=OPSET)
    model = read_graph(tmp_path / "model.onnx")
    scales = [tensor for tensor in model.graph.initializer if tensor.name.endswith("scale_O")]
    assert len(scales) == 3  # two of the layer, one of the head
    x = examples(64, seed=3)
    found = run_batches(open_session(model, as_written=True), x.numpy())
    np.testing.assert_allclose(found, logits(quantized, x, "s8"), rtol=1e-4, atol=1e-6)
