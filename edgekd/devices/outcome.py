"""How a job of the kit ended, on whatever device: its log, or the error that says what went wrong."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import NoReturn

from edgekd.documents.job import Job
from edgekd.documents.run_log import RunLog
from edgekd.errors import DeviceError, DocumentError, MeasurementError, MissingError

TAIL_BYTES = 2000
_AGAIN = "look at the disk and the memory there, then run it again"
NOT_INSTALLED = 3
"""Exit code of the kit when the runtime is missing."""


@dataclass(frozen=True)
class Outcome:
    """How the kit's process ended."""

    code: int | None
    """Exit code, negative for a signal; None when its time was up."""
    log: bytes | None
    """What it wrote as its log; None for nothing."""
    said: bytes
    """What it and its runtime printed."""
    timeout_s: float
    """The time that it was given."""


def log_of(outcome: Outcome, job: Job, *, where: str) -> RunLog:
    """The run log of a job that was done; `where` names the device.

    Raises:
        MissingError: the runtime is not installed there.
        MeasurementError: the kit says that the job failed.
        DeviceError: the runtime crashed, the time was up, or the log is missing, cut short or of another job.
    """
    what, tail = _what(job, where), _tail(outcome.said)
    if outcome.code is None:
        raise DeviceError(
            f"no result after {outcome.timeout_s:g} s; the kit was stopped",
            where=what,
            hint="look for a graph that never ends or is far slower than expected",
        )
    if outcome.code < 0:
        _crashed(outcome.code, what, tail)
    if outcome.log is None:
        raise DeviceError(
            f"the kit ended with exit code {outcome.code} and left no log{tail}", where=what, hint=_AGAIN
        )
    log = _parse(outcome.log, what, tail)
    if outcome.code == NOT_INSTALLED:
        raise MissingError(
            log.error or f"{job.runtime} is not installed", where=what, hint=_python_hint(where)
        )
    if outcome.code != 0 or log.error is not None:
        raise MeasurementError(log.error or f"the kit ended with exit code {outcome.code}{tail}", where=what)
    names = [graph.name for graph in job.graphs]
    if (log.mode, log.runtime, [graph.name for graph in log.graphs]) != (job.mode, job.runtime, names):
        raise DeviceError("the result is the log of another job", where=what, hint="run it again")
    return log


def _python_hint(where: str) -> str:
    return (
        "edgekd doctor" if where == "local" else f"name the Python there that has it: '{where}?python=PATH'"
    )


def _parse(data: bytes, what: str, tail: str) -> RunLog:
    try:
        found = json.loads(data)
        if isinstance(found, dict):
            return RunLog.parse(found, where="log.json")
        problems = "a table is expected at the top"
    except DocumentError as error:
        problems = "; ".join(error.problems)
    except (ValueError, RecursionError) as error:
        problems = f"is not valid JSON: {error}"
    raise DeviceError(f"the result is truncated or no run log: {problems}{tail}", where=what, hint=_AGAIN)


def _crashed(code: int, what: str, tail: str) -> NoReturn:
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    killed = name == "SIGKILL"
    raise DeviceError(
        (f"the kit was killed ({name})" if killed else f"the runtime crashed ({name})") + tail,
        where=what,
        hint="look for a lack of memory: dmesg names what the kernel killed"
        if killed
        else "edgekd audit on the graph, and another version of the runtime",
    )


def _what(job: Job, where: str) -> str:
    """`local: latency of student fp32, student QAD int8`."""
    graphs = ", ".join(graph.name for graph in job.graphs)
    return f"{where}: {job.mode} of {graphs}" if graphs else f"{where}: {job.mode}"


def _tail(said: bytes) -> str:
    """The last lines that the kit and its runtime printed, to end a message with."""
    text = said[-TAIL_BYTES:].decode(errors="replace").strip()
    return f"; its last words:\n{text}" if text else ""
