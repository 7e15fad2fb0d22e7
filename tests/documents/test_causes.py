from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekd.documents.causes import CAUSES, Cause
from tests.conversion import audit_cases

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *(ROOT / "edgekd" / "conversion").rglob("*.py"),
    ROOT / "edgekd" / "documents" / "sarif.py",
]


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_a_cause_is_a_rule_that_a_person_can_follow(cause: Cause) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cause.id)
    assert cause.title
    assert cause.title[0].islower() or cause.title.startswith(("TensorRT", "BatchNormalization"))
    assert not cause.title.endswith(".")
    assert cause.advice or cause.id == "not-fused"
    assert cause.level in ("error", "warning", "note")
    assert set(cause.runtimes) <= {"onnxruntime", "tensorrt"}
    assert cause.runtimes
    # Used after "12 convolutions run in float because": no word that stands for a single operator.
    assert not re.match(r"its? ", cause.title) or cause.id in ("depthwise", "grouped", "fp8-codes")


def test_ids_are_named_once() -> None:
    assert len(CAUSES) == len({cause.title for cause in CAUSES.values()})
    assert all(cause_id == cause.id for cause_id, cause in CAUSES.items())


@pytest.mark.parametrize("cause_id", CAUSES)
def test_every_cause_is_given_somewhere(cause_id: str) -> None:
    assert any(f'"{cause_id}"' in path.read_text() for path in SOURCES)


def test_every_id_that_a_graph_is_made_for_is_in_the_table() -> None:
    assert {cause_id for _, cause_id, _ in audit_cases.CAUSES.values()} <= set(CAUSES)
