"""What was measured and found, as the document has it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgekd.conversion.divergence.examine import Examination, Examined
from edgekd.conversion.divergence.question import Question
from edgekd.conversion.divergence.ranges import Ranges
from edgekd.conversion.divergence.skeleton import MOVERS, TRANSPARENT, name_of
from edgekd.conversion.divergence.student import MOST_OFF, Student, StudentLayer
from edgekd.conversion.divergence.sums import Difference, decibels
from edgekd.conversion.divergence.suspicions import Suspicion
from edgekd.conversion.parity import compare_logits
from edgekd.documents.divergence import Finding, LayerRow, Link
from edgekd.documents.parity import Parity

FP32, STUDENT = "fp32", "fake-quantized"
"""What the links call the reference and the trained student."""
_RUNTIME_ADDS = 4.0
"""Times the error of quantization that a runtime's own rewrites may add."""
_SAME_AS_TRAINED = 1.0
"""Times the error of quantization by which a graph may be off the student that it was made of."""
_ALIKE = 1e-4
"""Share of the logits' power up to which they are the same on another runtime."""


def layer_row(
    found: Examination, one: Examined, ranges: Ranges | None, student: StudentLayer | None, *, parts: bool
) -> LayerRow:
    """One layer's figures."""
    row = LayerRow(
        name=one.layer.name,
        operation=one.layer.operation,
        reference=_counterpart(found, one),
        computes=one.layer.computes,
        quantized=bool(one.layer.quantizers),
        saturated=one.met[0].extent.saturated if one.met else None,
        parts=parts,
    )
    more: dict[str, object] = {}
    if one.pair is not None:
        more = {
            "sqnr_db": one.whole.sqnr_db,
            "cosine": one.whole.cosine,
            "local_sqnr_db": one.local.sqnr_db,
            "expected_sqnr_db": _expected(one, ranges),
        }
    if one.pair is not None and one.grid is not None and math.isfinite(one.local.total):
        more["mean_steps"] = one.local.mean(one.local.total) / one.grid.scale
        more["max_steps"] = one.local.most / one.grid.scale
    if student is not None and student.codes:
        more |= {
            "trained_sqnr_db": student.trained.sqnr_db,
            "student_sqnr_db": student.whole.sqnr_db,
            "student_off": student.share_off,
        }
    return row.model_copy(update=more)


def _counterpart(found: Examination, one: Examined) -> str | None:
    if one.pair is None:
        return None
    tensor = found.reference.tensors.get(one.pair.core[1] or one.pair.reference)
    return f"input '{one.pair.reference}'" if tensor is None else name_of(tensor)


def _expected(one: Examined, ranges: Ranges | None) -> float | None:
    """What rounding the weights does, and the values to the step that data give or else to its own."""
    error = one.rounding.mean(one.rounding.error)
    if one.grid is not None:
        fit = ranges.fit(one.met[0]) if ranges is not None else None
        error += (one.grid.scale / (1.0 if fit is None else fit.ratio)) ** 2 / 12
    return decibels(one.local.mean(one.local.power), error)


def layer_findings(
    question: Question,
    found: Examination,
    signs: Mapping[str, Sequence[Suspicion]],
    student: Student | None,
) -> Iterator[Finding]:
    """What is wrong with each layer, in the candidate's order."""
    for one in found.layers:
        texts = [sign.text for sign in signs[one.layer.end]]
        known = None if student is None else student.layers.get(one.layer.end)
        off = known is not None and known.share_off > MOST_OFF
        if off and known is not None and not texts:
            texts.append(
                f"{100 * known.share_off:.0f} % of its codes are not the student's on the same inputs"
            )
        if texts:
            yield Finding(
                link=_link_of(question, known, off=off),
                layer=one.layer.name,
                operation=one.layer.operation,
                cause=texts[0],
                more=tuple(texts[1:]),
            )


def _link_of(question: Question, known: StudentLayer | None, *, off: bool) -> str:
    """Between which two a layer parts: the student is on the candidate's side where their codes agree."""
    if off:
        return f"{STUDENT} -> {question.dialect}"
    return f"{FP32} -> {STUDENT}" if known is not None and known.codes else f"{FP32} -> {question.dialect}"


def links(
    question: Question,
    outputs: tuple[np.ndarray, np.ndarray],
    student: Student | None,
    findings: Sequence[Finding],
    run: np.ndarray | None,
) -> Iterator[Link]:
    """The neighbors of the chain by their logits (N, K).

    Args:
        question: what was asked.
        outputs: the reference's and the candidate's as written.
        student: the trained student, where it was looked into.
        findings: what parts among the layers.
        run: the candidate's on its runtime.
    """
    reference, written = outputs
    parting = {finding.link for finding in findings}
    trained = _trained(question, student, written)
    if trained is not None:
        yield _link(FP32, STUDENT, reference, trained, parts=f"{FP32} -> {STUDENT}" in parting)
        parts = _goes_off(trained, written, _SAME_AS_TRAINED * _power(reference - trained))
        parts |= f"{STUDENT} -> {question.dialect}" in parting
        yield _link(STUDENT, question.written, trained, written, parts=parts)
    yield _link(FP32, question.written, reference, written, parts=bool(findings))
    if run is not None and question.runtime is not None:
        run = run.reshape(written.shape)
        parts = _goes_off(written, run, _RUNTIME_ADDS * _power(reference - written))
        yield _link(question.written, question.runtime.name, written, run, parts=parts)


def link_finding(link: Link) -> Finding:
    """What is to be said of a link that parts, where no layer shows why."""
    assert link.sqnr_db is not None, "a link parts because its ends differ"
    return Finding(
        link=f"{link.source} -> {link.target}",
        layer=None,
        operation=None,
        cause=f"the logits are others ({link.sqnr_db:.0f} dB)",
    )


def _trained(question: Question, student: Student | None, written: np.ndarray) -> np.ndarray | None:
    """The student's logits: computed now, or kept."""
    if student is not None and student.logits:
        return np.concatenate(student.logits).reshape(written.shape)
    kept = question.student_logits
    return None if kept is None else kept[: len(written)].reshape(written.shape)


def _goes_off(one: np.ndarray, other: np.ndarray, allowed: float) -> bool:
    """Whether logits differ by more than a squared error, and by more than rounding in floating point."""
    return not _power(one - other) <= allowed + _ALIKE * _power(one)


def not_compared(found: Examination) -> Iterator[str]:
    """What has no counterpart, on either side."""
    for one in found.layers:
        if one.pair is None and one.layer.operation and one.layer.end not in found.candidate.in_codes:
            yield f"{one.layer.name} ({one.layer.operation})"
    shown = {name for one in found.layers for name in one.lacking}
    cores = {pair.core[1] for pair in found.match.pairs}
    for name, tensor in found.reference.tensors.items():
        op_type = tensor.node.op_type
        if name in cores or name in shown or op_type in (*MOVERS, *TRANSPARENT):
            continue
        if not any(name in pair.missing for pair in found.match.pairs):
            yield f"{name_of(tensor)} ({op_type}) of the reference"


def _link(source: str, target: str, one: np.ndarray, other: np.ndarray, *, parts: bool) -> Link:
    difference = Difference()
    difference.add(one, other)
    return Link(
        source=source, target=target, sqnr_db=difference.sqnr_db, parity=_parity(one, other), parts=parts
    )


def _parity(one: np.ndarray, other: np.ndarray) -> Parity | None:
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return None
    return compare_logits(one, other)


def _power(x: np.ndarray) -> float:
    return float((x.astype(np.float64) ** 2).mean())
