"""Weights of 4 and 7 bits and learned scales, from training to the runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from torch import nn

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.check_graph import check_graph, read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.graph_view import GraphView
from edgekd.conversion.int4_weights import pack_int4
from edgekd.conversion.specs import load_spec
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.scheme import Scheme
from edgekd.errors import ConversionError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.runtimes.tensorrt import parse_and_build
from tests.conversion.test_to_onnx import INPUT, OPSET, assert_same, logits
from tests.quantization.networks import NETWORKS, Inverted, PostAct, build, examples

W4A8 = Scheme(weight_bits=4, scales="learned")
ALL_4 = Scheme(weight_bits=4, ends_8bit=False)
SEVEN = Scheme(reduce_range=True)


def calibrated(kind: type[nn.Module], scheme: Scheme) -> QuantizedNetwork:
    quantized = prepare(build(kind), examples(1), scheme)
    calibrate(quantized, [examples(64)])
    quantized.set_fake_quantizing(True)
    return quantized.eval()


def trained(kind: type[nn.Module], scheme: Scheme = W4A8) -> QuantizedNetwork:
    """After two steps in which its scales moved."""
    quantized = calibrated(kind, scheme).train()
    quantized.set_observing(True)
    optimizer = torch.optim.SGD(quantized.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(quantized(examples(32)), torch.arange(32) % 4).backward()
        optimizer.step()
    quantized.set_observing(False)
    return quantized.eval()


def canonical_of(quantized: QuantizedNetwork, folder: Path) -> onnx.ModelProto:
    export_int8(quantized, INPUT, folder / "canonical.onnx", opset=OPSET)
    return read_graph(folder / "canonical.onnx")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[nn.Module]], onnx.ModelProto]:
    graphs: dict[type[nn.Module], onnx.ModelProto] = {}

    def canonical(kind: type[nn.Module]) -> onnx.ModelProto:
        if kind not in graphs:
            graphs[kind] = canonical_of(trained(kind), tmp_path_factory.mktemp("graphs"))
        return graphs[kind]

    return canonical


Exported = Callable[[type[nn.Module]], onnx.ModelProto]


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_dialect_is_the_network_with_its_saturation(kind: type[nn.Module], exported: Exported) -> None:
    canonical, quantized, x = exported(kind), trained(kind), examples(256, seed=3) * 1.5
    as_written = run_batches(open_session(canonical, as_written=True), x.numpy())
    assert_same(as_written, logits(quantized, x, "s8"))
    dialect = to_dialect(canonical, "onnxruntime-u8")
    check_graph(dialect, load_spec("onnxruntime"), "u8")
    assert_same(run_batches(open_session(dialect), x.numpy()), logits(quantized, x, "u8"))


def weights_of(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Codes and scales of each weight, by the layer that its DequantizeLinear belongs to."""
    view = GraphView.of(model.graph)
    found = {}
    for node in model.graph.node:
        codes = view.constant(node.input[0]) if node.op_type == "DequantizeLinear" else None
        scale = view.constant(node.input[1]) if codes is not None else None
        if codes is not None and scale is not None and codes.dtype == np.int8:
            found[node.name.split("/")[0]] = codes, scale
    return found


@pytest.mark.parametrize("scheme", [Scheme(), SEVEN, ALL_4, W4A8])
def test_the_codes_and_scales_in_the_files_are_those_of_training(scheme: Scheme, tmp_path: Path) -> None:
    quantized = trained(Inverted, scheme)
    canonical = canonical_of(quantized, tmp_path)
    dialect = to_dialect(canonical, "onnxruntime-u8", {"pad_channels": False})
    for found in (weights_of(canonical), weights_of(dialect)):
        assert len(found) == 5
        for path, module in quantized.weight_quantizers():
            codes, scale = found[path]
            input_amax = torch.tensor(1.0)  # the biases here need no wider scale
            np.testing.assert_array_equal(codes, module.codes(input_amax).numpy())
            np.testing.assert_array_equal(scale, module.weight_scale(input_amax).numpy())
            if module.scale_O is not None:
                np.testing.assert_array_equal(scale, module.scale_O.detach().numpy())


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_weighted_operator_runs_in_int8_as_it_does_with_8_bits(
    kind: type[nn.Module], exported: Exported, tmp_path: Path
) -> None:
    write_graph(to_dialect(exported(kind), "onnxruntime-u8"), tmp_path / "four.onnx")
    eight = canonical_of(calibrated(kind, Scheme()), tmp_path)
    write_graph(to_dialect(eight, "onnxruntime-u8"), tmp_path / "eight.onnx")
    four, eight_audit = (audit_graph(tmp_path / f"{name}.onnx") for name in ("four", "eight"))
    assert [op.int8 for op in four.operators] == [op.int8 for op in eight_audit.operators]
    assert four.optimized_operators == eight_audit.optimized_operators  # no Cast is left


