"""From the documents of a run to its verdict and report. Needs no torch: `edgekd gate` does the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.conversion.specs import spec_of
from edgekd.devices.isa import int8_warning
from edgekd.documents.engine import EngineRecord
from edgekd.documents.measurement import Latency, Measurement, Subject
from edgekd.documents.parity import Parity
from edgekd.documents.recipe import Gate, Recipe, Target
from edgekd.documents.report import Report, Row, RowLatency, StageRecord
from edgekd.documents.run_log import Facts
from edgekd.documents.verdict import combine
from edgekd.errors import RunFolderError
from edgekd.files import write_text
from edgekd.gate.judge import Evidence, judge_target
from edgekd.pipeline.artefacts import STUDENT, Artefact, dialect_for, shipped_for
from edgekd.pipeline.measuring import MEASUREMENT, correct_answers, profile_of, why_not_here
from edgekd.pipeline.notes import notes_of
from edgekd.pipeline.prove import read_engine
from edgekd.pipeline.provenance import versions
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.saturation import notes_of_saturation


@dataclass(frozen=True)
class Finished:
    """The finished stages of a run, as far as it went."""

    recipe: Recipe
    stages: Mapping[str, Stage]

    def measure(self, target: Target) -> Stage | None:
        """The measurement of a target, if there is one."""
        return self.stages.get(f"measure-{target.profile}-{target.runtime}")

    def engine(self, target: Target) -> EngineRecord | None:
        """What became of a target's TensorRT graph."""
        stage = self.stages.get(f"engine-{target.profile}")
        return None if stage is None or target.runtime != "tensorrt" else read_engine(stage)


def build_report(finished: Finished, facts: Facts, *, gate: Gate | None = None) -> Report:
    """Judge the run by the recipe's gate, or by another one.

    Raises:
        RunFolderError: the run did not come as far as its graphs.
    """
    for needed in ("graphs", "prove"):
        if needed not in finished.stages:
            raise RunFolderError(f"the stage {needed} is not there yet", hint="run edgekd compress first")
    recipe = finished.recipe
    evidence = [_evidence(finished, target, facts) for target in recipe.targets]
    verdict = combine(tuple(check for one in evidence for check in judge_target(gate or recipe.gate, one)))
    measurements = [one.measurement for one in evidence if one.measurement is not None]
    return Report(
        name=recipe.name,
        verdict=verdict.verdict,
        checks=verdict.checks,
        rows=tuple(_row(one, subject) for one in measurements for subject in one.subjects),
        measurements=tuple(measurements),
        engines=tuple(one.engine for one in evidence if one.engine is not None),
        notes=(
            *notes_of(recipe, finished.stages),
            *_where_int8_may_not_pay(recipe, facts),
            *notes_of_saturation(recipe, finished.stages),
        ),
        not_done=tuple(line for one in evidence for line in _not_done(one)),
        recipe=recipe,
        stages=tuple(
            StageRecord(name=name, key=stage.file.key, seconds=stage.file.seconds)
            for name, stage in finished.stages.items()
        ),
        versions=versions(),
    )


def _where_int8_may_not_pay(recipe: Recipe, facts: Facts) -> Iterator[str]:
    for target in recipe.targets:
        warning = int8_warning(profile_of(target, facts), target.runtime)
        if target.precision == "int8" and warning is not None:
            yield warning


def _evidence(finished: Finished, target: Target, facts: Facts) -> Evidence:
    stage = finished.measure(target)
    artefact = shipped_for(target, finished.stages["graphs"])
    proofs = finished.stages["prove"].json("proofs.json")
    measured = None if stage is None else Measurement.read(stage.path(MEASUREMENT))
    graphs = finished.stages["graphs"]
    parities = {name: Parity.model_validate(proofs[name]["parity"]) for name in proofs}
    if measured is not None:
        parities[artefact.stem] = _parity_of(measured, artefact.row)
    return Evidence(
        target=target,
        spec=spec_of(dialect_for(target, graphs)),
        candidate=artefact.row,
        reference=STUDENT,
        parity=parities[artefact.stem],
        reference_parity=parities[Artefact(STUDENT, None).stem],
        measurement=measured,
        correct={} if stage is None else correct_answers(stage, graphs, target),
        engine=finished.engine(target),
        not_measured=why_not_here(target, facts) or "the stage was not run: edgekd bench RUN measures it",
    )


def _parity_of(measurement: Measurement, name: str) -> Parity:
    parity = next(subject.parity for subject in measurement.subjects if subject.name == name)
    assert parity is not None, "every subject of a run is compared with what it was made from"
    return parity


def _row(measurement: Measurement, subject: Subject) -> Row:
    accuracy, audit = subject.accuracy, subject.audit
    return Row(
        name=subject.name,
        target=f"{measurement.profile}/{measurement.runtime}",
        top1=None if accuracy is None else accuracy.top1,
        top1_interval=None if accuracy is None else accuracy.interval,
        latency_ms=None if subject.latency is None else row_latency(subject.latency),
        size_bytes=subject.size_bytes,
        int8_ops=None if audit is None else audit.int8_ops,
        weighted_ops=None if audit is None else audit.weighted_ops,
    )


def row_latency(latency: Latency) -> RowLatency:
    """A latency as a row of a table has it."""
    return RowLatency(
        p50=latency.p50.value_ms,
        p90=None if latency.p90 is None else latency.p90.value_ms,
        p99=None if latency.p99 is None else latency.p99.value_ms,
        p50_upper=latency.p50.upper_ms,
        p90_upper=None if latency.p90 is None else latency.p90.upper_ms,
        samples=latency.samples,
        processes=latency.processes,
    )


def _not_done(evidence: Evidence) -> list[str]:
    """What was not built, run or measured for a target, a line each."""
    lines = []
    if evidence.measurement is None:
        lines.append(f"{evidence.name}: accuracy and latency were not measured: {evidence.not_measured}")
    if evidence.target.runtime == "tensorrt":
        if evidence.engine is None or evidence.engine.status != "built":
            note = evidence.engine.note if evidence.engine else "the graph was not given to TensorRT"
            lines.append(f"{evidence.name}: no engine was built: {note}")
        if evidence.measurement is None:
            lines.append(f"{evidence.name}: parity was proven on ONNX Runtime, not on TensorRT")
        else:
            lines.append(f"{evidence.name}: which operators TensorRT runs in int8 was not read")
    return lines


def write_report(run: Path, report: Report, markdown: str) -> None:
    """Write report.json and report.md into the run folder."""
    report.write(run / "report.json")
    write_text(run / "report.md", markdown)
