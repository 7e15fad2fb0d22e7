"""The first line of an audit: faster or slower than fp32, how much runs in int8, and why not the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from edgekd.documents.audit import Audit, AuditedOperator, Speed
from edgekd.documents.causes import CAUSES
from edgekd.units import format_percent

_NAMED = 3
"""Most causes that the line names for one kind of operator."""
_KINDS = (("convolution", "Conv"), ("matrix product", "MatMul"), ("matrix product", "Gemm"))


def headline(audit: Audit) -> str:
    """The audit in one line."""
    if not audit.loaded:
        return f"{_runtime(audit)} did not load the graph, so that nothing was seen to run"
    if not audit.operators:
        return "there are no weighted operators in the graph"
    speed = speed_word(audit.speed)
    counts = "; ".join(_counts(audit)) + _but(audit)
    return f"{speed}: {counts}" if speed else counts


def _but(audit: Audit) -> str:
    """What takes most of the time of a graph that is all int8 and yet not faster than in float."""
    all_int8 = all(one.int8 for one in audit.operators if one.runs)
    if audit.speed is None or audit.speed.interval.upper < 1 or not all_int8:
        return ""
    shares: dict[str, float] = {}
    for one in audit.findings:
        shares[one.cause_id] = shares.get(one.cause_id, 0.0) + (one.share or 0.0)
    most = max(shares, key=lambda cause_id: shares[cause_id], default=None)
    if most is None or not shares[most]:
        return ""
    return f", but {CAUSES[most].title} ({format_percent(shares[most], 0)} of the time)"


def speed_word(speed: Speed | None) -> str:
    """Faster or slower than fp32, by the interval of the ratio; empty where it was not measured."""
    if speed is None:
        return ""
    if speed.interval.lower > 1:
        return "slower than fp32"
    if speed.interval.upper < 1:
        return "faster than fp32"
    return "neither faster nor slower than fp32, as far as this measurement tells"


def kind_of(operator: AuditedOperator) -> str:
    """Convolution, matrix product, or the operator's own type."""
    return next((kind for kind, mark in _KINDS if mark in operator.op_type), operator.op_type)


def _counts(audit: Audit) -> Iterator[str]:
    running = [one for one in audit.operators if one.runs]
    kinds = dict.fromkeys(map(kind_of, running))
    groups = {kind: [one for one in running if kind_of(one) == kind] for kind in kinds}
    if running and all(one.int8 for one in running):
        parts = [f"{len(group)} of {_many(len(group), kind)}" for kind, group in groups.items()]
        yield f"{' and '.join(parts)} {verb(audit, len(running))} in int8"
    reasons: dict[str, list[tuple[str, int]]] = {}
    for kind, group in groups.items():
        floats = [one for one in group if not one.int8]
        if floats:
            count = f"{len(floats)} of {_many(len(group), kind)}"
            reasons.setdefault(_why(floats), []).append((count, len(floats)))
    removed = len(audit.operators) - len(running)
    if removed:
        yield f"{removed} of {_many(len(audit.operators), 'weighted operator')} removed by the runtime"
    for why, kinds_of in reasons.items():
        counts = " and ".join(text for text, _ in kinds_of)
        yield f"{counts} {verb(audit, sum(number for _, number in kinds_of))} in float because {why}"


def verb(audit: Audit, number: int) -> str:
    """What operators do in int8: run, where that was seen; where only a parser was asked, be parsed."""
    if audit.runtime == "onnxruntime":
        return "runs" if number == 1 else "run"
    return "is parsed" if number == 1 else "are parsed"


def _why(floats: list[AuditedOperator]) -> str:
    counts = Counter(one.cause_id or "" for one in floats).most_common()
    named = [(CAUSES[cause].title if cause in CAUSES else "a cause has no name", n) for cause, n in counts]
    if len(named) == 1:
        return named[0][0]
    parts = [f"{title} ({number})" for title, number in named[:_NAMED]]
    rest = sum(number for _, number in named[_NAMED:])
    return " and ".join(parts) + (f", {rest} for other causes" if rest else "")


def _many(number: int, kind: str) -> str:
    return f"{number} {kind}" if number == 1 or kind[0].isupper() else f"{number} {kind}s"


def _runtime(audit: Audit) -> str:
    return {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}.get(audit.runtime, audit.runtime)
