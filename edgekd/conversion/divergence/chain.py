"""One candidate beside its reference, from the graphs to what is said of them."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgekd.conversion.divergence.constants import ConstantPair
from edgekd.conversion.divergence.examine import Examination, batch_size, examine
from edgekd.conversion.divergence.layers import Candidate, open_candidate
from edgekd.conversion.divergence.match import match
from edgekd.conversion.divergence.probe import check_examples, input_of, input_shape
from edgekd.conversion.divergence.question import Question
from edgekd.conversion.divergence.ranges import Ranges
from edgekd.conversion.divergence.rows import (
    layer_findings,
    layer_row,
    link_finding,
    links,
    not_compared,
)
from edgekd.conversion.divergence.seen import notes_on
from edgekd.conversion.divergence.skeleton import Skeleton, plain, skeleton
from edgekd.conversion.divergence.student import Student
from edgekd.conversion.divergence.suspicions import suspicions
from edgekd.conversion.divergence.weights import is_trained_on, is_unrelated, likeness
from edgekd.documents.divergence import Chain
from edgekd.errors import ConversionError, UsageError

_EXAMPLES = 2
_ENOUGH = 0.5
"""Share of the layers that compute which must correspond for two graphs to be of one network."""


@dataclass(frozen=True)
class Answer:
    """What came out, and what a search by removing quantizers goes on from."""

    chain: Chain
    found: Examination
    x: np.ndarray
    """The examples that were used."""

    @property
    def reference(self) -> np.ndarray:
        """The logits of the reference that the layers were compared with."""
        return np.concatenate(self.found.outputs[0])


def compare(question: Question) -> Answer:
    """Compare a candidate with its reference, layer by layer, and the ends of the chain by their logits.

    Raises:
        UsageError: the graphs are not of one network, have several inputs, or the examples do not fit.
        ConversionError: a graph cannot be run.
    """
    x = _fitting(question)
    few = x[: _fixed(question) or _EXAMPLES]
    candidate = open_candidate(question.candidate.model, few, question.candidate.name)
    reference = skeleton(plain(question.reference.model), few, question.reference.name)
    student = None
    if question.student_graph is not None:
        student = Student(candidate, question.student_graph, question.network, few, question.student_called)
    given = _examined(candidate, reference, x, student)
    _check_related(given)
    alike = _trained_on(given)
    found = given if alike is None else _examined(candidate, candidate.form, x, None)
    notes = [
        *question.notes,
        *notes_on(question.candidate.model, candidate),
        *([] if alike is None else [_trained_note(alike)]),
    ]
    return _answer(replace(question, x=x), found, given, student, notes)


def _fixed(question: Question) -> int | None:
    """The number of examples that both graphs take at a time; None where they take any.

    Raises:
        UsageError: each takes another number.
    """
    shapes = [input_shape(input_of(one.model, one.name)) for one in (question.candidate, question.reference)]
    sizes = {shape[0] for shape in shapes if shape} - {None}
    if len(sizes) > 1:
        given = " and ".join(map(str, sorted(size for size in sizes if size is not None)))
        raise UsageError(
            f"the graphs take {given} examples at a time", hint="export both with one batch size"
        )
    return batch_size(*shapes)


def _fitting(question: Question) -> np.ndarray:
    """The examples, as many as both graphs take."""
    for subject in (question.candidate, question.reference):
        check_examples(question.x, input_of(subject.model, subject.name), subject.name)
    fixed = _fixed(question)
    count = len(question.x) if fixed is None else len(question.x) - len(question.x) % fixed
    if count == 0:
        raise UsageError(f"the graphs take {fixed or 1} examples at a time; there are {len(question.x)}")
    x = question.x[:count]
    return x.astype(np.float32) if np.issubdtype(x.dtype, np.floating) else x


def _examined(
    candidate: Candidate, reference: Skeleton, x: np.ndarray, student: Student | None
) -> Examination:
    found = match(candidate.form, reference, {one.name for one in candidate.quantized})
    computing = [layer for layer in candidate.layers[1:] if layer.computes]
    known = [layer for layer in computing if layer.end in found.by_candidate]
    if not computing:
        raise UsageError("there is nothing to compare: no layer of the candidate computes in float")
    if len(known) < _ENOUGH * len(computing):
        raise UsageError(
            f"the graphs are not of one network: only {len(known)} of {len(computing)} layers correspond",
            hint="compare a graph with the one that it was made from",
        )
    return examine(candidate, reference, found, x, None if student is None else student.watch)


def _check_related(found: Examination) -> None:
    """Refuse graphs whose weights have nothing in common.

    Raises:
        UsageError: most of them have not.
    """
    weights = _weights(found)
    strange = [pair for pair in weights if pair.differs and is_unrelated(pair)]
    if len(strange) > 1 and 2 * len(strange) > len(weights):
        raise UsageError(
            f"the graphs are not of one network: {len(strange)} of {len(weights)} weights are unrelated",
            hint="compare a graph with the one that it was made from",
        )


def _weights(found: Examination) -> list[ConstantPair]:
    pairs = [pair for one in found.layers for pair in one.constants]
    return [pair for pair in pairs if pair.role == "weight" and pair.comparable]


def _trained_on(found: Examination) -> float | None:
    """Median cosine of the graphs' weights, where most differ as they do after more training."""
    weights = _weights(found)
    trained = [pair for pair in weights if pair.differs and is_trained_on(pair)]
    if len(trained) < 2 or 2 * len(trained) < len(weights):
        return None
    return float(np.median([likeness(pair) for pair in trained]))


