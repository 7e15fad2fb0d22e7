"""What an audit finds besides operators in float: faults and slow kernels in int8, islands, layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgekd.conversion.auditing.causes.explain import faults, remarks
from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.processor import Processor
from edgekd.conversion.auditing.causes.readers import relu_zero_point
from edgekd.conversion.auditing.optimized import Operator, Optimized, Running
from edgekd.conversion.auditing.work import Island, Work
from edgekd.documents.audit import AuditedOperator, Finding
from edgekd.documents.causes import CAUSES, Level

_LISTED = 6
"""Most operators of one island that a message names."""
_FREE_LAYOUT = 2
"""Moves between layouts that every convolutional graph has: one where it begins, one where it ends."""


@dataclass(frozen=True)
class Attributed:
    """A finding, and the nodes of the optimized graph that take its time."""

    finding: Finding
    nodes: tuple[int, ...]


def findings_of(
    operators: tuple[Operator, ...],
    audited: list[AuditedOperator],
    optimized: Optimized,
    work: Work,
    processor: Processor,
) -> Iterator[Attributed]:
    """Every finding of a graph that runs."""
    for operator, one in zip(operators, audited, strict=True):
        running = optimized.runs_as(operator)
        if one.int8 and running is not None:
            for found in _on_operator(operator, one.name, processor):
                yield Attributed(found, (running.index,))
    yield from _on_islands(optimized, work)
    yield from _on_quantizers(optimized, work)
    yield from _on_layout(optimized, work)


def finding(
    cause: Explanation, operators: Iterable[str], message: str, level: Level | None = None
) -> Finding:
    """A finding with the level that its cause has, if not another one is given."""
    return Finding(
        cause_id=cause.cause_id,
        level=level or CAUSES[cause.cause_id].level,
        operators=tuple(operators),
        message=message,
        advice=cause.advice,
    )


def counted(types: Counter[str]) -> str:
    """`3 Add, 2 Relu`."""
    return ", ".join(f"{number} {kind}" for kind, number in types.most_common())


def _on_operator(operator: Operator, name: str, processor: Processor) -> Iterator[Finding]:
    """What is wrong with, or slows, a weighted operator that runs in int8."""
    for fault in faults(operator.view, operator.node):
        text = f"{name} runs in int8 and computes something else, or fails when it runs: {fault.text}"
        yield finding(fault, [name], text, "error")
    for remark in remarks(operator.view, operator.node, processor):
        yield finding(remark, [name], f"{name}: {remark.text}")


def _on_islands(optimized: Optimized, work: Work) -> Iterator[Attributed]:
    for number, island in enumerate(work.islands):
        if island.follows_int8:
            nodes = tuple(index for index, part in work.parts.items() if part.island == number)
            yield Attributed(_island_finding(optimized, island), nodes)


def _on_quantizers(optimized: Optimized, work: Work) -> Iterator[Attributed]:
    left = [one for one in optimized.nodes if work.parts[one.index].cause_id == "quantizers-left"]
    if left:
        names = dict.fromkeys(name for one in left for name in optimized.names_of(one.node))
        text = f"{_types(left)} stand alone: no kernel took them in"
        yield Attributed(finding(because("quantizers-left"), names, text), _indices(left))


def _on_layout(optimized: Optimized, work: Work) -> Iterator[Attributed]:
    moves = [one for one in optimized.nodes if work.parts[one.index].bucket == "layout"]
    inserted = [one for one in moves if not optimized.is_given(one.node)]
    if len(inserted) > _FREE_LAYOUT:
        text = f"tensors are moved between layouts: {_types(inserted)}"
        yield Attributed(finding(because("layout-conversion"), [], text), _indices(inserted))


def _island_finding(optimized: Optimized, island: Island) -> Finding:
    names = list(dict.fromkeys(name for one in island.nodes for name in optimized.names_of(one.node)))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    where = f" ({', '.join(names[:_LISTED])}{more})" if names else ""
    reads = " and ".join(dict.fromkeys(island.reads)) or "constants"
    cause = _island_cause(optimized, island)
    text = f"{_types(island.nodes)} in float{where}, reading {reads}: {cause.text}"
    return finding(cause, names, text)


def _island_cause(optimized: Optimized, island: Island) -> Explanation:
    """The cause of an island; of an addition also why the runtime did not fuse it."""
    for one in island.nodes if island.cause_id == "add-in-float" else ():
        for view, node in optimized.given_for(one.node):
            found = relu_zero_point(view, node)
            if found is not None:
                return because("add-in-float", found.text, found.advice)
    if island.cause_id in ("add-in-float", "concat-in-float") and len(set(island.reads)) > 1:
        return because(island.cause_id, f"it reads {' and '.join(dict.fromkeys(island.reads))} at once")
    return because(island.cause_id)


def _types(nodes: Iterable[Running]) -> str:
    return counted(Counter(one.node.op_type for one in nodes))


def _indices(nodes: list[Running]) -> tuple[int, ...]:
    return tuple(one.index for one in nodes)
