"""A divergence for people: the headline, the table of layers, and the page that is kept in the run folder."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.documents.divergence import Bisection, Chain, Divergence, LayerRow, Link
from edgekd.pipeline.render import table
from edgekd.units import format_percent

LINK_HEADINGS = ("from", "to", "SQNR", "top-1 agreement", "mean difference", "")
HOW = (
    "SQNR is the power of what is compared with over that of the difference. The first columns are what "
    "happened up to a layer, *here* is what its own operators and quantizer did to the candidate's own "
    "inputs, and *expected* what rounding alone would do there; *codes off* are those that are not the "
    "student's on the same inputs, *beyond* is the share of values that a quantizer cuts off. Layers are "
    "looked into node by node, as the graph is written: a tensor that is shown can no longer be fused away. "
    "A runtime's own rewrites are compared by their logits."
)
"""How to read the tables."""


def to_markdown(found: Divergence) -> str:
    """The whole document."""
    counted = f"{found.examples} examples ({found.inputs}), {found.runtime}, {found.machine}"
    parts = [
        f"# {found.name}: {'parts' if found.parts else 'no divergence beyond quantization'}",
        f"{counted}. {HOW}",
    ]
    for chain in found.chains:
        rows = [layer_cells(row, chain) for row in shown_layers(chain)]
        parts += [
            f"## {chain.candidate}",
            "\n".join(f"- {line}" for line in lines_of(chain)),
            table(LINK_HEADINGS, map(link_cells, chain.links)),
            table(layer_headings(chain), rows),
        ]
    return "\n\n".join(parts) + "\n"


def lines_of(chain: Chain) -> Iterator[str]:
    """What is said of a candidate, a line each, the headline first."""
    yield chain.headline
    for finding in chain.findings[:1]:
        yield from finding.more
    for finding in chain.findings[1:]:
        yield f"also {finding.layer or finding.link}: {finding.cause}"
    if chain.bisection is not None:
        yield _search(chain.bisection)
    yield f"compared with {chain.reference}"
    if chain.not_compared:
        yield f"not compared, for want of a counterpart: {', '.join(chain.not_compared)}"
    yield from chain.notes


def shown_layers(chain: Chain) -> list[LayerRow]:
    """The layers that compute, and those that part."""
    return [row for row in chain.layers if row.computes or row.parts]


def layer_headings(chain: Chain) -> tuple[str, ...]:
    """Headings of the table of layers."""
    student = ("fp32 to student", "student to graph", "codes off") if _knows_student(chain) else ()
    return ("layer", "operation", "fp32 to graph", *student, "here", "expected", "steps", "beyond", "")


def layer_cells(row: LayerRow, chain: Chain) -> tuple[str, ...]:
    """One layer, as the cells of a table."""
    compared = row.reference is not None
    student: tuple[str, ...] = ()
    if _knows_student(chain):
        known = row.student_off is not None
        off = format_percent(row.student_off or 0, 1) if known else "-"
        student = (_db(row.trained_sqnr_db, known), _db(row.student_sqnr_db, known), off)
    return (
        row.name,
        row.operation,
        _db(row.sqnr_db, compared),
        *student,
        _db(row.local_sqnr_db, compared),
        _db(row.expected_sqnr_db, compared),
        "-" if row.mean_steps is None else f"{row.mean_steps:.2f}, max {row.max_steps:.0f}",
        "-" if row.saturated is None else format_percent(row.saturated, 1),
        "PARTS" if row.parts else "" if compared else "not compared",
    )


def link_cells(link: Link) -> tuple[str, ...]:
    """One link, as the cells of a table."""
    parity = link.parity
    figures = ("not finite", "not finite")
    if parity is not None:
        unit = parity.mean_difference / parity.logit_std if parity.logit_std else 0.0
        figures = (format_percent(parity.top1_agreement, 1), f"{unit:.4f} standard deviations")
    return (link.source, link.target, _db(link.sqnr_db, True), *figures, "PARTS" if link.parts else "")


def _search(found: Bisection) -> str:
    held = "the reference" if found.against == "fp32" else "the graph as written"
    graphs = "1 graph" if found.runs == 1 else f"{found.runs} graphs"
    start = f"by removing quantizers ({graphs} on {found.runtime}, held against {held}):"
    if not found.layers:
        expected = "" if found.expected_db is None else f", {found.expected_db:.1f} dB expected"
        return f"{start} no few layers make the difference ({_db(found.before_db, True)}{expected})"
    what = {"weights": "the weights of ", "activations": "the values of ", "both": "", None: ""}[found.part]
    change = f"{_db(found.before_db, True)} with, {_db(found.after_db, True)} without"
    return f"{start} {what}{', '.join(found.layers)} ({change})"


def _knows_student(chain: Chain) -> bool:
    return any(row.student_off is not None for row in chain.layers)


def _db(value: float | None, known: bool) -> str:
    if not known:
        return "-"
    return "equal" if value is None else f"{value:.1f} dB"
