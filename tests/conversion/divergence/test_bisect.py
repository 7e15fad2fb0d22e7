"""Layers found by logits alone: those of a wrong graph, and those that a runtime gets wrong."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from edgekd.conversion.divergence.bisect import as_written, bisect_graph, bisect_runtime
from edgekd.conversion.divergence.question import Question, Runner, Runtime, Subject
from edgekd.conversion.divergence.searched import searched
from edgekd.conversion.divergence.without import groups_of, healthy, without
from edgekd.errors import ConversionError
from tests.conversion.divergence.planted import WEIGHTS, halves, layer_at, quantizers, scaled, weights
from tests.conversion.divergence.small import SHA, ask, copied, small, value_of

NAMES = ("residual", "linear_residual", "depthwise", "maxpool", "gate")


@pytest.mark.parametrize("name", NAMES)
def test_a_coarse_scale_is_found_by_logits(name: str) -> None:
    given = small(name, "onnxruntime-u8")
    found = 0
    for place in quantizers(given.candidate):
        answer = ask(given, scaled(16)(given.candidate, place))
        search = bisect_graph(answer.found, answer.x, answer.reference, as_written, "a runtime")
        assert search.layers in ((), (layer_at(given.candidate, place),))
        assert search.runs <= 3 + 2 * math.ceil(math.log2(len(answer.found.layers)))
        found += bool(search.layers)
        if search.layers:
            assert search.part == "activations"
            assert search.before_db is not None
            assert search.after_db is None or search.after_db > search.before_db + 2
    # Where the logits hardly change, they cannot tell.
    assert found >= len(quantizers(given.candidate)) - 2


@pytest.mark.parametrize("fault", ["all channels x 4", "permuted outputs", "bias lost"])
def test_a_wrong_constant_is_found_by_logits(fault: str) -> None:
    given = small("residual", "onnxruntime-u8")
    for place in weights(given.candidate):
        broken = WEIGHTS[fault](given.candidate, place)
        answer = ask(given, broken)
        search = bisect_graph(answer.found, answer.x, answer.reference, as_written, "a runtime")
        assert (search.layers, search.part) == ((layer_at(given.candidate, place),), "weights")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dialect", ["onnxruntime-u8", "tensorrt-s8"])
def test_a_healthy_graph_blames_nobody(name: str, dialect: str) -> None:
    answer = ask(small(name, dialect))  # type: ignore[arg-type]
    search = bisect_graph(answer.found, answer.x, answer.reference, as_written, "a runtime")
    assert (search.layers, search.part, search.runs) == ((), None, 1)
    assert search.before_db == pytest.approx(search.expected_db, abs=4)


def test_two_layers_are_both_found() -> None:
    given = small("residual", "onnxruntime-u8")
    places = quantizers(given.candidate)
    broken = scaled(24)(scaled(24)(given.candidate, places[1]), places[4])
    assert broken is not None
    answer = ask(given, broken)
    search = bisect_graph(answer.found, answer.x, answer.reference, as_written, "a runtime")
    assert set(search.layers) == {layer_at(given.candidate, place) for place in (places[1], places[4])}
    assert search.part == "both"


def misreading(place: str, factor: float = 6) -> Runner:
    """A runtime that reads the codes of one quantizer with another scale, while they are there."""

    def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
        model = copied(model)
        if any(node.output[0] == place for node in model.graph.node):
            for node in halves(model, place):
                scale = value_of(model, node.input[1]) * np.float32(factor)
                name = f"misread_{node.output[0]}"
                model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(scale), name))
                node.input[1] = name
        return as_written(model, x)

    return run


@pytest.mark.parametrize("name", NAMES)
def test_what_a_runtime_gets_wrong_is_found_wherever_it_is(name: str) -> None:
    given = small(name, "tensorrt-s8")
    for place in quantizers(given.candidate):
        answer = ask(given)
        search = bisect_runtime(answer.found, answer.x, misreading(place), "a runtime")
        layer = layer_at(given.candidate, place)
        moved = layer.startswith(("/Flatten", "/MaxPool"))  # goes with the layer whose values it moves
        assert moved or search.layers == (layer,)
        assert search.against == "as written"
        assert search.runs <= 5 + math.ceil(math.log2(len(answer.found.layers)))


def test_a_runtime_that_parts_is_searched_without_being_asked() -> None:
    given = small("residual", "tensorrt-s8")
    place = quantizers(given.candidate)[3]
    runtime = Runtime("a runtime", misreading(place, 20))
    answer = ask(given, runtime=runtime)
    (finding,) = answer.chain.findings
    assert (finding.link, finding.layer) == ("tensorrt-s8 as written -> a runtime", None)
    chain = searched(answer, _question(given, runtime), asked=False)
    start = "first divergence: /Conv_13, tensorrt-s8 as written -> a runtime: the logits are others ("
    assert chain.headline.startswith(f"candidate.onnx: {start}")
    assert chain.headline.endswith(" dB); with its values in float they agree")
    assert chain.bisection is not None
    assert chain.bisection.layers == ("/Conv_13",)


def test_a_runtime_that_refuses_half_a_graph_is_told() -> None:
    given = small("residual", "tensorrt-s8")
    place = quantizers(given.candidate)[3]
    wrong = misreading(place, 20)

    def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
        if len(model.graph.node) != len(given.candidate.graph.node):
            raise ConversionError("cannot build it")
        return wrong(model, x)

    runtime = Runtime("a runtime", run)
    answer = ask(given, runtime=runtime)
    chain = searched(answer, _question(given, runtime), asked=False)
    assert chain.notes == ("the layers were not searched for: cannot build it",)
    assert chain.bisection is None


def test_a_runtime_that_refuses_the_graph_is_left_out() -> None:
    def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
        raise ConversionError("cannot load it")

    chain = ask(small("residual", "tensorrt-s8"), runtime=Runtime("a runtime", run)).chain
    assert chain.notes == ("a runtime was left out: cannot load it",)
    assert [link.target for link in chain.links] == ["tensorrt-s8 as written"]


def test_a_search_that_was_asked_for_runs_without_a_runtime() -> None:
    given = small("residual", "tensorrt-s8")
    answer = ask(given)
    chain = searched(answer, _question(given, None), asked=True)
    assert chain.bisection is not None
    assert chain.bisection.runtime == "onnxruntime, as written"
    assert searched(answer, _question(given, None), asked=False) is answer.chain


def _question(given, runtime):
    subjects = (Subject("candidate.onnx", given.candidate, SHA), Subject("float.onnx", given.reference, SHA))
    return Question(*subjects, dialect=given.dialect, x=given.x, runtime=runtime)


def test_a_graph_without_a_layers_quantizers() -> None:
    given = small("residual", "onnxruntime-u8")
    answer = ask(given)
    groups = groups_of(answer.found)
    assert [group.name for group in groups] == [one.layer.name for one in answer.found.layers]
    everything = without(given.candidate, groups)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in everything.graph.node}
    # With the reference's constants in it, nothing is left of quantization.
    np.testing.assert_allclose(as_written(everything, given.x), answer.reference, rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(without(given.candidate, groups[2:4]), full_check=True)


def test_what_is_moved_in_codes_belongs_to_what_made_it() -> None:
    answer = ask(small("maxpool", "onnxruntime-u8"))
    conv = next(group for group in groups_of(answer.found) if group.name == "/Conv_3")
    assert conv.activations == {"Relu_4", "MaxPool_7"}


def test_the_healthy_form_of_a_broken_graph_is_healthy() -> None:
    given = small("residual", "onnxruntime-u8")
    broken = scaled(16)(given.candidate, quantizers(given.candidate)[2])
    answer = ask(given, broken)
    should = as_written(healthy(answer.found, groups_of(answer.found)), given.x)
    error = {
        "broken": ((as_written(broken, given.x) - answer.reference) ** 2).mean(),  # type: ignore[arg-type]
        "healthy": ((should - answer.reference) ** 2).mean(),
        "own": ((as_written(given.candidate, given.x) - answer.reference) ** 2).mean(),
    }
    assert error["healthy"] == pytest.approx(error["own"], rel=0.6)
    assert error["broken"] > 4 * error["healthy"]
