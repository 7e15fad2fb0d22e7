"""Two processes on a CPU: the same weights in both, the result of one process, one writer, one error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.training.two_processes", str(tmp_path_factory.mktemp("two"))]
    root = Path(__file__).parents[2]
    program = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert program.returncode == 0, program.stderr
    found: dict[str, Any] = json.loads(program.stdout)
    return found


def test_both_processes_hold_the_same_weights(outcome: dict[str, Any]) -> None:
    witnesses = outcome["witnesses"]
    assert len(witnesses) == 6
    for epoch in (1, 2, 3):
        assert witnesses[f"epoch{epoch}-rank0"] == witnesses[f"epoch{epoch}-rank1"]
    assert len(set(witnesses.values())) == 3


def test_the_result_is_that_of_one_process(outcome: dict[str, Any]) -> None:
    alone, together = outcome["losses"]
    assert together == pytest.approx(alone, rel=1e-4)
    assert 0 < outcome["difference"] < 1e-4  # summed in another order, so not the same bits


def test_the_heads_are_those_of_one_process(outcome: dict[str, Any]) -> None:
    assert sorted(outcome["heads"]) == ["terms.sla.head.0.bias", "terms.sla.head.0.weight"]
    assert max(outcome["heads"].values()) < 1e-4


def test_one_process_writes_and_reports(outcome: dict[str, Any]) -> None:
    assert outcome["checkpoints"] == 2
    assert outcome["starts"] == [[3, 0]]
    assert outcome["epochs"] == [1, 2, 3]
    assert outcome["steps"] == 9


def test_an_error_in_the_processes_is_the_callers(outcome: dict[str, Any]) -> None:
    assert outcome["error"].startswith("the loss became nan at step ")
