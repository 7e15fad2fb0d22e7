"""Where the time goes: what the runtime's profiler said, put on operators, causes and islands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from edgekd.conversion.audit import Examined
from edgekd.conversion.auditing.causes.explanation import because
from edgekd.conversion.auditing.causes.lookup import is_depthwise
from edgekd.conversion.auditing.findings import finding
from edgekd.conversion.auditing.optimized import Operator, Optimized, Running, numbered, weighted_operators
from edgekd.conversion.auditing.work import QUANTIZERS, Work
from edgekd.conversion.graph_view import attribute
from edgekd.documents.audit import Audit, AuditedOperator, Bucket, Cost, Finding, Profile
from edgekd.documents.causes import CAUSES
from edgekd.runtimes.profiling import KernelTimes

_SLOWER = 1.1
"""Least factor by which an int8 kernel counts as slower than the float one: profiles vary by some percent."""
_ROUNDING_US = 2.0
"""Least difference that counts: the profiler rounds to microseconds."""
_MATTERS = 0.01
"""Least share of the time at which a slower kernel is told."""
_TITLES: Mapping[Bucket, str] = {
    "int8": "other operators in int8",
    "float": "weighted operators in float and their quantizers",
    "island": "operators without weights in float and their quantizers",
    "quantizers": "quantizers",
    "layout": "moves between layouts",
    "other": "everything else",
}


@dataclass(frozen=True)
class FloatTwin:
    """The graph without quantizers, and its weighted operators by the number of their original."""

    model: onnx.ModelProto
    operators: Mapping[int, Operator]

    @classmethod
    def of(cls, float_model: onnx.ModelProto) -> FloatTwin:
        """From the float form of a numbered graph, whose nodes keep their numbers for names."""
        found = {
            int(operator.node.name[1:-1]): operator
            for operator in weighted_operators(float_model)
            if operator.node.name.startswith("<") and operator.node.name[1:-1].isdigit()
        }
        return cls(float_model, found)

    def to_profile(self) -> onnx.ModelProto:
        """The graph under names that an optimized graph is read by."""
        return numbered(self.model)


def with_costs(
    examined: Examined, times: KernelTimes, twin: FloatTwin | None, twin_times: KernelTimes | None
) -> Audit:
    """The audit with the profiled time of every operator, cause and island.

    Args:
        examined: the audit, and what runs.
        times: profile of the graph, its nodes numbered.
        twin: the graph without quantizers, if it has one.
        twin_times: its profile, taken in turns with the other.
    """
    node_us = _node_times(examined.optimized, times)
    total = sum(node_us.values())
    if total == 0:
        return examined.audit
    float_us = _twin_times(twin, twin_times) if twin is not None and twin_times is not None else {}
    operators = tuple(_timed(examined, node_us, float_us, total))
    findings = (*_with_share(examined, node_us, total), *_slower(examined, operators))
    profile = Profile(
        runs=times.runs,
        kernels_us=times.total_us,
        float_kernels_us=None if twin_times is None else twin_times.total_us,
    )
    return examined.audit.model_copy(
        update={
            "operators": operators,
            "findings": findings,
            "profile": profile,
            "costs": _costs(examined, node_us, total),
        }
    )


def _node_times(optimized: Optimized, times: KernelTimes) -> dict[int, float]:
    """Microseconds of each node of the optimized graph, by its index; nodes of one name share their time."""
    keys = Counter((one.node.name, one.node.op_type) for one in optimized.nodes)
    found = {}
    for one in optimized.nodes:
        key = one.node.name, one.node.op_type
        us = times.node_us(*key)
        found[one.index] = 0.0 if us is None else us / keys[key]
    return found


def _twin_times(twin: FloatTwin, times: KernelTimes) -> dict[int, float]:
    """Microseconds of each weighted operator in float, by its number in the graph that was given."""
    optimized = Optimized.of(twin.model, threads=1)
    node_us = _node_times(optimized, times)
    running = {number: optimized.runs_as(operator) for number, operator in twin.operators.items()}
    return {number: node_us[one.index] for number, one in running.items() if one is not None}


def _timed(
    examined: Examined, node_us: Mapping[int, float], float_us: Mapping[int, float], total: float
) -> Iterator[AuditedOperator]:
    for operator, audited in zip(examined.operators, examined.audit.operators, strict=True):
        running = examined.optimized.runs_as(operator)
        us = None if running is None else node_us[running.index]
        yield audited.model_copy(
            update={
                "time_us": us,
                "share": None if us is None else us / total,
                "float_time_us": float_us.get(operator.number),
            }
        )


def _slower(examined: Examined, operators: tuple[AuditedOperator, ...]) -> Iterator[Finding]:
    """Operators that run in int8 and take longer so, where no finding says why."""
    explained = {name for one in examined.findings for name in one.finding.operators}
    for operator, audited in zip(examined.operators, operators, strict=True):
        if audited.name in explained:
            continue
        us, float_us = audited.time_us, audited.float_time_us
        if not audited.int8 or us is None or not float_us or (audited.share or 0) < _MATTERS:
            continue
        if us < _SLOWER * float_us or us < float_us + _ROUNDING_US:
            continue
        cause = because(_why_slower(operator))
        text = f"{audited.name}: {cause.text}: {us:.0f} us, in float {float_us:.0f} us"
        yield finding(cause, (audited.name,), text).model_copy(update={"share": audited.share})


def _why_slower(operator: Operator) -> str:
    view, node = operator.view, operator.node
    if "Conv" not in node.op_type:
        return "slower-in-int8"
    if is_depthwise(view, node):
        return "depthwise"
    return "grouped" if attribute(node, "group", 1) > 1 else "slower-in-int8"


def _with_share(examined: Examined, node_us: Mapping[int, float], total: float) -> Iterator[Finding]:
    """The findings of the audit with the share of the time that their nodes take."""
    for one in examined.findings:
        share = sum(node_us[index] for index in one.nodes) / total
        yield one.finding.model_copy(update={"share": share}) if one.nodes else one.finding


def _costs(examined: Examined, node_us: Mapping[int, float], total: float) -> tuple[Cost, ...]:
    """All of the time, divided by what it is spent on, the largest part first."""
    groups: dict[tuple[Bucket, str | None, bool], list[Running]] = {}
    for one in examined.optimized.nodes:
        part = examined.work.parts[one.index]
        key = part.bucket, part.cause_id, part.bucket == "int8" and part.weighted is not None
        groups.setdefault(key, []).append(one)
    found = [_cost(*key, nodes, examined.work, node_us, total) for key, nodes in groups.items()]
    return tuple(sorted((cost for cost in found if cost.share > 0), key=lambda cost: -cost.share))


def _cost(
    bucket: Bucket,
    cause_id: str | None,
    weighted: bool,
    nodes: list[Running],
    work: Work,
    node_us: Mapping[int, float],
    total: float,
) -> Cost:
    share = min(1.0, sum(node_us[one.index] for one in nodes) / total)
    counted_nodes = nodes
    if weighted or bucket == "float":
        counted_nodes = [one for one in nodes if work.parts[one.index].weighted is not None]
    elif bucket == "island":
        counted_nodes = [one for one in nodes if one.node.op_type not in QUANTIZERS]
    title = "weighted operators in int8" if weighted else _TITLES[bucket]
    if cause_id is not None and bucket in ("float", "island"):
        title = f"{title}: {CAUSES[cause_id].title}"
    return Cost(bucket=bucket, cause_id=cause_id, title=title, count=len(counted_nodes), share=share)
