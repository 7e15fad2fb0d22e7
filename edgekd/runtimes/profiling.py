"""Where the time of a graph goes on ONNX Runtime, by the runtime's own profiler.

Graphs that are compared are profiled in turns, in one process with a private folder
(edgekd/runtimes/onnxruntime_worker.py). The profiler costs about a microsecond a node and rounds to
microseconds, so its figures are for shares; latency is measured by the kit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edgekd.errors import MeasurementError
from edgekd.runtimes.worker import start

TIMEOUT_S = 120.0
"""Longest time that a profile may take."""
MOST_RUNS = 50
_MOST_EVENTS = 60_000
"""Of one graph: the profiler writes some 600 bytes for each."""
_WORKER = "edgekd.runtimes.onnxruntime_worker"


@dataclass(frozen=True)
class KernelTimes:
    """Profiled time of the nodes of one graph.

    Attributes:
        names: name and type of each node that ran.
        us_NR: microseconds of each node in each run.
    """

    names: tuple[tuple[str, str], ...]
    us_NR: npt.NDArray[np.int64]

    @property
    def runs(self) -> int:
        """Number of runs."""
        return int(self.us_NR.shape[1])

    @property
    def total_us(self) -> float:
        """Time of all kernels in one run, median over the runs."""
        return float(np.median(self.us_NR.sum(axis=0))) if self.names else 0.0

    def node_us(self, name: str, kind: str) -> float | None:
        """Time of a node in one run, mean over the middle half of its runs; None when it did not run."""
        row = self._rows.get((name, kind))
        return None if row is None else middle_mean(self.us_NR[row])

    @cached_property
    def _rows(self) -> dict[tuple[str, str], int]:
        return {key: row for row, key in enumerate(self.names)}


def middle_mean(values: npt.NDArray[np.int64]) -> float:
    """Mean of the middle half: as robust as a median, and finer than whole microseconds."""
    ordered = np.sort(values)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def profile(
    graphs: Mapping[str, onnx.ModelProto], inputs: npt.NDArray[np.generic], *, threads: int = 1
) -> Mapping[str, KernelTimes]:
    """Profile graphs side by side, on one batch for their one input.

    Raises:
        MeasurementError: a graph cannot be loaded or run, crashes the runtime, or does not end.
    """
    nodes = max(len(model.graph.node) for model in graphs.values())
    with tempfile.TemporaryDirectory(prefix="edgekd-profile-") as name:
        folder = Path(name)
        for stem, model in graphs.items():
            (folder / f"{stem}.onnx").write_bytes(model.SerializeToString())
        np.save(folder / "inputs.npy", inputs)
        job = {
            "graphs": {stem: str(folder / f"{stem}.onnx") for stem in graphs},
            "inputs": str(folder / "inputs.npy"),
            "threads": threads,
            "most_runs": max(1, min(MOST_RUNS, _MOST_EVENTS // max(1, nodes))),
            "folder": str(folder),
            "result": str(folder / "result.json"),
        }
        failure = start(_WORKER, job, timeout_s=TIMEOUT_S)
        if not (folder / "result.json").is_file():
            raise MeasurementError(f"the profiler {'; '.join(failure)}")
        result = json.loads((folder / "result.json").read_text())
    if "error" in result:
        raise MeasurementError(f"ONNX Runtime cannot run it: {result['error']}")
    return {stem: _times(result["graphs"][stem], result["runs"]) for stem in graphs}


def _times(rows: list[tuple[str, str, list[int]]], runs: int) -> KernelTimes:
    names = tuple((name, kind) for name, kind, _ in rows)
    us_NR = np.array([times for _, _, times in rows], dtype=np.int64).reshape(len(rows), -1)
    return KernelTimes(names, us_NR if rows else np.zeros((0, runs), np.int64))
