"""Figures of the measuring itself: the loop's own cost, the kit's size and start, what ssh adds and leaves.

    python benchmarks/latency/figures.py [--benches 200]

It starts an sshd of its own on loopback (tests/devices/sshd.py) and writes figures.json and figures.md here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.devices.local import LocalDevice
from edgekd.devices.open_device import open_device
from edgekd.documents.job import Job, JobGraph
from edgekd.documents.recipe import Measuring
from edgekd.measure.latency import measure_latency
from edgekd.shipped import shipped

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.devices.sshd import Sshd  # noqa: E402

MEASURING = Measuring()


def write_graph(folder: Path) -> tuple[Path, Path]:
    """Ten convolutions of 32 channels on 16 x 16, and inputs for it."""
    chance = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for layer in range(10):
        kernel = chance.standard_normal((32, 32 if layer else 3, 3, 3)).astype(np.float32) * 0.05
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes += [
            helper.make_node("Conv", [x, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]),
        ]
        x = f"r{layer}"
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["g"]),
        helper.make_node("Flatten", ["g"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])
    told = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 32])
    graph = helper.make_graph(nodes, "g", [given], [told], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "g.onnx"
    )
    np.save(folder / "x.npy", chance.standard_normal((16, 3, 16, 16)).astype(np.float32))
    return folder / "g.onnx", folder / "x.npy"


def loop_overhead_ns(graph: Path, inputs: Path) -> dict[str, float]:
    """Median and 99th percentile of an iteration of the loop around a runtime that does nothing."""
    job = Job(
        mode="latency",
        runtime="null",
        graphs=(JobGraph(name="g", path=str(graph)),),
        inputs=str(inputs),
        min_samples=200_000,
        min_time_s=0.0,
    )
    begun = time.perf_counter()
    log = LocalDevice().run(job, timeout_s=120)
    samples = np.asarray(log.graphs[0].latency_ns)
    return {
        "samples": len(samples),
        "timed_p50_ns": float(np.median(samples)),
        "timed_p99_ns": float(np.quantile(samples, 0.99)),
        "process_s": time.perf_counter() - begun,
    }


def whole_iteration_ns(kit: Path) -> float:
    """Time of the loop for one iteration, clock readings and bookkeeping included: the least of 20 blocks."""
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import timing\n"
        "best = 1e9\n"
        "for _ in range(20):\n"
        "    start = time.perf_counter_ns(); timing.time_block(lambda feed: feed, [1, 2, 3], 0, 10000)\n"
        "    best = min(best, (time.perf_counter_ns() - start) / 10000)\n"
        "print(best)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(kit)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def kit_figures(kit: Path) -> dict[str, float]:
    """Bytes of the kit's folder, and seconds that its own modules take to import."""
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import numpy; start = time.perf_counter()\n"
        "import run, facts, timing, environment, memory, feeds, runtimes\n"
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-B", "-c", program, str(kit)]
    seconds = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)
    ]
    files = [path for path in kit.rglob("*.py") if path.is_file()]
    return {
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "import_s": statistics.median(seconds),
    }


def bench_on(address: str, graph: Path, inputs: Path) -> tuple[float, float]:
    """Seconds of a whole bench at an address, and the quiet latency in ms that it found."""
    begun = time.perf_counter()
    with open_device(address) as device:
        found = measure_latency(
            device, {"g": graph}, runtime="onnxruntime", inputs=inputs, measuring=MEASURING, confidence=0.95
        )
    quiet = found.latencies["g"].quiet
    assert quiet is not None
    return time.perf_counter() - begun, quiet.value_ms


def ssh_against_local(address: str, graph: Path, inputs: Path, rounds: int) -> dict[str, float | list[float]]:
    """Benches in turns over ssh and on this machine."""
    pairs = [(bench_on(address, graph, inputs), bench_on("local", graph, inputs)) for _ in range(rounds)]
    ratios = [over_ssh[1] / local[1] for over_ssh, local in pairs]
    return {
        "rounds": rounds,
        "ssh_s": statistics.median(over_ssh[0] for over_ssh, _ in pairs),
        "local_s": statistics.median(local[0] for _, local in pairs),
        "added_s": statistics.median(over_ssh[0] - local[0] for over_ssh, local in pairs),
        "quiet_ratio": statistics.median(ratios),
        "quiet_ratios": ratios,
    }


