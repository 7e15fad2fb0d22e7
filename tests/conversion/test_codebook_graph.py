"""Graphs of codes: small files whose folded weights are those of the codebooks, bit for bit."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.codebook_graph import Packing, export_codebooks
from edgekd.conversion.to_onnx import export_fp32
from edgekd.documents.common import InputSpec
from edgekd.errors import NetworkError
from edgekd.networks.network import build_network
from edgekd.quantization.codebook import Codebooks, encode
from edgekd.quantization.codebook_network import PointNetwork, UniformNetwork, coded_parameters
from edgekd.quantization.levels import quantile_points
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.runtimes.tensorrt import parse_and_build
from tests.quantization.networks import NETWORKS, SHAPE, Attention, Functional, PostAct, build, examples

OPSET = 21
INPUT = InputSpec(
    name="picture", shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3
)
DECODES = {"BitShift", "BitwiseAnd", "Cast", "Div", "Pad"}
"""Operators that only decoding puts into these graphs."""


def uniform(network: nn.Module, bits: int = 4, bucket: int | None = 50) -> Codebooks:
    names = coded_parameters(network)
    return UniformNetwork(copy.deepcopy(network), names, levels=2**bits, bucket=bucket).codebooks()


def points(network: nn.Module, levels: int = 16, bucket: int | None = 50) -> Codebooks:
    names = coded_parameters(network)
    each = dict.fromkeys(names, levels)
    return PointNetwork(copy.deepcopy(network), names, levels=each, bucket=bucket).codebooks()


def export(
    network: nn.Module, codebooks: Codebooks, folder: Path, *, packing: Packing = "bits", opset: int = OPSET
) -> onnx.ModelProto:
    path = folder / "student.onnx"
    export_codebooks(network, codebooks, INPUT, path, opset=opset, packing=packing)
    model = read_graph(path)
    onnx.checker.check_model(model, full_check=True)
    return model


def decoded(model: onnx.ModelProto, codebooks: Codebooks) -> dict[str, np.ndarray]:
    """The weights as the runtime has them: taken out of the graph as outputs."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    names = [f"{name}/decoded" for name in codebooks.books]
    for name, book in zip(names, codebooks.books.values(), strict=True):
        opened.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, book.shape))
    values = open_session(opened).run(names, {INPUT.name: examples(1).numpy()})
    return dict(zip(codebooks.books, values, strict=True))


def assert_same_bits(found: np.ndarray, expected: Tensor) -> None:
    np.testing.assert_array_equal(found.view(np.int32), expected.numpy().view(np.int32))


@pytest.mark.parametrize(("make", "packing"), [(uniform, "bits"), (points, "bytes")])
@pytest.mark.parametrize("kind", NETWORKS)
def test_onnx_runtime_decodes_once_and_computes_what_torch_does(
    kind: type[nn.Module], make: type, packing: Packing, tmp_path: Path
) -> None:
    network = build(kind)
    codebooks = make(network)
    model = export(network, codebooks, tmp_path, packing=packing)
    for name, value in decoded(model, codebooks).items():
        assert_same_bits(value, codebooks.books[name].decode())
    plain, x = build(kind, seed=9), examples(32)
    plain.load_state_dict(codebooks.state())
    with torch.no_grad():
        expected = plain(x).numpy()
    found = run_batches(open_session(model, optimized=tmp_path / "optimized.onnx"), x.numpy())
    np.testing.assert_allclose(found, expected, atol=5e-6 * np.abs(expected).max(), rtol=0)
    optimized = onnx.load(tmp_path / "optimized.onnx").graph
    assert not DECODES & {node.op_type for node in optimized.node}
    assert onnx.TensorProto.UINT8 not in {tensor.data_type for tensor in optimized.initializer}


