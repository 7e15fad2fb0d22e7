"""int8 over fp32 on the kernels of processors without VNNI, which ONNX Runtime is made to take on this one.

    python benchmarks/int8/without_vnni.py OUT.json

Three ways to give a student with 8-bit weights to such a processor: int8 weights, whose products saturate
(those of `reduce_range` do not, and take the same time); uint8 weights, which are exact; or fp32. Latency
is that of one thread and one example, the graphs taking turns in one process, in three runs: its p10, which
other work on the machine hardly moves. The instruction sets are hidden by
tests/conversion/avx2/hide.c, which takes Linux on x86-64, CPUID faulting and a C compiler. A processor that
has AVX2 alone may have other clocks and caches: the order carries over, not the digits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.devices.local import LocalDevice
from edgekd.documents.common import InputSpec
from edgekd.networks.network import build_network
from edgekd.pipeline.provenance import versions
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session

NETWORKS = ("resnet20", "wrn-16-2", "mobilenetv2")
PROCESSORS = {"as it is": None, "AVX-512 without VNNI": "vnni", "AVX2": "avx512"}
SHAPE, CLASSES, REPEATS = (3, 32, 32), 100, 3
ROUNDS, IN_A_ROW = 60, 6
HIDE = Path(__file__).parents[2] / "tests" / "conversion" / "avx2" / "hide.c"
INPUT = InputSpec(
    name="input", shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3
)


def export(name: str, folder: Path) -> None:
    """fp32, int8 weights and uint8 weights of a network with random weights and calibrated scales."""
    torch.manual_seed(0)
    network = build_network(name, in_channels=3, num_classes=CLASSES, input_shape=SHAPE).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics as a trained network has them
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(64, *SHAPE)
    export_fp32(network, INPUT, folder / f"{name}.fp32.onnx", opset=21)
    quantized = prepare(network, x[:1])
    calibrate(quantized, [x])
    quantized.set_fake_quantizing(True)
    canonical = folder / f"{name}.onnx"
    export_int8(quantized.eval(), INPUT, canonical, opset=21)
    for dialect in ("onnxruntime-u8", "onnxruntime-u8u8"):
        onnx.save(to_dialect(read_graph(canonical), dialect), folder / f"{name}.{dialect}.onnx")


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds (p10) of every graph in a folder, those of one network taking turns."""
    random, found = np.random.default_rng(0), {}
    x = random.normal(size=(1, *SHAPE)).astype(np.float32)
    for name in NETWORKS:
        paths = {
            path.name.removeprefix(f"{name}.").removesuffix(".onnx"): path
            for path in folder.glob(f"{name}.*.onnx")
        }
        sessions = {key: open_session(read_graph(path)) for key, path in paths.items()}
        times: dict[str, list[float]] = {key: [] for key in sessions}
        for _ in range(ROUNDS):
            for key in random.permutation(list(sessions)):
                sessions[key].run(None, {"input": x})
                for _ in range(IN_A_ROW):
                    start = time.perf_counter_ns()
                    sessions[key].run(None, {"input": x})
                    times[key].append((time.perf_counter_ns() - start) / 1e6)
        found[name] = {key: float(np.quantile(values, 0.1)) for key, values in times.items()}
    return found


def on(hidden: str | None, library: Path, folder: Path) -> dict[str, dict[str, float]]:
    """`measure` in a process of its own that does not see some instruction sets."""
    extra = {} if hidden is None else {"LD_PRELOAD": str(library), "HIDE": hidden}
    command = [sys.executable, __file__, "--measure", str(folder)]
    done = subprocess.run(command, env={**os.environ, **extra}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "hide.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HIDE)], check=True)
        for network in NETWORKS:
            export(network, folder)
        p10_ms = {
            processor: [on(hidden, library, folder) for _ in range(REPEATS)]
            for processor, hidden in PROCESSORS.items()
        }
    over_fp32 = {
        processor: {
            network: {
                key: [round(run[network][key] / run[network]["fp32"], 3) for run in runs]
                for key in ("onnxruntime-u8", "onnxruntime-u8u8")
            }
            for network in NETWORKS
        }
        for processor, runs in p10_ms.items()
    }
    facts = LocalDevice().facts("onnxruntime").model_dump(mode="json")
    result = {"over_fp32": over_fp32, "p10_ms": p10_ms, "machine": facts, "versions": versions().model_dump()}
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(over_fp32, indent=2))


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
