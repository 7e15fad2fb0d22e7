"""Do what a plan says: devices at the same time, each setting after another; an error spares the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Generic, Protocol, TypeVar

from edgekd.devices.device import Device
from edgekd.devices.open_device import open_device
from edgekd.documents.bench import Bench, Row, Setting, SideBySide
from edgekd.documents.job import JobGraph
from edgekd.errors import EdgekdError, UsageError
from edgekd.measure.interleave import compare_graphs
from edgekd.measure.looks import LOOKS
from edgekd.measure.noise import find_invalid
from edgekd.pipeline.bench.course import Course, courses_of
from edgekd.pipeline.bench.kept import KeptDevice
from edgekd.pipeline.bench.measure import check_expected, jobs_of, measure, options_for
from edgekd.pipeline.bench.plan import Place, Plan, check_runtime
from edgekd.pipeline.bench.render import title_of

Found = TypeVar("Found")


class Listener(Protocol):
    """Hears how a bench goes on, from several threads."""

    def started(self, setting: Setting, jobs: int) -> None:
        """A setting is about to be measured, in at most so many jobs."""
        ...

    def job_done(self, setting: Setting) -> None:
        """One of its jobs was done."""
        ...

    def finished(self, setting: Setting, error: str | None) -> None:
        """It is measured, or could not be."""
        ...

    def event(self, text: str) -> None:
        """Something that the user should know, such as a connection that is made anew."""
        ...


@dataclass(frozen=True)
class Benched:
    """What was found, and the samples of each row in their order."""

    document: Bench
    courses: tuple[tuple[Course, ...], ...]


def bench(plan: Plan, scratch: Path, listener: Listener, *, out: Path | None = None) -> Benched:
    """Measure every setting of a plan. Logs are kept in `out`/logs, and found there by a later call.

    An error of one setting is in its row. Devices of different addresses are measured at the same time.

    Raises:
        UsageError: a graph has another batch than one that is wanted; nothing is measured then.
    """
    settings = {place: tuple(plan.settings(place)) for place in plan.places}

    def work(device: Device, places: Sequence[Place]) -> list[tuple[Row, tuple[Course, ...]]]:
        return [
            _row(plan, place, setting, device, scratch, listener, out)
            for place in places
            for setting in settings[place]
        ]

    found = _each_address(plan, listener, work)
    document = _document(plan, rows=tuple(row for row, _ in found))
    return Benched(document, tuple(courses for _, courses in found))


def compare(plan: Plan, scratch: Path, listener: Listener, *, out: Path | None = None) -> Benched:
    """Compare every further graph of a plan with the first one, side by side in the same processes.

    Raises:
        UsageError: there are not two graphs, they are not fed alike, or the plan asks for long phases.
    """
    _check_comparable(plan)
    settings = {place: tuple(plan.settings(place)) for place in plan.places}

    def work(device: Device, places: Sequence[Place]) -> list[SideBySide]:
        return [
            _pair(plan, place, setting, device, scratch, listener, out)
            for place in places
            for setting in settings[place]
            if setting.graph != next(iter(plan.graphs))
        ]

    return Benched(_document(plan, comparisons=tuple(_each_address(plan, listener, work))), ())


def _check_comparable(plan: Plan) -> None:
    (reference, first), *others = plan.graphs.items()
    if not others:
        hint = "edgekd bench A.onnx B.onnx --interleave"
        raise UsageError("--interleave compares two graphs or more", hint=hint)
    if plan.sustained_s is not None or plan.rate_hz is not None:
        raise UsageError(
            "--interleave compares short turns: --sustained and --rate are of one graph",
            hint="measure those in a call without --interleave",
        )
    for name, other in others:
        if [one.fed for one in other.wants] != [one.fed for one in first.wants]:
            takes = [", ".join(map(str, one.wants)) for one in (other, first)]
            raise UsageError(
                f"{name} takes {takes[0]}; {reference} takes {takes[1]}",
                hint="graphs that are compared take the same inputs",
            )


def _document(plan: Plan, *, rows: tuple[Row, ...] = (), comparisons: tuple[SideBySide, ...] = ()) -> Bench:
    return Bench(
        graphs={name: candidate.sha256 for name, candidate in plan.graphs.items()},
        measuring=plan.measuring,
        rows=rows,
        comparisons=comparisons,
    )


def _row(
    plan: Plan,
    place: Place,
    setting: Setting,
    device: Device,
    scratch: Path,
    listener: Listener,
    out: Path | None,
) -> tuple[Row, tuple[Course, ...]]:
    kept = _kept(setting, device, listener, out)
    listener.started(setting, jobs_of(plan, plan.graphs[setting.graph]))
    try:
        found = measure(plan, place, setting, kept, scratch)
    except EdgekdError as error:
        listener.finished(setting, str(error))
        return Row(setting=setting, error=str(error), exit_code=error.exit_code), ()
    listener.finished(setting, None)
    row = Row(setting=setting, measurement=found, logs=tuple(kept.files))
    return row, courses_of(title_of(setting), kept.logs)


def _pair(
    plan: Plan,
    place: Place,
    setting: Setting,
    device: Device,
    scratch: Path,
    listener: Listener,
    out: Path | None,
) -> SideBySide:
    reference = next(iter(plan.graphs))
    kept = _kept(setting, device, listener, out)
    listener.started(setting, LOOKS[-1])
    try:
        for name in (reference, setting.graph):
            check_runtime(plan.graphs[name], setting.runtime)
        expected = check_expected(plan, place, plan.graphs[reference], kept.facts(setting.runtime))
        inputs, note = plan.graphs[reference].fed(setting.batch_size, scratch)
        found = compare_graphs(
            kept,
            *(JobGraph(name=name, path=str(plan.graphs[name].graph)) for name in (reference, setting.graph)),
            runtime=setting.runtime,
            inputs=inputs,
            threads=setting.threads,
            batch_size=setting.batch_size,
            session_options=options_for(plan, setting),
        )
    except EdgekdError as error:
        listener.finished(setting, str(error))
        return SideBySide(setting=setting, reference=reference, error=str(error), exit_code=error.exit_code)
    listener.finished(setting, None)
    invalid = find_invalid(found.logs)
    return SideBySide(
        setting=setting,
        reference=reference,
        comparison=found.comparison,
        facts=found.facts,
        mismatches=expected.differences,
        invalid=invalid,
        warnings=tuple(filter(None, (note, *(line for line in found.warnings if line not in invalid)))),
        logs=tuple(kept.files),
    )


def _kept(setting: Setting, device: Device, listener: Listener, out: Path | None) -> KeptDevice:
    return KeptDevice(device, folder=out, on_job=lambda: listener.job_done(setting))


def _each_address(
    plan: Plan, listener: Listener, work: Callable[[Device, Sequence[Place]], list[Found]]
) -> list[Found]:
    """The work on each address, all at the same time; what was found, in the plan's order.

    The devices are opened and closed here, not in the threads: Ctrl-C ends what they run at once.
    """
    groups: dict[str, list[Place]] = {}
    for place in plan.places:
        groups.setdefault(place.address, []).append(place)
    with ExitStack() as stack:
        tasks = [
            _Task(work, stack.enter_context(open_device(address, on_event=listener.event)), places)
            for address, places in groups.items()
        ]
        if len(tasks) == 1:
            tasks[0].run()
        else:
            _run_together(tasks)
        return [one for task in tasks for one in task.result()]


def _run_together(tasks: Sequence[_Task[Found]]) -> None:
    threads = [Thread(target=task.run, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # a join without an end would not hear Ctrl-C


class _Task(Generic[Found]):
    """The work on one address, and what came of it."""

    def __init__(
        self, work: Callable[[Device, Sequence[Place]], list[Found]], device: Device, places: Sequence[Place]
    ) -> None:
        self._work, self._device, self._places = work, device, places
        self._found: list[Found] = []
        self._error: Exception | None = None

    def run(self) -> None:
        """Do it; an error is kept for `result`."""
        try:
            self._found = self._work(self._device, self._places)
        except Exception as error:
            self._error = error

    def result(self) -> list[Found]:
        """What was found, or the error again."""
        if self._error is not None:
            raise self._error
        return self._found
