"""Graphs that are made in a line, a device that answers from a small model of latencies, and a listener."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from edgekd.documents.job import Job
from edgekd.documents.recipe import Measuring
from edgekd.documents.run_log import Facts, RunLog
from edgekd.errors import EdgekdError
from edgekd.files import sha256_file

FACTS = {
    "machine": "aarch64",
    "system": "Linux 6.6",
    "cpu": "Cortex-A76",
    "isa": ["asimddp"],
    "cores": 4,
    "memory_bytes": 2**32,
    "governor": "performance",
    "versions": {"python": "3.11.7", "onnxruntime": "1.31.1"},
}
MEASURING = Measuring(processes=3)
Input = tuple[str, int, list[object] | None]
X: Input = ("x", onnx.TensorProto.FLOAT, ["N", 4])


def write_graph(path: Path, *inputs: Input, seed: int = 0) -> Path:
    """A graph that adds a constant to its first input; the constant's values are the seed."""
    inputs = inputs or (X,)
    first, dtype, shape = inputs[0]
    one = helper.make_tensor("one", dtype, [], [seed])
    graph = helper.make_graph(
        [helper.make_node("Add", [first, "one"], ["y"])],
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info("y", dtype, shape)],
        [one],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


class FakeDevice:
    """Takes `taken_us` for an inference of each graph, give or take noise; notes its jobs."""

    def __init__(self, name: str = "local", taken_us: float = 1000.0) -> None:
        self.name = name
        self.taken_us = taken_us
        self.jobs: list[Job] = []
        self.facts_asked = 0
        self.closed = False
        self.conditions: dict[str, object] | None = None
        self.versions = FACTS["versions"]
        self.fails: Callable[[Job], EdgekdError | KeyboardInterrupt | None] = lambda job: None

    def close(self) -> None:
        self.closed = True

    def facts(self, runtime: str) -> Facts:
        self.facts_asked += 1
        return Facts.model_validate({**FACTS, "versions": self.versions})

    def run(self, job: Job, *, timeout_s: float) -> RunLog:
        error = self.fails(job)
        if error is not None:
            raise error
        self.jobs.append(job)
        return RunLog.parse({"schema": 1, **self._log(job), **_outputs(job)}, where="fake")

    def _log(self, job: Job) -> dict[str, object]:
        graphs = [{"name": graph.name, "load_ns": 5_000_000, "first_ns": 2_000_000} for graph in job.graphs]
        for graph in graphs:
            graph.update(self._timed(job, str(graph["name"])))
        cold = {"import_ns": 1, "process_ns": 300_000_000} if job.mode == "cold" else {}
        memory = {"peak_rss_bytes": 64 * 2**20, "start_rss_bytes": 60 * 2**20}
        facts = {**FACTS, "versions": self.versions}
        return {
            "mode": job.mode,
            "runtime": job.runtime,
            "facts": facts,
            "conditions": self.conditions,
            "graphs": graphs,
            "memory": memory,
            "energy": {"joules": None, "reason": "no energy counter"},
            **cold,
        }

    def _timed(self, job: Job, name: str) -> dict[str, object]:
        if job.mode == "cold":
            return {}
        chance = np.random.default_rng([job.seed, len(name), job.threads])
        of_graph = self.taken_us * 1e3 * (1.5 if name.startswith("slow") else 1.0)
        taken = (of_graph * chance.lognormal(0, 0.01, 200)).astype(int).tolist()
        warm = {"warmup_ns": 1, "warmup_converged": True, "latency_ns": taken}
        if job.mode == "latency":
            return {**warm, "block_of_sample": [index // 20 for index in range(200)]}
        at = np.linspace(0, job.duration_s * 1e9, 200, endpoint=False).astype(int).tolist()
        return {**warm, "at_ns": at, "inferences": 400, "late": 3 if job.mode == "paced" else 0}


def _outputs(job: Job) -> dict[str, str]:
    """Inputs as logits: the answer is the place of the largest input."""
    if job.mode != "outputs":
        return {}
    Path(str(job.outputs)).write_bytes(Path(str(job.inputs)).read_bytes())
    return {"outputs_sha256": sha256_file(Path(str(job.outputs)))}


class Listener:
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.jobs = 0

    def started(self, setting, jobs):
        self.heard.append(("started", setting.graph, setting.device, setting.threads, jobs))

    def job_done(self, setting):
        self.jobs += 1

    def finished(self, setting, error):
        self.heard.append(("finished", setting.graph, setting.device, setting.threads, error))

    def event(self, text):
        self.heard.append(("event", text))
