"""Which weighted operators of a graph really run in int8 on this machine, and why the others do not.

ONNX Runtime is asked for the graph that it runs after all its optimizations (auditing/optimized.py); each
operator that is not in int8 there is asked for its cause (auditing/causes), and what runs in float between
those in int8 is found (auditing/work.py). Nothing is run or measured here: pipeline/audit.py does that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import inliner

from edgekd.conversion.auditing.causes.explain import explain, static_cause
from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.processor import Processor
from edgekd.conversion.auditing.findings import Attributed, counted, findings_of
from edgekd.conversion.auditing.optimized import INT8, Operator, Optimized, weighted_operators
from edgekd.conversion.auditing.work import Work, divide
from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.graph_view import label, views
from edgekd.documents.audit import Audit, AuditedOperator, Quantization
from edgekd.errors import ConversionError
from edgekd.files import sha256_file
from edgekd.runtimes.onnxruntime import known_operators, loads_as_written, machine_isa, version

TOO_LARGE = (
    "the graph has more than 2 GiB of weights: it was not given to the runtime, and is read from the file"
)


@dataclass(frozen=True)
class Examined:
    """An audit with what it was made from, for those who measure."""

    audit: Audit
    model: onnx.ModelProto
    operators: tuple[Operator, ...]
    optimized: Optimized
    work: Work
    findings: tuple[Attributed, ...]


def audit_graph(path: Path, *, threads: int = 1) -> Audit:
    """Audit any ONNX file on ONNX Runtime's CPU provider.

    Raises:
        BundleError: the file is no valid ONNX graph, or its external data is unsafe or missing.
        ConversionError: ONNX Runtime cannot load the graph.
    """
    return examine(read_graph(path), path, threads=threads).audit


def examine(model: onnx.ModelProto, path: Path, *, threads: int = 1) -> Examined:
    """Audit a graph that was read; `path` is where it came from.

    Raises:
        ConversionError: ONNX Runtime cannot load the graph.
    """
    model = inlined(model)
    try:
        optimized = Optimized.of(model, threads)
    except ConversionError as error:
        raise ConversionError(error.message, where=path, hint=error.hint) from None
    operators = tuple(weighted_operators(model))
    processor = Processor.of(machine_isa())
    found = [_audited(operator, optimized, processor) for operator in operators]
    weighted = _weighted_work(operators, found, optimized)
    work = divide(optimized, weighted)
    findings = tuple(findings_of(operators, found, optimized, work, processor))
    audit = _audit(path).model_copy(
        update={
            "operators": tuple(found),
            "optimized_operators": dict(sorted(optimized.counts.items())),
            "quantization": quantization_of(model),
            "findings": tuple(one.finding for one in findings),
        }
    )
    return Examined(audit, model, operators, optimized, work, findings)


def static_audit(model: onnx.ModelProto, path: Path, message: str) -> Audit:
    """What the file alone tells of a graph that ONNX Runtime refuses: no operator counts as int8."""
    model = inlined(model)
    processor = Processor.of(machine_isa())
    operators = weighted_operators(model)
    return _audit(path).model_copy(
        update={
            "operators": tuple(_read_from_file(operator, processor) for operator in operators),
            "quantization": quantization_of(model),
            "loaded": False,
            "problems": (message, *(() if message == TOO_LARGE else why_refused(model, message))),
        }
    )


def why_refused(model: onnx.ModelProto, message: str) -> Iterator[str]:
    """What can be said of a graph that ONNX Runtime refuses, besides its own message."""
    known = known_operators()
    unknown = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in _nodes(model)
        if known and (_domain(node), node.op_type) not in known
    )
    if unknown:
        yield f"operators that ONNX Runtime does not know: {counted(unknown)}"
    missing = re.search(r"No Op registered for (\w+)", message)
    if missing and all(node.op_type != missing[1] for node in _nodes(model)):
        yield f"its own rewrite needs {missing[1]}, which this opset lacks: write it with opset 13 or later"
    if not unknown and loads_as_written(model):
        yield "it loads with all optimizations off, and so node by node as it is written"


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for view in views(model) for node in view.graph.node)


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without functions of its own: their bodies where they were called."""
    return inliner.inline_local_functions(model) if model.functions else model


def quantization_of(model: onnx.ModelProto) -> Quantization:
    """How a graph is quantized, by its operators."""
    types = {node.op_type for node in _nodes(model)}
    found: set[Quantization] = set()
    if types & {"QuantizeLinear", "DequantizeLinear"}:
        found.add("qdq")
    if any(kind.startswith("QLinear") or kind in ("QGemm", "QAttention") for kind in types):
        found.add("qoperator")
    if any(kind.startswith("DynamicQuantize") or kind.endswith("Integer") for kind in types):
        found.add("dynamic")
    if found == {"qdq", "qoperator"}:  # operators on codes have quantizers at the ends of the graph
        return "qoperator" if not _opens_a_weight(model) else "mixed"
    return "none" if not found else found.pop() if len(found) == 1 else "mixed"


def _opens_a_weight(model: onnx.ModelProto) -> bool:
    return any(
        node.op_type == "DequantizeLinear" and view.is_constant(node.input[0])
        for view in views(model)
        for node in view.graph.node
    )


def _audit(path: Path) -> Audit:
    return Audit(
        graph=path.name,
        graph_sha256=sha256_file(path),
        runtime="onnxruntime",
        runtime_version=version(),
        machine=machine_isa(),
        operators=(),
        optimized_operators={},
    )


def _audited(operator: Operator, optimized: Optimized, processor: Processor) -> AuditedOperator:
    running = optimized.runs_as(operator)
    runs_as = None if running is None else running.node.op_type
    int8 = runs_as is not None and INT8.search(runs_as) is not None
    cause = None if int8 else explain(operator.view, operator.node, runs_as, processor)
    return _operator(operator, cause, runs_as=runs_as or "nothing", int8=int8)


def _read_from_file(operator: Operator, processor: Processor) -> AuditedOperator:
    """An operator of a graph that was not loaded."""
    if INT8.search(operator.node.op_type):
        cause: Explanation | None = because("not-loaded", advice="see the runtime's message")
    else:
        cause = static_cause(operator.view, operator.node, processor) or because("not-loaded")
    return _operator(operator, cause, runs_as="not loaded", int8=False)


def _operator(operator: Operator, cause: Explanation | None, *, runs_as: str, int8: bool) -> AuditedOperator:
    return AuditedOperator(
        name=label(operator.node),
        op_type=operator.node.op_type,
        int8=int8,
        runs_as=runs_as,
        cause=None if cause is None else cause.text,
        advice=None if cause is None else cause.advice,
        cause_id=None if cause is None else cause.cause_id,
    )


def _weighted_work(
    operators: tuple[Operator, ...], found: list[AuditedOperator], optimized: Optimized
) -> dict[int, tuple[int, str | None]]:
    work: dict[int, tuple[int, str | None]] = {}
    for index, (operator, audited) in enumerate(zip(operators, found, strict=True)):
        running = optimized.runs_as(operator)
        if running is not None:
            work[running.index] = index, audited.cause_id
    return work