def _trained_note(alike: float) -> str:
    return (
        f"its weights are not the reference's (median cosine {alike:.3f}): it was trained on. Its layers are "
        "compared with its own float form, so that its weights and biases are not judged"
    )


def _run(question: Question, x: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """The candidate's logits on its runtime; where that refuses the graph, a note of it."""
    if question.runtime is None:
        return None
    try:
        return question.runtime.run(question.candidate.model, x)
    except ConversionError as error:
        notes.append(f"{question.runtime.name} was left out: {error.message}")
        return None


def _cut_off(found: Examination, ranges: Ranges | None, trained: Container[str]) -> Iterator[str]:
    """Quantizers that cut off much because they were trained or calibrated to."""
    for one in found.layers if ranges is not None else ():
        for met in one.met[:1] if one.layer.end in trained else ():
            fit = ranges.fit(met) if ranges is not None else None
            if fit is not None and fit.is_noisy and met.extent.saturated:
                share = f"{100 * met.extent.saturated:.2g} %"
                yield f"{one.layer.name}: its quantizer cuts off {share} of its values, as the student's does"


def _answer(
    question: Question, found: Examination, given: Examination, student: Student | None, notes: list[str]
) -> Answer:
    """What is said: the layers by `found`, the logits by the reference that was `given`."""
    ranges = Ranges(found.layers) if question.representative else None
    trained = {} if student is None else student.layers
    signs = {
        one.layer.end: suspicions(found, one, ranges, trained.get(one.layer.end)) for one in found.layers
    }
    findings = list(layer_findings(question, found, signs, student))
    parting = {finding.layer for finding in findings}
    reference, written = (np.concatenate(part) for part in given.outputs)
    outputs = reference.reshape(len(written), -1), written.reshape(len(written), -1)
    x = question.x[: len(written)]
    run = _run(question, x, notes)
    chained = list(links(question, outputs, student, findings, run))
    alone = [link for link in chained if link.parts and not findings]
    if run is not None and chained[-1].parts:
        alone = [chained[-1]]  # what the runtime does is its own, whatever the graph's layers do
    findings += map(link_finding, alone)
    chain = Chain(
        candidate=question.candidate.name,
        dialect=question.dialect,
        candidate_sha256=question.candidate.sha256,
        reference=question.reference.name,
        links=tuple(chained),
        layers=tuple(
            layer_row(found, one, ranges, trained.get(one.layer.end), parts=one.layer.name in parting)
            for one in found.layers
        ),
        findings=tuple(findings),
        not_compared=tuple(not_compared(found)),
        notes=(*notes, *_cut_off(found, ranges, trained)),
    )
    return Answer(chain, found, x)
