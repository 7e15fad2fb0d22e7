"""Any two ONNX files of one network, edgekd's or anybody's. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from edgekd.conversion.divergence.chain import compare
from edgekd.conversion.divergence.question import Question, Subject
from edgekd.conversion.divergence.searched import searched
from edgekd.conversion.remove_quantizers import quantized_tensors
from edgekd.documents.divergence import Divergence
from edgekd.pipeline.debug.files import bundled_inputs, made_up_examples, read_examples, read_subject
from edgekd.pipeline.debug.runtimes import about, onnxruntime
from edgekd.runtimes.onnxruntime import machine_isa

_MADE_UP = (
    "the examples are made up, normal with unit variance: weights and operators are judged by them, scales "
    "are not; --inputs takes examples"
)
_QUANTIZED = "the reference is quantized: its float form is compared with, and its scales are what is wanted"


def debug_graphs(
    reference: Path, candidate: Path, *, inputs: Path | None = None, examples: int = 64, bisect: bool = False
) -> Divergence:
    """Where a graph parts from the one that it was made from.

    Args:
        reference: the graph in float, or another quantized one, whose scales are then what is wanted.
        candidate: the graph in question, or a bundle.
        inputs: a .npy of examples; None takes the bundle's, or makes some up.
        examples: how many of them.
        bisect: search by removing quantizers, too.

    Raises:
        BundleError: a file is missing or no valid ONNX graph.
        DataError: the file of examples cannot be used.
        UsageError: the graphs are not of one network, or the examples do not fit.
        ConversionError: a graph cannot be run.
    """
    wanted, given = read_subject(reference), read_subject(candidate)
    inputs = inputs or bundled_inputs(candidate)
    question = _question(wanted, given, inputs, examples)
    answer = compare(question)
    return Divergence(
        name=given.name,
        examples=len(answer.x),
        inputs="made up" if inputs is None else inputs.name,
        runtime=about(),
        machine=machine_isa(),
        chains=(searched(answer, question, asked=bisect),),
    )


def _question(wanted: Subject, given: Subject, inputs: Path | None, examples: int) -> Question:
    if inputs is None:
        x = made_up_examples(given.model, examples, given.name)
    else:
        x = read_examples(inputs, examples)
    has_scales = any(one.kind == "activation" for one in quantized_tensors(wanted.model))
    notes = [*([_QUANTIZED] if has_scales else []), *([_MADE_UP] if inputs is None else [])]
    return Question(
        candidate=given,
        reference=wanted,
        dialect="candidate",
        x=x,
        representative=inputs is not None,
        student_graph=wanted.model if has_scales else None,
        student_called="the reference",
        runtime=onnxruntime(),
        notes=tuple(notes),
    )
