"""Predict: the operators of a graph by the roofline of a device, as an interval.

A prediction by generic efficiencies has an interval of a factor of three to each side, a calibrated one of
1.6. Of 28 graphs on one x86 machine 89 % lay in the first and 93 % in the second (benchmarks/prediction).
Operators whose work cannot be counted widen it: by the share of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekd.conversion.any_graph import read_any_graph
from edgekd.conversion.audit import examine, inlined
from edgekd.conversion.graph_view import views
from edgekd.documents.prediction import PredictedOperator, Prediction
from edgekd.documents.runtime import TargetRuntime
from edgekd.errors import ConversionError, UsageError
from edgekd.files import sha256_file
from edgekd.measure.prediction.fused_graph import FusedOperator, fuse
from edgekd.measure.prediction.roofline import Timed, times_of
from edgekd.measure.prediction.target import Target

GENERIC, CALIBRATED = 3.0, 1.6
"""Factors from the prediction to both ends of its interval."""
_LEAST_COVERAGE = 0.1


@dataclass(frozen=True)
class FusedGraph:
    """A graph as a runtime would run it.

    Attributes:
        path: its file.
        operators: that run.
        missing: types of those whose work cannot be counted, with their number.
        notes: what a reader should know, a line each.
    """

    path: Path
    operators: tuple[FusedOperator, ...]
    missing: dict[str, int]
    notes: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of the operators whose work could be counted."""
        return 1 - sum(self.missing.values()) / max(1, len(self.operators))


def read_fused(path: Path, runtime: TargetRuntime, *, threads: int = 1) -> FusedGraph:
    """Read a graph and fuse it as a runtime would.

    Raises:
        BundleError: the file is no valid ONNX graph.
        UsageError: the shape of an input is free.
    """
    found = read_any_graph(path)
    model = inlined(found.model)
    in_int8, notes = None, []
    if runtime == "onnxruntime":
        in_int8, note = _in_int8(model, path, threads, whole=found.whole)
        notes = [note] if note else []
    try:
        operators = fuse(model, runtime, in_int8)
    except UsageError as error:
        raise UsageError(error.message, where=path, hint=error.hint) from None
    missing = Counter(one.op_types[0] for one in operators if one.kind == "other")
    return FusedGraph(path, operators, dict(sorted(missing.items())), tuple(notes))


def predict(graph: FusedGraph, target: Target) -> Prediction:
    """How long a graph might take on a device."""
    times = times_of(graph.operators, target.speeds)
    mid_ms = 1e3 * (target.speeds.call_s + sum(one.seconds for one in times))
    calibrated = target.calibration is not None
    factor = (CALIBRATED if calibrated else GENERIC) / max(graph.coverage, _LEAST_COVERAGE)
    return Prediction(
        graph=graph.path.name,
        graph_sha256=sha256_file(graph.path),
        profile=target.profile,
        operating_point=target.point,
        runtime=target.runtime,
        threads=target.threads,
        low_ms=mid_ms / factor,
        mid_ms=mid_ms,
        high_ms=mid_ms * factor,
        method="roofline, calibrated efficiencies" if calibrated else "roofline, generic efficiencies",
        calibration=target.calibration,
        coverage=graph.coverage,
        missing_ops=graph.missing,
        operators=tuple(map(_predicted, times)),
        notes=(*graph.notes, *target.notes),
    )


def _predicted(timed: Timed) -> PredictedOperator:
    one = timed.operator
    return PredictedOperator(
        name=one.name,
        kind=one.kind,
        number_type=one.number_type,
        macs=one.macs,
        operations=one.operations,
        read_bytes=one.read_bytes,
        written_bytes=one.written_bytes,
        mid_ms=1e3 * timed.seconds,
        bound=timed.bound,
    )


def _in_int8(
    model: onnx.ModelProto, path: Path, threads: int, *, whole: bool
) -> tuple[frozenset[int] | None, str | None]:
    """Numbers of the weighted operators that the audit found in int8, or why it could not look."""
    if not any(_on_codes(model)):
        return frozenset(), None
    why = "it is too large to be loaded"
    if whole:
        try:
            examined = examine(model, path, threads=threads)
        except ConversionError as error:
            why = error.message
        else:
            pairs = zip(examined.operators, examined.audit.operators, strict=True)
            return frozenset(operator.number for operator, audited in pairs if audited.int8), None
    return None, f"int8 as the graph's quantizers have it, for ONNX Runtime was not asked: {why}"


def _on_codes(model: onnx.ModelProto) -> Iterator[bool]:
    """Whether each node has to do with codes."""
    for view in views(model):
        for node in view.graph.node:
            yield "Quantize" in node.op_type or "QLinear" in node.op_type or node.op_type.endswith("Integer")
