"""SARIF 2.1.0, by the parts of its schema that are used here, and by what those ask who take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.documents.audit import Audit, AuditedOperator, Finding
from edgekd.documents.causes import CAUSES
from edgekd.documents.sarif import to_sarif

KEYS = {
    "log": {"$schema", "version", "runs"},
    "run": {"tool", "invocations", "artifacts", "results", "columnKind", "properties"},
    "driver": {"name", "version", "rules"},
    "rule": {"id", "shortDescription", "help", "defaultConfiguration"},
    "result": {
        *("ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints", "properties"),
    },
}


def audit(**changes: Any) -> Audit:
    operators = (
        AuditedOperator(name="a", op_type="Conv", int8=True, runs_as="QLinearConv"),
        AuditedOperator(
            name="b",
            op_type="Conv",
            int8=False,
            runs_as="FusedConv",
            cause="the Relu after it",
            advice="use the dialect",
            cause_id="relu-zero-point",
            share=0.25,
        ),
        AuditedOperator(
            name="c", op_type="Gemm", int8=False, runs_as="nothing", cause="it is gone", cause_id="removed"
        ),
    )
    findings = (
        Finding(cause_id="pad-in-float", level="warning", operators=("p", "q"), message="1 Pad", share=0.5),
        Finding(
            cause_id="layout-conversion", level="note", operators=(), message="6 Transpose", advice="fewer"
        ),
    )
    fields = {
        "graph": "model.onnx",
        "graph_sha256": "0" * 64,
        "runtime": "onnxruntime",
        "runtime_version": "1.31.1",
        "machine": "x86_64",
        "operators": operators,
        "optimized_operators": {},
        "findings": findings,
    }
    return Audit.model_validate({**fields, **changes})


def log(found: Audit, graph: str = "graphs/model.onnx", root: str = "/repo") -> dict[str, Any]:
    return to_sarif(found, Path(root) / graph, "1.2.3", root=Path(root))


def test_the_form_is_that_of_the_schema() -> None:
    found = log(audit())
    assert set(found) == KEYS["log"]
    assert found["version"] == "2.1.0"
    assert found["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = found["runs"]
    assert set(run) == KEYS["run"]
    assert run["invocations"] == [{"executionSuccessful": True}]
    driver = run["tool"]["driver"]
    assert set(driver) == KEYS["driver"]
    assert (driver["name"], driver["version"]) == ("edgekd", "1.2.3")
    assert all(set(rule) == KEYS["rule"] for rule in driver["rules"])
    assert all(set(result) <= KEYS["result"] for result in run["results"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_every_rule_is_a_cause_and_every_result_finds_its_rule() -> None:
    (run,) = log(audit())["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [
        "relu-zero-point",
        "removed",
        "pad-in-float",
        "layout-conversion",
    ]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert rules[0] == {
        "id": "relu-zero-point",
        "shortDescription": {"text": CAUSES["relu-zero-point"].title},
        "help": {"text": CAUSES["relu-zero-point"].advice},
        "defaultConfiguration": {"level": "warning"},
    }


def test_an_operator_is_a_result_at_its_node() -> None:
    (run,) = log(audit())["runs"]
    result = run["results"][0]
    assert result["level"] == "warning"
    assert result["message"]["text"] == (
        "b (Conv) does not run in int8: the Relu after it. Try: use the dialect"
    )
    assert result["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "graphs/model.onnx", "index": 0},
                "region": {"startLine": 1},
            },
            "logicalLocations": [{"name": "b", "kind": "operator"}],
        }
    ]
    assert result["properties"] == {"runsAs": "FusedConv", "share": 0.25}
    assert run["artifacts"] == [{"location": {"uri": "graphs/model.onnx"}, "hashes": {"sha-256": "0" * 64}}]


def test_a_finding_is_a_result_at_its_nodes() -> None:
    (run,) = log(audit())["runs"]
    pad, layout = run["results"][2:]
    assert [place["name"] for place in pad["locations"][0]["logicalLocations"]] == ["p", "q"]
    assert (pad["level"], pad["properties"]) == ("warning", {"share": 0.5})
    assert layout["message"]["text"] == "6 Transpose. Try: fewer"
    assert "logicalLocations" not in layout["locations"][0]
    assert "properties" not in layout


def test_why_a_graph_was_not_loaded_is_an_error() -> None:
    found = audit(loaded=False, problems=("unknown operator a.B",), findings=())
    (run,) = log(found)["runs"]
    result = run["results"][-1]
    assert (result["ruleId"], result["level"]) == ("not-loaded", "error")
    assert result["message"]["text"] == "unknown operator a.B"


def test_nothing_found_is_an_empty_list() -> None:
    operator = AuditedOperator(name="a", op_type="Conv", int8=True, runs_as="QLinearConv")
    (run,) = log(audit(operators=(operator,), findings=()))["runs"]
    assert (run["results"], run["tool"]["driver"]["rules"]) == ([], [])
    assert run["properties"]["headline"] == "1 of 1 convolution runs in int8"


def test_fingerprints_tell_operators_and_causes_apart_and_nothing_else() -> None:
    def marks(found: Audit) -> list[str]:
        return [result["partialFingerprints"]["edgekd/v1"] for result in log(found)["runs"][0]["results"]]

    first = marks(audit())
    assert len(set(first)) == len(first)
    assert first == marks(audit(graph_sha256="1" * 64, runtime_version="2"))


@pytest.mark.parametrize(
    ("graph", "uri"),
    [
        ("model.onnx", "model.onnx"),
        ("a b/c#d%.onnx", "a%20b/c%23d%25.onnx"),
        ("../elsewhere/model.onnx", "file:///elsewhere/model.onnx"),
    ],
)
def test_a_place_is_a_uri(graph: str, uri: str) -> None:
    (run,) = log(audit(), graph)["runs"]
    assert run["artifacts"][0]["location"]["uri"] == uri


def test_many_operators_are_cut_at_what_readers_take() -> None:
    names = tuple(f"n{index}" for index in range(300))
    finding = Finding(cause_id="cast", level="note", operators=names, message="many")
    (run,) = log(audit(findings=(finding,)))["runs"]
    assert len(run["results"][-1]["locations"][0]["logicalLocations"]) == 100
