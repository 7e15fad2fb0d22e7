"""Graphs of another tool: onnxruntime's quantize_static in its forms, healthy and broken."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.remove_quantizers import quantized_tensors
from edgekd.pipeline.quantize.static import Examples
from tests.conversion.divergence.planted import layer_of, scaled
from tests.conversion.divergence.small import Small, ask, small, value_of

U8, S8 = QuantType.QUInt8, QuantType.QInt8
NAMES = ("residual", "depthwise", "concat", "gate")
FORMS = {
    "u8s8": {"activation_type": U8, "weight_type": S8, "per_channel": True},
    "s8s8 per tensor": {"activation_type": S8, "weight_type": S8},
    "u8u8 per tensor": {"activation_type": U8, "weight_type": U8},
    "percentile": {
        "activation_type": U8,
        "weight_type": S8,
        "calibrate_method": CalibrationMethod.Percentile,
    },
    "operators": {"activation_type": U8, "weight_type": S8, "quant_format": QuantFormat.QOperator},
}


@pytest.fixture
def quantized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A small network as quantize_static makes it."""
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)

    def make(name: str, form: str) -> Small:
        given = small(name, "tensorrt-s8")
        onnx.save(given.reference, tmp_path / "float.onnx")
        options = {"quant_format": QuantFormat.QDQ, **FORMS[form]}
        random = np.random.default_rng(4)
        x = np.concatenate([given.x, random.normal(size=(64, *given.x.shape[1:])).astype(np.float32)])
        quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Examples("input", x), **options)
        return Small(given.reference, read_graph(tmp_path / "int8.onnx"), given.x, "candidate")

    return make


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", list(FORMS))
def test_a_healthy_graph_raises_no_alarm(quantized, name: str, form: str) -> None:
    chain = ask(quantized(name, form)).chain
    assert chain.findings == ()
    assert chain.not_compared == ()
    if form == "operators":
        assert "are looked into as float ones between quantizers" in chain.notes[0]


@pytest.mark.parametrize("factor", [4, 0.25])
def test_a_wrong_scale_is_found(quantized, factor: float) -> None:
    given = quantized("residual", "u8s8")
    places = [
        one.quantizer.output[0] for one in quantized_tensors(given.candidate) if one.kind == "activation"
    ]
    assert len(places) >= 6
    for place in places:
        node = next(one for one in given.candidate.graph.node if one.output[0] == place)
        assert value_of(given.candidate, node.input[1]).size == 1
        findings = ask(given, scaled(factor)(given.candidate, place)).chain.findings
        assert findings[0].layer == layer_of(given.candidate, node.input[0])


def test_a_student_that_was_trained_on_is_compared_with_its_own_float_form() -> None:
    given = small("residual", "onnxruntime-u8")
    random = np.random.default_rng(5)
    elsewhere = onnx.ModelProto()
    elsewhere.CopyFrom(given.reference)
    for tensor in elsewhere.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.ndim > 1:
            moved = value + 0.3 * value.std() * random.normal(size=value.shape).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    chain = ask(given, reference=elsewhere).chain
    assert chain.findings == ()
    assert chain.notes[0].startswith("its weights are not the reference's (median cosine 0.9")
    assert chain.links[0].sqnr_db < 25
    broken = scaled(4)(given.candidate, next(one for one in _places(given.candidate)))
    assert ask(given, broken, reference=elsewhere).chain.findings[0].layer == "input 'input'"


def _places(model: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
