"""The order of samples over the phases of a setting."""

from __future__ import annotations

import pytest

from edgekd.documents.run_log import RunLog
from edgekd.pipeline.bench.course import courses_of
from tests.pipeline.bench.fakes import FACTS


def log(mode, *graphs):
    full = [{"name": "g", "load_ns": 1, "first_ns": 1, **graph} for graph in graphs]
    data = {"mode": mode, "runtime": "null", "facts": FACTS, "graphs": full, "schema": 1}
    return RunLog.parse(data, where="test")


def test_processes_follow_one_another():
    (found,) = courses_of(
        "g",
        [
            log("latency", {"latency_ns": [1_000_000, 2_000_000]}),
            log("cold", {}),
            log("latency", {"latency_ns": [3_000_000]}),
        ],
    )
    assert (found.label, found.phase) == ("g", "")
    assert found.taken_ms.tolist() == [1, 2, 3]
    assert found.at_s.tolist() == pytest.approx([0, 0.001, 0.003])


def test_each_long_phase_is_a_course_of_its_own():
    long = {"latency_ns": [1_000_000, 2_000_000], "at_ns": [0, 5_000_000_000]}
    first, second = courses_of("g", [log("paced", long), log("sustained", long)])
    assert [(one.label, one.phase) for one in (first, second)] == [
        ("g, paced", "paced"),
        ("g, sustained", "sustained"),
    ]
    assert first.at_s.tolist() == [0, 5]
    assert second.taken_ms.tolist() == [1, 2]


def test_graphs_that_took_turns_have_no_course():
    assert courses_of("g", [log("latency", {"latency_ns": [1]}, {"latency_ns": [2]})]) == ()
    assert courses_of("g", []) == ()