class Plain(nn.Module):
    """No batch norm, which a runtime would fold into the weight that is looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).amax((2, 3)))


def test_folded_initializers_are_the_weights(tmp_path: Path) -> None:
    network = Plain()
    codebooks = uniform(network)
    model = export(network, codebooks, tmp_path)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    # Higher levels lay weights out anew for this processor.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx").graph
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in optimized.initializer}
    assert {node.op_type for node in optimized.node} == {"Conv", "ReduceMax", "Gemm"}
    for name, book in codebooks.books.items():
        assert_same_bits(found[f"{name}/decoded"], book.decode())


class Many(nn.Module):
    """A weight for each width of a code and each way in which a bucket can end; 45 elements each."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(5, 9) for _ in range(8 * 3))

    def forward(self, x: Tensor) -> Tensor:
        return sum(F.linear(x.flatten(1)[:, :9], weight) for weight in self.weights)


@pytest.mark.parametrize("learned", [False, True])
def test_every_width_and_every_bucket(learned: bool, tmp_path: Path) -> None:
    """Buckets that end in the last weight or before, one bucket; a stream of bits that ends within a byte."""
    network = Many()
    books = {}
    for place, (bits, bucket) in enumerate(itertools.product(range(1, 9), (7, 15, None))):
        name, w = f"weights.{place}", network.weights[place].detach()
        levels = 2**bits - (bits > 1) if learned else 2**bits
        points_S = quantile_points(torch.rand(99), levels) if learned else None
        books[name] = encode(w, levels=levels, bucket=bucket, points_S=points_S, name=name)
    codebooks = Codebooks(books, {})
    found = decoded(export(network, codebooks, tmp_path), codebooks)
    assert len(found) == 24
    for name, value in found.items():
        assert_same_bits(value, books[name].decode())


@pytest.mark.parametrize("opset", [18, 23])
def test_other_opsets(opset: int, tmp_path: Path) -> None:
    network = build(PostAct)
    codebooks = uniform(network)
    model = export(network, codebooks, tmp_path, opset=opset)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert_same_bits(decoded(model, codebooks)["conv1.weight"], codebooks.books["conv1.weight"].decode())


def test_the_file_has_the_size_of_its_codes(tmp_path: Path) -> None:
    """bits / 32 of fp32, and 0.04 for ranges (0.008), nodes, biases and batch norms."""
    spec = INPUT.model_copy(update={"shape": (3, 16, 16)})
    network = build_network("resnet20", in_channels=3, num_classes=10, input_shape=spec.shape).eval()
    export_fp32(network, spec, tmp_path / "fp32.onnx", opset=OPSET)
    export_codebooks(network, uniform(network, 4, 256), spec, tmp_path / "codes.onnx", opset=OPSET)
    ratio = (tmp_path / "codes.onnx").stat().st_size / (tmp_path / "fp32.onnx").stat().st_size
    assert 4 / 32 < ratio < 4 / 32 + 0.04


