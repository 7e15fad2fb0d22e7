"""Profile graphs with ONNX Runtime, in turns, in a process of its own: raw kernel times, run by run.

ONNX Runtime is native code that runs a graph of somebody's: it may crash, or never end. The host writes a job
as JSON to this program's standard input and finds the result as JSON in the file that the job names; see
edgekd/runtimes/profiling.py.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# From 1.29 on its wheels report usage over the network unless this is set before they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

WARMUP_RUNS = 5
LEAST_RUNS = 5
BUDGET_S = 1.5
"""Time that the runs of all graphs together may take, where LEAST_RUNS do not take longer."""
_HOLDS_OTHERS = ("If", "Loop", "Scan")
"""Operators whose time is that of the nodes inside them."""
_KERNEL = "_kernel_time"
_FATAL = 4


def main() -> int:
    """Do the job on standard input."""
    job = json.load(sys.stdin)
    try:
        result = work(job)
    except Exception as error:  # the runtime's exceptions have no common parent; the host tells the user
        result = {"error": re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", " ".join(str(error).split()))}
    Path(job["result"]).write_text(json.dumps(result))
    return 0


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Profile the graphs of a job.

    The job has `graphs` (name to an ONNX file with its weights), `inputs` (a .npy of one batch for their one
    input), `threads`, `most_runs` and `folder` (a private one, for the profiler's files). The result has
    `runs` and for each graph a list of `[node name, operator type, microseconds of each run]`.
    """
    x: npt.NDArray[Any] = np.load(job["inputs"], allow_pickle=False)
    sessions = {name: _session(name, path, job) for name, path in job["graphs"].items()}
    feeds = {name: {session.get_inputs()[0].name: x} for name, session in sessions.items()}
    runs = _runs(sessions, feeds, job["most_runs"])
    for _ in range(runs):
        for name, session in sessions.items():
            session.run(None, feeds[name])
    files = {name: session.end_profiling() for name, session in sessions.items()}
    graphs = {name: _kernels(json.loads(Path(file).read_bytes()), runs) for name, file in files.items()}
    return {"runs": runs, "graphs": graphs}


def _session(name: str, path: str, job: Mapping[str, Any]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(job["folder"]) / name)
    # Bytes, not the path: a graph shall not send the runtime to files of its own choice.
    data = Path(path).read_bytes()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _runs(sessions: Mapping[str, Any], feeds: Mapping[str, Any], most: int) -> int:
    """Warm up, and say how many runs the budget of time allows."""
    begun = time.perf_counter()
    for _ in range(WARMUP_RUNS):
        for name, session in sessions.items():
            session.run(None, feeds[name])
    round_s = (time.perf_counter() - begun) / WARMUP_RUNS
    return max(LEAST_RUNS, min(most, int(BUDGET_S / max(round_s, 1e-6))))


def _kernels(events: list[dict[str, Any]], runs: int) -> list[tuple[str, str, list[int]]]:
    """Microseconds of each node in each of the last `runs` runs; 0 where it did not run."""
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")[-runs:]
    found: dict[tuple[str, str], list[int]] = {}
    for event in events:
        name = event.get("name", "")
        kind = event.get("args", {}).get("op_name", "")
        if event.get("cat") != "Node" or not name.endswith(_KERNEL) or kind in _HOLDS_OTHERS:
            continue
        run = int(np.searchsorted(starts, event["ts"], side="right")) - 1
        if run >= 0:
            found.setdefault((name.removesuffix(_KERNEL), kind), [0] * len(starts))[run] += event["dur"]
    return [(name, kind, times) for (name, kind), times in found.items()]


if __name__ == "__main__":
    sys.exit(main())
