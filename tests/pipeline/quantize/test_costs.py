"""Graphs with layers in float, cut out of one int8 graph, are those that an export gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.partly_float import partly_float
from edgekd.conversion.to_onnx import export_int8
from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Measuring
from edgekd.documents.scheme import Scheme
from edgekd.errors import ConversionError
from edgekd.pipeline.quantize.costs import LatencyCosts, as_spared, timing_twin, weight_costs
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.layers import weight_bits_of
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.quantization.sensitivity import NOTHING
from edgekd.quantization.variants import Variants
from tests.quantization.networks import SHAPE, Attention, Branches, PostAct, PreAct, build, examples

INPUT = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)


def exported(network: QuantizedNetwork, folder: Path) -> onnx.ModelProto:
    export_int8(network, INPUT, folder / "graph.onnx", opset=21)
    return onnx.load(folder / "graph.onnx")


def variants_of(kind: type[nn.Module], start: Scheme = Scheme()) -> Variants:
    def built(scheme: Scheme) -> QuantizedNetwork:
        network = prepare(build(kind), examples(1), scheme)
        calibrate(network, [examples(16)])
        return network

    return Variants(build(kind), built, examples(2), start, "u8")


@pytest.fixture(scope="module")
def canonical_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[nn.Module]], onnx.ModelProto]:
    """The graph of a network's timing twin, exported once."""
    made: dict[type[nn.Module], onnx.ModelProto] = {}

    def canonical(kind: type[nn.Module]) -> onnx.ModelProto:
        if kind not in made:
            made[kind] = exported(timing_twin(variants_of(kind).first), tmp_path_factory.mktemp("canonical"))
        return made[kind]

    return canonical


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        (PostAct, {"conv1"}),
        (PostAct, {"head"}),  # behind pooling and reshaping
        (PreAct, {"bn1.affine2", "conv2"}),
        (Branches, {"gate.1", "tail.0"}),  # concatenations share scales
        (Attention, {"qkv"}),
    ],
)
def test_it_has_the_operators_of_an_export(
    canonical_of: Callable[[type[nn.Module]], onnx.ModelProto],
    kind: type[nn.Module],
    layers: set[str],
    tmp_path: Path,
) -> None:
    variants = variants_of(kind)
    found = as_spared(canonical_of(kind), variants.first, variants.prepared(layers))
    expected = exported(variants.prepared(layers), tmp_path)
    assert operators(found) == operators(expected)
    ours, theirs = (operators(to_dialect(each, "onnxruntime-u8")) for each in (found, expected))
    assert ours == theirs


@pytest.mark.parametrize("kind", [PostAct, PreAct, Branches])
def test_every_layer_in_float_is_the_fp32_graph(
    canonical_of: Callable[[type[nn.Module]], onnx.ModelProto], kind: type[nn.Module]
) -> None:
    variants = variants_of(kind)
    found = as_spared(canonical_of(kind), variants.first, variants.prepared(variants.layers()))
    assert not {"QuantizeLinear", "DequantizeLinear"} & operators(found).keys()


def test_nothing_spared_is_the_graph_itself(
    canonical_of: Callable[[type[nn.Module]], onnx.ModelProto], tmp_path: Path
) -> None:
    variants = variants_of(PostAct)
    found = as_spared(canonical_of(PostAct), variants.first, variants.prepared(()))
    assert operators(found) == operators(exported(variants.first, tmp_path))


def test_the_twin_is_a_copy() -> None:
    variants = variants_of(PostAct)
    before = {name: value.clone() for name, value in variants.first.state_dict().items()}
    scales = list(timing_twin(variants.first).scales().values())
    assert len(set(scales)) == len(scales)
    after = variants.first.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())


def test_weights_of_equal_codes_are_told_apart(
    canonical_of: Callable[[type[nn.Module]], onnx.ModelProto],
) -> None:
    """The exporter merges equal constants; a factor for each channel always has the codes 127 and -127."""
    canonical = onnx.ModelProto()
    canonical.CopyFrom(canonical_of(PreAct))
    for node in canonical.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == "conv2.codes":
            node.input[0] = "conv1.codes"
    found = partly_float(canonical, quantizers=(), layers=["conv1"])
    scales = [node.input[1] for node in found.graph.node if node.op_type == "DequantizeLinear"]
    assert "conv2.scale_O" in scales
    assert "conv1.scale_O" not in scales
    onnx.checker.check_model(found)


def test_a_scale_that_is_not_there_is_named(
    canonical_of: Callable[[type[nn.Module]], onnx.ModelProto],
) -> None:
    with pytest.raises(ConversionError) as caught:
        partly_float(canonical_of(PostAct), quantizers=["quantizers.none"], layers=[])
    assert str(caught.value) == "canonical graph: has no scale quantizers.none.scale"


def test_latencies_are_measured_beside_the_start() -> None:
    variants = variants_of(PostAct)
    measuring = Measuring(processes=2, warmup_s=0.01, max_warmup_s=0.02, min_time_s=0.01, min_samples=40)
    costs = LatencyCosts(INPUT, examples(4).numpy(), "onnxruntime-u8", measuring)
    every = [NOTHING, frozenset({"conv1"}), frozenset(variants.layers())]
    found = costs({layers: variants.prepared(layers) for layers in every})
    assert list(found) == every
    assert (found[NOTHING].ratio, found[NOTHING].processes) == (1.0, 2)
    for cost in found.values():
        assert (cost.what, cost.processes, cost.samples >= 80) == ("latency", 2, True)
        assert cost.interval is not None
        assert cost.interval.lower <= cost.ratio <= cost.interval.upper
    again = costs({NOTHING: variants.first})
    assert again[NOTHING].ratio == 1.0


def test_a_graph_with_a_layer_in_float_runs_and_answers_alike(
    canonical_of: Callable[[type[nn.Module]], onnx.ModelProto], tmp_path: Path
) -> None:
    """Its scales are those of the twin here: what counts is that the runtime takes both graphs."""
    variants = variants_of(PostAct)
    canonical = exported(variants.first, tmp_path)
    renamed = partly_float(canonical, quantizers=["quantizers.input"], layers=["stem.0"])
    x, answers = examples(8).numpy(), []
    for model in (canonical, renamed):
        graph = to_dialect(model, "onnxruntime-u8").SerializeToString()
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"input": x})[0])
    assert 0 < np.abs(answers[0] - answers[1]).max() < 0.3 * answers[0].std()


def test_weights_are_counted_in_bits() -> None:
    variants = variants_of(PostAct, Scheme(weight_bits=4))
    sizes = {name: module.op.weight.numel() for name, module in _weighted(variants.first)}
    biases = sum(module.op.bias.numel() for _, module in _weighted(variants.first))
    assert weight_bits_of(variants.first) == {"stem.0": 8, "conv1": 4, "conv2": 4, "head": 8}
    start = sizes["stem.0"] + sizes["head"] + (sizes["conv1"] + sizes["conv2"]) / 2 + 4 * biases
    spared = frozenset({"conv2"})
    found = weight_costs({NOTHING: variants.first, spared: variants.prepared(spared)})
    assert (found[NOTHING].what, found[NOTHING].ratio, found[NOTHING].interval) == ("weights", 1.0, None)
    assert found[spared].ratio == pytest.approx((start + sizes["conv2"] / 2) / start)


def _weighted(network: QuantizedNetwork) -> list[tuple[str, nn.Module]]:
    return [(name, network.graph.get_submodule(name)) for name in weight_bits_of(network)]
