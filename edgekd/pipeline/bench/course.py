"""The samples of a setting in the order in which they were taken, for plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.documents.run_log import GraphLog, RunLog


@dataclass(frozen=True)
class Course:
    """Latencies over time."""

    label: str
    """The setting, and the phase if it is a long one."""
    phase: str
    """`sustained` or `paced`; empty for short processes one after another."""
    at_s: npt.NDArray[np.float64]
    """Seconds since the first one; the time between processes is left out."""
    taken_ms: npt.NDArray[np.float64]
    """Latencies."""


def courses_of(label: str, logs: Sequence[RunLog]) -> tuple[Course, ...]:
    """The courses of a setting's logs: short processes one after another, and each long phase."""
    short = [log.graphs[0] for log in logs if log.mode == "latency" and len(log.graphs) == 1]
    long = [(log.mode, log.graphs[0]) for log in logs if log.mode in ("sustained", "paced")]
    found = [_of_processes(label, short)] if short else []
    return (*found, *(_of_phase(label, mode, graph) for mode, graph in long))


def _of_processes(label: str, graphs: Sequence[GraphLog]) -> Course:
    taken_ns = np.concatenate([np.asarray(graph.latency_ns, dtype=np.float64) for graph in graphs])
    ended_s = np.cumsum(taken_ns) / 1e9
    return Course(label, "", ended_s - taken_ns / 1e9, taken_ns / 1e6)


def _of_phase(label: str, phase: str, graph: GraphLog) -> Course:
    taken_ns = np.asarray(graph.latency_ns, dtype=np.float64)
    return Course(f"{label}, {phase}", phase, np.asarray(graph.at_ns, dtype=np.float64) / 1e9, taken_ns / 1e6)
