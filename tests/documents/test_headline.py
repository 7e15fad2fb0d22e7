from __future__ import annotations

from typing import Any

import pytest

from edgekd.documents.audit import Audit, AuditedOperator, Finding, Speed
from edgekd.documents.common import Interval
from edgekd.documents.headline import headline, speed_word


def operator(op_type: str = "Conv", cause_id: str | None = None) -> AuditedOperator:
    return AuditedOperator(
        name="x",
        op_type=op_type,
        int8=cause_id is None,
        runs_as="QLinearConv",
        cause=cause_id,
        cause_id=cause_id,
    )


def audit(*operators: AuditedOperator, **changes: Any) -> Audit:
    fields = {
        "graph": "model.onnx",
        "graph_sha256": "0" * 64,
        "runtime": "onnxruntime",
        "runtime_version": "1",
        "machine": "x86_64",
        "operators": operators,
        "optimized_operators": {},
    }
    return Audit.model_validate({**fields, **changes})


def speed(lower: float, upper: float) -> Speed:
    return Speed(
        ratio=(lower + upper) / 2,
        interval=Interval(lower=lower, upper=upper, confidence=0.95),
        latency_ms=1,
        float_latency_ms=1,
        processes=3,
        samples=100,
    )


RELU = "the Relu that follows is quantized to codes that do not start at zero"
SIGNED = "int8 codes that cannot be moved to uint8 have no kernel on this processor"


def test_slower_than_fp32_with_the_causes_by_their_number() -> None:
    floats = [operator(cause_id="signed-codes")] * 2 + [operator(cause_id="relu-zero-point")] * 10
    found = audit(*floats, *[operator()] * 9, operator("Gemm", "gemm-bias"), speed=speed(1.9, 2.1))
    assert headline(found) == (
        f"slower than fp32: 12 of 21 convolutions run in float because {RELU} (10) and {SIGNED} (2); "
        "1 of 1 matrix product runs in float because the output is float and the bias is not quantized"
    )


def test_all_in_int8() -> None:
    found = audit(*[operator()] * 21, operator("MatMul"), speed=speed(0.4, 0.5))
    assert headline(found) == (
        "faster than fp32: 21 of 21 convolutions and 1 of 1 matrix product run in int8"
    )


def test_all_in_int8_and_yet_slower_names_what_takes_the_time() -> None:
    findings = [
        Finding(cause_id="cast", level="note", operators=(), message="", share=0.2),
        Finding(cause_id="pad-in-float", level="note", operators=(), message="", share=0.3),
        Finding(cause_id="cast", level="note", operators=(), message="", share=0.2),
    ]
    found = audit(operator(), speed=speed(1.1, 1.2), findings=findings)
    assert headline(found) == (
        "slower than fp32: 1 of 1 convolution runs in int8, "
        "but tensors are cast from type to type (40 % of the time)"
    )
    assert headline(audit(operator(), speed=speed(0.5, 0.6), findings=findings)) == (
        "faster than fp32: 1 of 1 convolution runs in int8"
    )


def test_one_cause_for_all_kinds_is_told_once() -> None:
    kinds = [operator("Conv", "graph-not-quantized"), operator("Gemm", "graph-not-quantized")]
    assert headline(audit(*kinds)) == (
        "1 of 1 convolution and 1 of 1 matrix product run in float because the graph is not quantized"
    )


def test_more_causes_than_a_line_holds() -> None:
    causes = ["bias-type", "bias-scale", "float-output", "gemm-factor", "gemm-bias"]
    found = headline(audit(*(operator(cause_id=cause) for cause in causes)))
    assert found.count(" (1)") == 3
    assert found.endswith(", 2 for other causes")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"loaded": False}, "ONNX Runtime did not load the graph, so that nothing was seen to run"),
        (
            {"loaded": False, "runtime": "tensorrt"},
            "TensorRT did not load the graph, so that nothing was seen to run",
        ),
        ({}, "there are no weighted operators in the graph"),
    ],
)
def test_graphs_of_which_there_is_little_to_say(changes: dict[str, Any], line: str) -> None:
    assert headline(audit(**changes)) == line


def test_what_was_removed_does_not_run_in_float() -> None:
    assert headline(audit(operator(), operator(cause_id="removed"))) == (
        "1 of 1 convolution runs in int8; 1 of 2 weighted operators removed by the runtime"
    )


def test_a_parser_only_parses() -> None:
    assert headline(audit(operator(), operator(), runtime="tensorrt")) == (
        "2 of 2 convolutions are parsed in int8"
    )
    assert headline(audit(operator(cause_id="zero-point"), runtime="tensorrt")) == (
        "1 of 1 convolution is parsed in float because a zero point is not 0"
    )


def test_other_operators_with_weights_go_by_their_type() -> None:
    assert headline(audit(operator("LSTM", "no-int8-kernel"))) == (
        "1 of 1 LSTM runs in float because the runtime has no int8 kernel for this operator"
    )


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (None, ""),
        (speed(1.01, 1.2), "slower than fp32"),
        (speed(0.8, 0.99), "faster than fp32"),
        (speed(0.9, 1.1), "neither faster nor slower than fp32, as far as this measurement tells"),
        (speed(1.0, 1.1), "neither faster nor slower than fp32, as far as this measurement tells"),
    ],
)
def test_the_interval_decides(found: Speed | None, word: str) -> None:
    assert speed_word(found) == word