def test_4_bit_weights_take_half_a_byte_in_onnxruntimes_file_and_a_byte_in_tensorrts(
    exported: Exported, tmp_path: Path
) -> None:
    canonical = exported(Inverted)
    dialect = to_dialect(canonical, "onnxruntime-u8")
    types = {tensor.name: tensor.data_type for tensor in canonical.graph.initializer}
    assert TensorProto.INT4 not in types.values()
    packed = [tensor for tensor in dialect.graph.initializer if tensor.data_type == TensorProto.INT4]
    layers = {path: module for path, module in trained(Inverted).weight_quantizers() if module.bits == 4}
    assert len(packed) == len(layers) == 3
    assert sorted(len(tensor.raw_data) for tensor in packed) == sorted(
        (module.op.weight.numel() + 1) // 2 for module in layers.values()
    )


def test_packing_keeps_every_code_also_of_an_odd_number(tmp_path: Path) -> None:
    codes = np.array([[-8, 7, 1], [0, -1, 2], [3, -7, 5]], np.int8)
    model = one_weight(codes)
    pack_int4(model.graph)
    onnx.checker.check_model(model, full_check=True)
    (packed,) = (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT4)
    assert len(packed.raw_data) == 5
    np.testing.assert_array_equal(numpy_helper.to_array(packed).astype(np.int8), codes)
    np.testing.assert_array_equal(GraphView.of(model.graph).constant("w"), codes)
    x = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(open_session(model).run(None, {"x": x})[0], codes * np.float32(0.5))


@pytest.mark.parametrize("value", [8, -9])
def test_a_code_that_needs_a_fifth_bit_leaves_the_weight_as_it_is(value: int) -> None:
    model = one_weight(np.array([[value, 1, 1]] * 3, np.int8))
    before = model.SerializeToString()
    pack_int4(model.graph)
    assert model.SerializeToString() == before


def one_weight(codes: np.ndarray) -> onnx.ModelProto:
    """x @ dequantized weight (3, 3)."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 3] x) => (float[n, 3] y) <float[3] s = {0.5, 0.5, 0.5}> {
        d = DequantizeLinear <axis = 1> (w, s)
        y = MatMul (x, d)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(codes, "w"))
    return model


def test_the_same_weights_give_the_same_bytes(exported: Exported) -> None:
    first, second = (to_dialect(exported(PostAct), "onnxruntime-u8") for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


@pytest.mark.parametrize("kind", [PostAct, Inverted])
def test_tensorrt_builds_an_engine(kind: type[nn.Module], exported: Exported, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    write_graph(to_dialect(exported(kind), "tensorrt-s8"), tmp_path / "graph.onnx")
    record = parse_and_build(tmp_path / "graph.onnx", sm=89, engine=tmp_path / "engine")
    assert (record.status, record.messages) == ("built", ())


def test_an_unfolded_batch_norm_is_exported_folded(tmp_path: Path) -> None:
    quantized = calibrated(Inverted, W4A8)
    folded = canonical_of(quantized, tmp_path)
    quantized.unfold_batch_norm(build(Inverted), examples(2))
    assert canonical_of(quantized, tmp_path).SerializeToString() == folded.SerializeToString()


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("conv2.scale_O", "conv2: the scale holds a value that is not finite"),
        ("quantizers.stem_2.amax", "stem.2: the amax holds a value that is not finite"),
    ],
)
def test_a_learned_scale_that_is_not_finite_is_refused(parameter: str, message: str, tmp_path: Path) -> None:
    quantized = calibrated(PostAct, W4A8)
    quantized.graph.get_parameter(parameter).data.fill_(float("nan"))
    with pytest.raises(ConversionError) as caught:
        export_int8(quantized, INPUT, tmp_path / "model.onnx", opset=OPSET)
    assert str(caught.value) == message
