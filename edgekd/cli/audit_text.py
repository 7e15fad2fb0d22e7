"""An audit as text: headline, every operator, every cause with what to change, where the time goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgekd.cli import screen
from edgekd.documents.audit import Audit, AuditedOperator, Finding, Speed
from edgekd.documents.headline import headline, verb
from edgekd.units import format_ms, format_percent

_NAMED = 4
"""Most operators that are named for one cause; JSON has them all."""


def show_audit(found: Audit) -> None:
    """Print an audit."""
    screen.show(headline(found))
    if found.speed is not None:
        screen.show(speed_line(found.speed))
    for problem in found.problems:
        screen.show(problem)
    screen.show()
    _show_operators(found)
    _show_causes(found)
    _show_findings(found)
    _show_costs(found)
    for line in found.not_measured:
        screen.show(f"not measured: {line}")
    for line in found.notes:
        screen.show(f"note: {line}")
    share = f"{found.int8_ops} of {found.weighted_ops} weighted operators {verb(found, 2)} in int8"
    screen.show(f"{share} ({found.runtime} {found.runtime_version}, {found.machine})")


def speed_line(speed: Speed) -> str:
    """The ratio with its interval, and what it was made from."""
    low, high = speed.interval.lower, speed.interval.upper
    interval = f"{format_percent(speed.interval.confidence, 0)} interval {low:.2f} to {high:.2f}"
    medians = f"p50 {format_ms(speed.latency_ms)} and {format_ms(speed.float_latency_ms)}"
    count = f"{speed.samples} samples in {speed.processes} processes"
    return f"{speed.ratio:.2f} times the latency of the same graph in float ({interval}; {medians}; {count})"


def _show_operators(found: Audit) -> None:
    if not found.operators:
        return
    columns = ["operator", "type", "runs as", "in"]
    timed = any(one.share is not None for one in found.operators)
    columns += ["time", "share", "in float"] if timed else []
    rows = [_row(one, timed=timed) for one in found.operators]
    screen.show_table(columns, rows, right=("time", "share", "in float"))
    screen.show()


def _row(one: AuditedOperator, *, timed: bool) -> list[str]:
    row = [one.name, one.op_type, one.runs_as, "int8" if one.int8 else "float"]
    if timed:
        row += [_us(one.time_us), _percent(one.share), _us(one.float_time_us)]
    return row


def _show_causes(found: Audit) -> None:
    """Every cause with the operators that it holds for, the most costly first."""
    groups: dict[tuple[str, str], list[AuditedOperator]] = {}
    for one in found.operators:
        if one.cause is not None:
            groups.setdefault((one.cause_id or "", one.cause), []).append(one)
    for (cause_id, cause), members in sorted(
        groups.items(), key=lambda group: _weight(group[1]), reverse=True
    ):
        shares = [one.share for one in members]
        screen.show(_title(cause_id, len(members), "operator", shares))
        screen.show(f"  {cause}")
        screen.show(f"  {_names([one.name for one in members])}")
        if members[0].advice:
            screen.show(f"  try: {members[0].advice}")
    if groups:
        screen.show()


def _weight(members: list[AuditedOperator]) -> tuple[float, int]:
    return sum(one.share or 0.0 for one in members), len(members)


def _show_findings(found: Audit) -> None:
    """What else was found, those of one cause together."""
    groups: dict[str, list[Finding]] = {}
    for one in found.findings:
        groups.setdefault(one.cause_id, []).append(one)
    for cause_id, members in groups.items():
        title = _title(cause_id, len(members), "time", [one.share for one in members])
        screen.show(f"{members[0].level}: {title}")
        for one in members[:_NAMED]:
            screen.show(f"  {one.message}")
        if len(members) > _NAMED:
            screen.show(f"  and {len(members) - _NAMED} more like these")
        for advice in dict.fromkeys(one.advice for one in members if one.advice):
            screen.show(f"  try: {advice}")
    if groups:
        screen.show()


def _show_costs(found: Audit) -> None:
    if found.profile is None:
        return
    screen.show(f"where the time goes ({found.profile.runs} profiled runs; kernels {_kernels(found)}):")
    rows = [(_percent(cost.share), str(cost.count), cost.title) for cost in found.costs]
    screen.show_table(("share", "number", "of"), rows, right=("share", "number"))
    screen.show()


def _kernels(found: Audit) -> str:
    assert found.profile is not None
    text = f"{format_ms(found.profile.kernels_us / 1000)} a run"
    if found.profile.float_kernels_us is None:
        return text
    return f"{text}, in float {format_ms(found.profile.float_kernels_us / 1000)}"


def _title(cause_id: str, number: int, noun: str, shares: Iterable[float | None]) -> str:
    """`relu-zero-point: 10 operators, 55.4 % of the time`."""
    known = [share for share in shares if share is not None]
    cost = f", {format_percent(sum(known), 1)} of the time" if known else ""
    return f"{cause_id}: {number} {noun if number == 1 else f'{noun}s'}{cost}"


def _names(names: list[str]) -> str:
    return ", ".join(_shortened(names))


def _shortened(names: list[str]) -> Iterator[str]:
    yield from names[:_NAMED]
    if len(names) > _NAMED:
        yield f"and {len(names) - _NAMED} more"


def _us(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} µs"


def _percent(share: float | None) -> str:
    return "" if share is None else format_percent(share, 1)
