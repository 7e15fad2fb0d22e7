"""An audit as SARIF 2.1.0, the form in which CI systems take findings of a static analysis.

Rules are causes; a result is an operator that does not run in int8, or a finding. An ONNX file has no lines:
the place is the file, and in it the operator as a logical location. Some readers want a line nevertheless,
and so each place names line 1. OASIS, Static Analysis Results Interchange Format 2.1.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgekd.documents.audit import Audit
from edgekd.documents.causes import CAUSES, Cause
from edgekd.documents.headline import headline

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MOST_OPERATORS = 100
"""Most places of one result, by the limits of those who take SARIF."""
Json = dict[str, Any]


def to_sarif(audit: Audit, graph: Path, version: str, *, root: Path) -> Json:
    """A SARIF log with one run.

    Args:
        audit: the audit.
        graph: the file that was audited.
        version: edgekd's.
        root: the folder that the file is named from, where it lies in it; CI takes paths from the repository.
    """
    uri = _uri(graph, root)
    results = [*_operator_results(audit, uri), *_finding_results(audit, uri), *_problem_results(audit, uri)]
    rules = list(dict.fromkeys(result["ruleId"] for result in results))
    for result in results:
        result["ruleIndex"] = rules.index(result["ruleId"])
    driver = {"name": "edgekd", "version": version, "rules": [_rule(CAUSES[rule]) for rule in rules]}
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True}],
        "artifacts": [{"location": {"uri": uri}, "hashes": {"sha-256": audit.graph_sha256}}],
        "results": results,
        "columnKind": "unicodeCodePoints",
        "properties": {
            "headline": headline(audit),
            "runtime": f"{audit.runtime} {audit.runtime_version}",
            "machine": audit.machine,
            "int8Operators": audit.int8_ops,
            "weightedOperators": audit.weighted_ops,
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(cause: Cause) -> Json:
    advice = cause.advice or "nothing is known that helps"
    return {
        "id": cause.id,
        "shortDescription": {"text": cause.title},
        "help": {"text": advice},
        "defaultConfiguration": {"level": cause.level},
    }


def _operator_results(audit: Audit, uri: str) -> Iterator[Json]:
    for one in audit.operators:
        if one.int8 or one.cause_id is None:
            continue
        text = f"{one.name} ({one.op_type}) does not run in int8: {one.cause}"
        properties = {"runsAs": one.runs_as, **({} if one.share is None else {"share": one.share})}
        level = CAUSES[one.cause_id].level
        yield _result(one.cause_id, level, _with_advice(text, one.advice), (one.name,), uri, properties)


def _finding_results(audit: Audit, uri: str) -> Iterator[Json]:
    for one in audit.findings:
        properties = {} if one.share is None else {"share": one.share}
        text = _with_advice(one.message, one.advice)
        yield _result(one.cause_id, one.level, text, one.operators, uri, properties)


def _problem_results(audit: Audit, uri: str) -> Iterator[Json]:
    for problem in audit.problems:
        yield _result("not-loaded", "error", problem, (), uri, {})


def _result(rule: str, level: str, text: str, operators: tuple[str, ...], uri: str, properties: Json) -> Json:
    logical = [{"name": name, "kind": "operator"} for name in operators[:_MOST_OPERATORS]]
    place: Json = {
        "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}, "region": {"startLine": 1}}
    }
    if logical:
        place["logicalLocations"] = logical
    mark = hashlib.sha256("\0".join([rule, *operators]).encode()).hexdigest()
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [place],
        # The same operator with the same cause is the same finding, whatever else changes in the graph.
        "partialFingerprints": {"edgekd/v1": mark},
        **({"properties": properties} if properties else {}),
    }


def _with_advice(text: str, advice: str | None) -> str:
    return f"{text}. Try: {advice}" if advice else text


def _uri(graph: Path, root: Path) -> str:
    """The file's name from the root, with `/` and percent signs as URIs have them, or its whole place."""
    path, base = graph.resolve(), root.resolve()
    if path.is_relative_to(base):
        return quote(path.relative_to(base).as_posix())
    return path.as_uri()