def held() -> dict[str, int]:
    """Descriptors of this process, processes of a kit or of ssh, files of edgekd in the temporary folder."""
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    ours = (b"kit/run.py", b"supervisor.py", b"board.py", b"edgekd-ssh-")
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": sum(any(mark in line for mark in ours) for line in lines),
        "files": len(list(Path(tempfile.gettempdir()).glob("edgekd-*"))),
    }


def left_behind(address: str, graph: Path, inputs: Path, benches: int, board: Path) -> dict[str, object]:
    """What many short benches leave, half of them over ssh."""
    measuring = MEASURING.model_copy(update={"processes": 2, "min_time_s": 0.01, "min_samples": 64})
    before = held()
    for number in range(benches):
        with open_device(address if number % 2 else "local") as device:
            measure_latency(
                device,
                {"g": graph},
                runtime="onnxruntime",
                inputs=inputs,
                measuring=measuring.model_copy(update={"warmup_s": 0.01, "max_warmup_s": 0.02}),
                confidence=0.95,
                cold_starts=0,
            )
    jobs = [str(path) for path in (board / "jobs").iterdir()]
    return {"benches": benches, "before": before, "after": held(), "jobs_on_the_board": len(jobs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benches", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    kit = shipped("export", "kit")
    with tempfile.TemporaryDirectory(prefix="figures-") as name:
        folder = Path(name)
        graph, inputs = write_graph(folder)
        sshd = Sshd(folder)
        sshd.start()
        os.environ["EDGEKD_SSH"] = sshd.command
        address = f"{sshd.address}?python={sys.executable}&folder={folder}/board"
        found = {
            "load1_before": os.getloadavg()[0],
            "loop": loop_overhead_ns(graph, inputs) | {"whole_iteration_ns": whole_iteration_ns(kit)},
            "kit": kit_figures(kit),
            "ssh": ssh_against_local(address, graph, inputs, asked.rounds),
            "left": left_behind(address, graph, inputs, asked.benches, folder / "board"),
            "machine": LocalDevice().facts("onnxruntime").model_dump(mode="json"),
            "versions": {"python": platform.python_version(), "onnxruntime": metadata.version("onnxruntime")},
        }
        sshd.stop()
    (HERE / "figures.json").write_text(json.dumps(found, indent=2) + "\n")
    (HERE / "figures.md").write_text(to_markdown(found))
    print(to_markdown(found))


def to_markdown(found: dict) -> str:
    loop, kit, ssh, left = (found[name] for name in ("loop", "kit", "ssh", "left"))
    rows = [
        ("the loop around a runtime that does nothing, as a sample, p50", f"{loop['timed_p50_ns']:.0f} ns"),
        ("the same, p99", f"{loop['timed_p99_ns']:.0f} ns"),
        (
            "a whole iteration, clock readings and bookkeeping included",
            f"{loop['whole_iteration_ns']:.0f} ns",
        ),
        ("the kit", f"{kit['bytes'] / 1000:.0f} kB in {kit['files']} files"),
        ("import of its modules beside numpy, median of 5", f"{1000 * kit['import_s']:.0f} ms"),
        (f"a bench over ssh to loopback, median of {ssh['rounds']}", f"{ssh['ssh_s']:.1f} s"),
        ("the same on this machine, in turns", f"{ssh['local_s']:.1f} s"),
        ("what ssh adds", f"{ssh['added_s']:.1f} s"),
        ("quiet latency over ssh over local", ", ".join(f"{ratio:.3f}" for ratio in ssh["quiet_ratios"])),
        (f"descriptors before and after {left['benches']} benches", _change(left, "descriptors")),
        ("processes of a kit, a supervisor or ssh", _change(left, "processes")),
        ("temporary files", _change(left, "files")),
        ("jobs left on the board", str(left["jobs_on_the_board"])),
    ]
    machine = found["machine"]
    lines = [f"| {what} | {value} |" for what, value in rows]
    return "\n".join(
        [
            "# Figures of the measuring itself\n",
            "| what | value |",
            "| --- | --- |",
            *lines,
            "",
            f"{machine['cpu']}, {machine['cores']} processors, load {found['load1_before']:.1f} before; "
            f"Python {found['versions']['python']}, onnxruntime {found['versions']['onnxruntime']}.",
            "",
        ]
    )


def _change(left: dict, name: str) -> str:
    return f"{left['before'][name]}, {left['after'][name]}"


if __name__ == "__main__":
    main()
