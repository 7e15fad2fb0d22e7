"""A healthy graph raises no alarm; a planted fault is found, at its layer, before what follows from it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.conversion.divergence.question import Runtime
from edgekd.documents.spec import Int8Dialect
from tests.conversion.divergence.planted import (
    ACTIVATIONS,
    WEIGHTS,
    halves,
    layer_at,
    moved,
    no_relu,
    producers,
    quantizers,
    relus,
    scaled,
    weights,
)
from tests.conversion.divergence.small import (
    DIALECTS,
    ask,
    constant,
    copied,
    optimized,
    small,
    value_of,
)
from tests.conversion.graphs import CASES

cases = pytest.mark.parametrize("name", list(CASES))
dialects = pytest.mark.parametrize("dialect", DIALECTS)
SEEN = {name: plant for name, plant in (ACTIVATIONS | WEIGHTS).items() if name != "zero point of both halves"}


@cases
@dialects
def test_a_healthy_graph_raises_no_alarm(name: str, dialect: Int8Dialect) -> None:
    given = small(name, dialect)
    runtime = Runtime("optimized", optimized) if dialect == "onnxruntime-u8" else None
    chain = ask(given, runtime=runtime).chain
    assert chain.headline == "candidate.onnx: no divergence beyond quantization"
    assert chain.findings == chain.not_compared == ()
    assert not any(link.parts for link in chain.links)
    assert all(row.reference is not None for row in chain.layers)


@cases
@dialects
@pytest.mark.parametrize("factor", [4, 0.25])
def test_a_wrong_scale_is_found_wherever_it_is(name: str, dialect: Int8Dialect, factor: float) -> None:
    given = small(name, dialect)
    for place in quantizers(given.candidate):
        chain = ask(given, scaled(factor)(given.candidate, place)).chain
        first = chain.findings[0]
        assert first.layer == layer_at(given.candidate, place)
        assert f"its scale is {factor:g}"[:15] in first.cause or "saturates" in first.cause
        assert chain.links[0].parts


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_any_fault_is_found_at_its_layer(data: st.DataObject) -> None:
    given = small(data.draw(st.sampled_from(list(CASES))), data.draw(st.sampled_from(DIALECTS)))
    fault = data.draw(st.sampled_from(list(SEEN)))
    places = quantizers(given.candidate) if fault in ACTIVATIONS else weights(given.candidate)
    place = data.draw(st.sampled_from(places))
    broken = SEEN[fault](given.candidate, place)
    if broken is None:
        return
    chain = ask(given, broken).chain
    assert chain.findings[0].layer == layer_at(given.candidate, place), fault
    assert chain.headline.startswith(f"candidate.onnx: first divergence: {chain.findings[0].layer}, fp32 -> ")


@cases
def test_a_lost_relu_is_found_where_signed_codes_let_it_through(name: str) -> None:
    given = small(name, "tensorrt-s8")
    for place in relus(given.candidate):
        first = ask(given, no_relu(given.candidate, place)).chain.findings[0]
        assert first.layer == layer_at(given.candidate, place)
        assert first.cause == f"Relu '/{place}' of the reference is missing"


@cases
def test_a_relu_that_the_codes_make_redundant_may_go(name: str) -> None:
    """As in graphs of tools that leave it out: codes that start at zero cut off what it would."""
    given = small(name, "onnxruntime-u8")
    for place in relus(given.candidate):
        assert ask(given, no_relu(given.candidate, place)).chain.findings == ()


def test_two_faults_are_both_found_the_first_first() -> None:
    given = small("residual", "onnxruntime-u8")
    places = quantizers(given.candidate)
    broken = scaled(4)(scaled(4)(given.candidate, places[3]), places[1])
    assert broken is not None
    layers = [finding.layer for finding in ask(given, broken).chain.findings]
    assert layers[:2] == [layer_at(given.candidate, places[1]), layer_at(given.candidate, places[3])]


def test_a_zero_point_that_no_other_has_is_named() -> None:
    given = small("residual", "onnxruntime-u8")
    place = quantizers(given.candidate)[1]
    first = ask(given, moved(0)(given.candidate, place)).chain.findings[0]
    assert first.layer == layer_at(given.candidate, place)
    assert first.cause == "its zero point is 8, where those of all others are 0 or in the middle"


@pytest.mark.parametrize("fault", ["zero point of both halves", "scale x 4", "scale / 4"])
def test_what_the_trained_student_has_is_asked_for_exactly(fault: str) -> None:
    given = small("linear_residual", "onnxruntime-u8")
    for place in quantizers(given.candidate):
        broken = ACTIVATIONS[fault](given.candidate, place)
        first = ask(given, broken, student_graph=given.candidate).chain.findings[0]
        assert first.layer == layer_at(given.candidate, place)
        assert "that of the trained student" in first.cause


def test_a_scale_that_is_barely_off_is_seen_beside_the_student_alone() -> None:
    given = small("residual", "onnxruntime-u8")
    place = quantizers(given.candidate)[2]
    broken = scaled(1.03)(given.candidate, place)
    assert ask(given, broken).chain.findings == ()
    first = ask(given, broken, student_graph=given.candidate).chain.findings[0]
    assert first.layer == layer_at(given.candidate, place)
    assert first.cause.startswith("its scale is 1.03 times that of the trained student (")


def test_scales_that_the_student_was_trained_to_are_no_fault_but_told() -> None:
    given = small("residual", "tensorrt-s8")
    place = quantizers(given.candidate)[1]
    clipped = scaled(0.2)(given.candidate, place)
    chain = ask(given, clipped, student_graph=clipped).chain
    assert chain.findings == ()
    assert chain.notes[0].startswith(f"{layer_at(given.candidate, place)}: its quantizer cuts off ")
    assert chain.notes[0].endswith(" % of its values, as the student's does")


def test_scales_are_not_judged_by_examples_that_are_no_data() -> None:
    given = small("residual", "onnxruntime-u8")
    broken = scaled(4)(given.candidate, quantizers(given.candidate)[2])
    assert ask(given, broken, representative=False).chain.findings == ()
    lost = WEIGHTS["bias lost"](given.candidate, weights(given.candidate)[1])
    found = ask(given, lost, representative=False).chain.findings
    assert [finding.layer for finding in found] == [layer_at(given.candidate, weights(given.candidate)[1])]


@pytest.mark.parametrize("shared", [True, False])
def test_one_scale_for_the_inputs_of_a_concatenation_is_explained(shared: bool) -> None:
    """A branch with small values has the scale of its neighbor: on purpose, where it really is the same."""
    given = small("concat", "onnxruntime-u8")
    made = producers(given.candidate)
    joined = next(node for node in given.candidate.graph.node if node.op_type == "Concat")
    codes = [made[name].input[0] for name in joined.input]
    quiet, reference = copied(given.candidate), copied(given.reference)
    conv = layer_at(quiet, codes[0]).removeprefix("/")
    for model in (quiet, reference):
        _shrink(model, conv, 8)
    neighbor = value_of(quiet, halves(quiet, codes[1])[0].input[1])
    scale = constant(quiet, neighbor * np.float32(1 if shared else 1.07))
    for node in halves(quiet, codes[0]):
        node.input[1] = scale
    found = ask(given, quiet, reference=reference).chain.findings
    assert [finding.layer for finding in found] == ([] if shared else [f"/{conv}"])


def _shrink(model: onnx.ModelProto, conv: str, factor: float) -> None:
    """Divide what a convolution yields, by its weight (or its weight's scale) and its bias."""
    node = producers(model)[conv]
    weight = producers(model).get(node.input[1])
    holder, index = (node, 1) if weight is None else (weight, 1)
    for one, place in ((holder, index), (node, 2)):
        one.input[place] = constant(model, value_of(model, one.input[place]) / np.float32(factor))


def test_the_figures_of_a_layer_by_their_formulas() -> None:
    given = small("conv", "onnxruntime-u8")
    answer = ask(given)
    row, one = answer.chain.layers[-1], answer.found.layers[-1]
    scale = one.grid.scale
    # Rounding to steps of this scale has a mean square of scale^2 / 12, and a mean magnitude of scale / 4.
    assert row.mean_steps == pytest.approx(0.25, abs=0.02)
    assert 0.5 < row.max_steps < 1.0  # half a step, and what rounding the weights did
    noise = np.sqrt(one.local.error / one.local.count) / scale
    assert noise == pytest.approx(np.sqrt(1 / 12), rel=0.1)
    assert row.local_sqnr_db == pytest.approx(10 * np.log10(one.local.power / one.local.error))
    assert row.expected_sqnr_db == pytest.approx(row.local_sqnr_db, abs=1.0)
    assert row.cosine == pytest.approx(1, abs=1e-3)
