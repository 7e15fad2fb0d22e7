"""`edgekd quantize --arms`: several ways to quantize one student, made, run and measured side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.conversion.specs import load_spec
from edgekd.devices.kit import kit_digest
from edgekd.devices.local import LocalDevice
from edgekd.documents.arms import Arms, PairedChange, QuantizedArmResult
from edgekd.documents.audit import Audit
from edgekd.documents.common import Interval
from edgekd.documents.measurement import Latency, Measurement, Ratio, Subject
from edgekd.documents.report import StageRecord
from edgekd.extras import require
from edgekd.files import sha256_file, sha256_json, write_text
from edgekd.measure.accuracy import accuracy
from edgekd.measure.latency import measure_latency
from edgekd.pipeline.compress import prepare_recipe
from edgekd.pipeline.context import Context, Listener, section
from edgekd.pipeline.prove import INPUTS, LABELS, load_array
from edgekd.pipeline.provenance import source_digest, versions
from edgekd.pipeline.quantize.arms import DESCRIPTIONS, FP32, possible, read_arms
from edgekd.pipeline.quantize.names import drop_pt
from edgekd.pipeline.quantize.plot import write_plot
from edgekd.pipeline.quantize.render import PLOT, to_markdown
from edgekd.pipeline.quantize.scheme import settled_scheme
from edgekd.pipeline.report import row_latency
from edgekd.pipeline.run_folder import RunFolder, Stage, keep_recipe
from edgekd.stats import paired_drop_upper

if TYPE_CHECKING:
    from edgekd.pipeline.quantize.choose import Choice
    from edgekd.pipeline.quantize.make import Made

_CONFIDENCE = 0.95
_MEASUREMENT = "measurement.json"


@dataclass(frozen=True)
class Request:
    """What is to be put side by side."""

    recipe: Path
    which: str = "standard"
    """Arms and sets of arms, separated by commas."""


def quantize_arms(request: Request, run: Path, listener: Listener, *, fresh: bool = False) -> Arms:
    """Make what is not there yet, measure, and write the table and the plot into the run folder.

    Raises:
        EdgekdError: whatever is wrong with the request, the recipe, the data, a network or the run folder.
    """
    wanted = read_arms(request.which)
    recipe, text = prepare_recipe(request.recipe)
    require("matplotlib", extra="train", for_what="the plot of the arms")
    names, not_done = possible(wanted, recipe)
    digest = sha256_json(recipe.model_dump(mode="json", by_alias=True))
    folder = RunFolder(run, recipe.name, recipe_sha256=digest, fresh=fresh)
    folder.check()
    context = Context(recipe, request.recipe.resolve().parent, folder, listener)
    for line in not_done:
        listener.note(line)
    with folder:
        keep_recipe(run, text, recipe.to_json())
        arms = _go(context, names, not_done)
        arms.write(run / "arms.json")
        write_text(run / "arms.md", to_markdown(arms))
        write_plot(arms, run / PLOT)
    return arms


def _go(context: Context, names: Sequence[str], not_done: tuple[str, ...]) -> Arms:
    from edgekd.pipeline import compress, learn  # torch, at last
    from edgekd.pipeline.export import keep_task
    from edgekd.pipeline.quantize.choose import choose
    from edgekd.pipeline.quantize.examples import try_out
    from edgekd.pipeline.quantize.make import Maker

    task = learn.task_of(context)
    try_out(context, task)
    before, teacher, student = compress.to_student(context, task)
    ingredients = {"task": task.fingerprint, "source": source_digest("tasks", "pipeline/export.py")}
    inputs = context.make(
        "evaluation", "keep the test set", ingredients, lambda folder: keep_task(task, folder)
    )
    scheme, settling = settled_scheme(context, task, student)
    choice = choose(context, task, teacher, student, scheme)
    maker = Maker(context, task, teacher, student, inputs, scheme)
    made = [maker.make(name) for name in names]
    measured = _measure(context, made, inputs)
    return _arms(context, [*before, *settling, *choice.stages], choice, made, measured, inputs, not_done)


def _measure(context: Context, made: Sequence[Made], inputs: Stage) -> Stage:
    """All graphs in the same processes, in turns."""
    from edgekd.pipeline.quantize.make import GRAPH

    graphs = {one.name: one.graph.path(GRAPH) for one in made}
    ingredients = {
        "graphs": {name: sha256_file(path) for name, path in graphs.items()},
        "inputs": inputs.digest,
        "measuring": section(context.recipe.measuring),
        "confidence": context.recipe.gate.confidence,
        "facts": section(LocalDevice().facts("onnxruntime"), without=("governor",)),
        "kit": kit_digest(),
        "source": source_digest("measure", "devices", "stats.py", "pipeline/quantize/run.py"),
    }

    def work(folder: Path) -> None:
        result = measure_latency(
            LocalDevice(),
            graphs,
            runtime="onnxruntime",
            inputs=inputs.path(INPUTS),
            measuring=context.recipe.measuring,
            confidence=context.recipe.gate.confidence,
            reference=FP32,
            session_options=load_spec("onnxruntime").session_options,
        )
        Measurement(
            profile="local",
            runtime="onnxruntime",
            facts=result.facts,
            conditions=result.conditions,
            subjects=tuple(
                Subject(
                    name=name,
                    graph_sha256=sha256_file(path),
                    size_bytes=path.stat().st_size,
                    latency=result.latencies[name],
                )
                for name, path in graphs.items()
            ),
            ratios=result.ratios,
            warnings=result.warnings,
        ).write(folder / _MEASUREMENT)

    return context.make("arms-latency", f"measure {len(graphs)} graphs side by side", ingredients, work)


def _arms(
    context: Context,
    before: Sequence[Stage],
    choice: Choice,
    made: Sequence[Made],
    measured: Stage,
    inputs: Stage,
    not_done: tuple[str, ...],
) -> Arms:
    measurement = Measurement.read(measured.path(_MEASUREMENT))
    results = [_result(context, one, made[0], choice, measurement, inputs) for one in made]
    stages = {
        stage.file.name: stage
        for stage in [*before, *(stage for one in made for stage in (*one.before, one.graph)), measured]
    }
    return Arms(
        name=context.recipe.name,
        runtime=measurement.runtime,
        arms=tuple(_with_front(results)),
        not_done=not_done,
        why=choice.note,
        notes=_notes(choice),
        warnings=measurement.warnings,
        recipe=context.recipe,
        stages=tuple(
            StageRecord(name=stage.file.name, key=stage.file.key, seconds=stage.file.seconds)
            for stage in stages.values()
        ),
        facts=measurement.facts,
        versions=versions(),
    )


def _result(
    context: Context, one: Made, fp32: Made, choice: Choice, measurement: Measurement, inputs: Stage
) -> QuantizedArmResult:
    from edgekd.pipeline.quantize.make import GRAPH, LOGITS, PROOF

    labels_N = load_array(inputs.path(LABELS))
    proof = one.graph.json(PROOF)
    audit = Audit.model_validate(proof["audit"])
    worth = one.worth
    return QuantizedArmResult(
        name=one.name,
        description=DESCRIPTIONS[one.name],
        scheme=one.scheme,
        seconds=round(sum(stage.file.seconds for stage in one.before), 3),
        validation_top1=worth.get("top1"),
        validation_kl=worth.get("kl"),
        drop_pt=drop_pt(worth) if worth else None,
        accuracy=accuracy(load_array(one.graph.path(LOGITS)), labels_N, context.recipe.gate.confidence),
        change=None if one is fp32 else _change(_correct(one, labels_N), _correct(fp32, labels_N)),
        agreement=proof["parity"]["top1_agreement"],
        latency_ms=row_latency(_latency(measurement, one.name)),
        ratio=_ratio(measurement, one.name),
        size_bytes=one.graph.path(GRAPH).stat().st_size,
        int8_ops=audit.int8_ops,
        weighted_ops=audit.weighted_ops,
        on_front=False,
        ships=bool(one.before) and one.before[-1].file.key == choice.ships.stage.file.key,
    )


def _correct(one: Made, labels_N: NDArray[Any]) -> NDArray[np.bool_]:
    from edgekd.pipeline.quantize.make import LOGITS

    correct_N: NDArray[np.bool_] = load_array(one.graph.path(LOGITS)).argmax(axis=1) == labels_N
    return correct_N


def _change(correct_N: NDArray[np.bool_], reference_N: NDArray[np.bool_]) -> PairedChange:
    """Score bounds, since those of Student's t are of no width where every answer is the reference's."""
    confidence = (1 + _CONFIDENCE) / 2
    lower = -paired_drop_upper(reference_N, correct_N, confidence)
    upper = paired_drop_upper(correct_N, reference_N, confidence)
    return PairedChange(
        mean=float(correct_N.mean() - reference_N.mean()),
        interval=Interval(lower=lower, upper=upper, confidence=_CONFIDENCE),
    )


def _latency(measurement: Measurement, name: str) -> Latency:
    latency = next(subject.latency for subject in measurement.subjects if subject.name == name)
    assert latency is not None, "every arm is measured"
    return latency


def _ratio(measurement: Measurement, name: str) -> Ratio | None:
    return next((ratio for ratio in measurement.ratios if ratio.name == name), None)


def _with_front(results: Sequence[QuantizedArmResult]) -> Iterator[QuantizedArmResult]:
    """The arms, with those marked that no other arm dominates."""
    merits = [(one.accuracy.correct, -one.latency_ms.p50, -one.size_bytes) for one in results]
    for one, merit in zip(results, merits, strict=True):
        dominated = any(
            other != merit and all(a >= b for a, b in zip(other, merit, strict=True)) for other in merits
        )
        yield one.model_copy(update={"on_front": not dominated})


def _notes(choice: Choice) -> tuple[str, ...]:
    return (
        choice.note,
        "calibrators, epochs and the arm that ships were chosen on validation; the test split chose nothing",
        "top-1 is that of the graph on the runtime; beside the fp32 student each answer is compared, "
        "with an interval over other test examples; one seed tells nothing of other seeds",
        "latencies within noise of each other make a front of their own: look at the ratio's interval",
    )