def test_the_same_codebooks_give_the_same_bytes(tmp_path: Path) -> None:
    network = build(PostAct)
    for name in ("a", "b"):
        export_codebooks(network, uniform(network), INPUT, tmp_path / name, opset=OPSET)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_the_graph_holds(tmp_path: Path) -> None:
    network = build(PostAct)
    codebooks = points(network)
    graph = export(network, codebooks, tmp_path).graph
    names = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert names["conv1.weight/codes"].shape == (8 * 8 * 9 * 4 // 8, 1)
    assert names["conv1.weight/codes"].dtype == np.uint8
    assert_same_bits(names["conv1.weight/points"], codebooks.books["conv1.weight"].points_S)
    assert names["conv1.weight/alpha"].shape == names["conv1.weight/beta"].shape == (12, 1)
    assert all(value.size < 576 for value in names.values())  # no weight in float
    assert Counter(node.op_type for node in graph.node)["BatchNormalization"] == 3
    assert all(node.domain == "" for node in graph.node)


class Shared(nn.Module):
    """A weight with two names, and one that no operation reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.idle = (nn.Linear(192, 192, bias=False) for _ in range(3))
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x.flatten(1))))[:, :4]


def test_a_shared_weight_is_there_once_and_an_idle_one_not_at_all(tmp_path: Path) -> None:
    network = Shared()
    model = export(network, uniform(network), tmp_path)
    codes = [tensor.name for tensor in model.graph.initializer if tensor.name.endswith("/codes")]
    assert codes == ["first.weight/codes"]
    plain, x = Shared(), examples(4)
    plain.load_state_dict(uniform(network).state())
    with torch.no_grad():
        found = run_batches(open_session(model), x.numpy())
        np.testing.assert_allclose(found, plain(x).numpy(), atol=1e-6)


def test_codebooks_of_another_network(tmp_path: Path) -> None:
    with pytest.raises(NetworkError) as caught:
        export(build(PostAct), uniform(build(Functional)), tmp_path)
    assert str(caught.value) == (
        "stem.0.weight: the codebooks have nothing there, the network a tensor (8, 3, 3, 3)"
        "\n  try: give the network that the codebooks were made of"
    )


class WithConstant(nn.Module):
    """A parameter that is called like what the exporter makes, and a tensor that forward makes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.Parameter(torch.randn(4, 12))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(x.flatten(1)[:, :12]) * torch.arange(12.0), self.relu)


def test_the_audit_counts_no_decoding(tmp_path: Path) -> None:
    network = Plain()
    export(network, points(network), tmp_path)
    found = audit_graph(tmp_path / "student.onnx")
    assert (found.int8_ops, found.weighted_ops) == (0, 2)


def test_names_and_constants_of_the_network_s_own(tmp_path: Path) -> None:
    network, x = WithConstant(), examples(4)
    codebooks = uniform(network)
    found = run_batches(open_session(export(network, codebooks, tmp_path)), x.numpy())
    network.load_state_dict(codebooks.state())
    with torch.no_grad():
        np.testing.assert_allclose(found, network(x).numpy(), rtol=1e-5, atol=1e-5)


def test_codebooks_of_more_than_the_network(tmp_path: Path) -> None:
    network = build(PostAct)
    codebooks = uniform(network)
    more = Codebooks(codebooks.books, {**codebooks.tensors, "extra": torch.zeros(2)})
    with pytest.raises(NetworkError, match=r"^extra: the codebooks have a tensor \(2,\) there, the network"):
        export(network, more, tmp_path)


def test_the_network_is_left_as_it_is(tmp_path: Path) -> None:
    network = build(PostAct)
    before = copy.deepcopy(network.state_dict())
    export(network, uniform(build(PostAct, seed=3)), tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("kind", [PostAct, Attention])
def test_tensorrt_takes_codes_in_bytes_and_none_in_bits(kind: type[nn.Module], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    network = build(kind)
    statuses = {}
    for packing in ("bytes", "bits"):
        export(network, points(network), tmp_path, packing=packing)  # type: ignore[arg-type]
        record = parse_and_build(tmp_path / "student.onnx", sm=89, engine=tmp_path / "engine")
        statuses[packing] = (record.status, [line.split(":")[0] for line in record.messages][:1])
    assert statuses["bytes"][0] == "built"
    assert statuses["bits"] == ("rejected", ["the graph (BitShift)"])


def test_a_codebook_of_one_bucket_without_range(tmp_path: Path) -> None:
    network = Plain()
    with torch.no_grad():
        network.conv.weight.fill_(0.25)
    w = network.conv.weight.detach()
    book = encode(w, levels=4, bucket=None, points_S=quantile_points(w, 4), name="w")
    codebooks = Codebooks(
        {"conv.weight": book},
        {name: value for name, value in network.state_dict().items() if name != "conv.weight"},
    )
    assert_same_bits(decoded(export(network, codebooks, tmp_path), codebooks)["conv.weight"], w)
