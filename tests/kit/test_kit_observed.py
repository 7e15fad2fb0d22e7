"""What the kit's logs say of memory, energy and the environment, in each mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgekd.documents.job import Job
from edgekd.documents.run_log import RunLog
from edgekd.shipped import shipped

KIT = shipped("export", "kit")
WIDTH = 1024
SMALL = {"warmup_s": 0.01, "max_warmup_s": 0.05, "min_time_s": 0.02, "min_samples": 40, "duration_s": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A graph with 4 MiB of weights, and inputs."""
    folder = tmp_path_factory.mktemp("observed")
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,{WIDTH}] input) => (float[N,{WIDTH}] logits) {{ logits = MatMul(input, W) }}
    """
    model = parser.parse_model(text)
    weights = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "W"))
    onnx.save(model, folder / "g.onnx")
    np.save(folder / "x.npy", np.ones((4, WIDTH), np.float32))
    return folder


def run(folder: Path, mode: str, graphs: int = 1, **changes) -> RunLog:
    whole = {
        "mode": mode,
        "runtime": "onnxruntime",
        "graphs": [{"name": f"g{number}", "path": str(folder / "g.onnx")} for number in range(graphs)],
        "inputs": str(folder / "x.npy"),
        **SMALL,
        **changes,
    }
    Job.parse({"schema": 1, **whole}, where="test").write(folder / "job.json")
    command = [sys.executable, "-B", str(KIT / "run.py"), str(folder / "job.json"), str(folder / "log.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    log = RunLog.read(folder / "log.json")
    assert (done.returncode, log.error, done.stdout + done.stderr) == (0, None, "")
    return log


@pytest.mark.parametrize("mode", ["latency", "sustained", "paced", "cold"])
def test_memory_of_the_graph(folder, mode):
    memory = run(folder, mode).memory
    held = memory.peak_rss_bytes - memory.start_rss_bytes
    assert 4 * WIDTH * WIDTH < held < 400e6  # the weights at least
    assert memory.start_rss_bytes > 10e6  # the interpreter, numpy and the runtime
    assert memory.device_bytes is None


@pytest.mark.parametrize("mode", ["latency", "sustained", "paced"])
def test_energy_is_a_figure_or_a_reason(folder, mode):
    energy = run(folder, mode).energy
    assert (energy.joules is None) == (energy.reason is not None)
    assert energy.joules is None or (energy.joules > 0 and energy.source)


def test_energy_of_graphs_that_take_turns(folder):
    energy = run(folder, "latency", graphs=2).energy
    assert energy.reason == "2 graphs took turns: energy is read where one runs alone"


@pytest.mark.parametrize("mode", ["latency", "sustained", "paced"])
def test_conditions(folder, mode):
    conditions = run(folder, mode).conditions
    assert conditions.seconds > 0.02
    assert abs(conditions.clock_jump_s) < 60
    assert conditions.involuntary_switches is not None
    assert conditions.load1 == pytest.approx(os.getloadavg()[0], abs=5)


def test_a_cold_start_and_the_facts_watch_nothing(folder):
    log = run(folder, "cold")
    assert (log.conditions, log.energy) == (None, None)


def test_a_log_of_an_older_kit_is_read(folder):
    log = json.loads(run(folder, "latency").to_json())
    for key in ("memory", "energy"):
        del log[key]
    log["conditions"] = {"load1": 0.5, "steal_fraction": 0.0, "throttled": False}
    for key in ("cpu_max_mhz", "turbo", "smt", "power_mode", "container"):
        del log["facts"][key]
    old = RunLog.parse(log, where="test")
    assert (old.conditions.clock, old.conditions.samples, old.memory) == (None, (), None)
