"""OpenVINO's own package against ONNX Runtime's CPU provider on edgekd's graphs, side by side.

    python benchmarks/runtimes/openvino.py graphs FOLDER            (needs edgekd[train])
    python benchmarks/runtimes/openvino.py measure FOLDER OUT.json  (needs openvino)

The networks and their graphs are those of benchmarks/int8/speed.py: random weights, the fp32 graph and the
int8 graph that edgekd ships to ONNX Runtime. Both runtimes run each graph through the kit, in processes that
take turns, one thread, one example. A ratio is that of the p50 of two neighboring processes; n is the number
of samples behind one runtime's column.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgekd.devices.local import LocalDevice
from edgekd.documents.job import Job
from edgekd.runtimes.onnxruntime import machine_isa

NETWORKS = ("WRN-16-2", "ResNet-20", "MobileNetV2", "MobileNetV2 at 128x128")
FORMS = ("fp32", "int8")
RUNTIMES = ("onnxruntime", "openvino")
ROUNDS = 3


def write_graphs(folder: Path) -> None:
    """Export every network into a folder of its own."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "int8"))
    from speed import ROWS, export

    for name in NETWORKS:
        (folder / name).mkdir(parents=True)
        export(ROWS[name], folder / name)


def run(runtime: str, graph: Path, mode: str, **changes: object) -> Any:
    job = {
        "schema": 1,
        "mode": mode,
        "runtime": runtime,
        "graphs": [{"name": graph.stem, "path": str(graph)}],
        "inputs": str(graph.with_name("inputs.npy")),
        "warmup_s": 0.2,
        "min_time_s": 0.4,
        "min_samples": 200,
        **changes,
    }
    return LocalDevice().run(Job.parse(job, where="benchmark"), timeout_s=300)


def difference(graph: Path) -> float:
    """Mean difference of the two runtimes' logits, in standard deviations of the logits."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for runtime in RUNTIMES:
            run(runtime, graph, "outputs", outputs=f"{folder}/{runtime}.npy")
            found.append(np.load(f"{folder}/{runtime}.npy"))
    return float(np.abs(found[0] - found[1]).mean() / found[0].std())


def measure(graph: Path) -> dict[str, Any]:
    """Medians in milliseconds of each runtime, a value a round, and the rounds' ratios."""
    p50_ms: dict[str, list[float]] = {name: [] for name in RUNTIMES}
    count = 0
    for number in range(ROUNDS):
        for runtime in RUNTIMES if number % 2 else RUNTIMES[::-1]:
            latency_ns = run(runtime, graph, "latency").graphs[0].latency_ns
            p50_ms[runtime].append(median(latency_ns) / 1e6)
            count += len(latency_ns) if runtime == "openvino" else 0
    pairs = zip(p50_ms["openvino"], p50_ms["onnxruntime"], strict=True)
    ratios = [mine / other for mine, other in pairs]
    return {"p50_ms": p50_ms, "ratios": ratios, "n": count, "logit_difference": difference(graph)}


def table(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in sorted(result["versions"].items()))
    columns = ("network, 32x32 unless said", "graph", "onnxruntime, ms", "openvino, ms")
    columns += ("openvino / onnxruntime", "n", "logits differ by")
    lines = [
        "# OpenVINO over ONNX Runtime's CPU provider, one thread, one example, p50",
        "",
        f"{result['isa']}; {versions}; load average {result['load1']:.1f} on {result['cores']} cores. "
        f"Median of {ROUNDS} rounds (lowest to highest); above 1, OpenVINO is slower. See openvino.py.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for row in result["rows"]:
        times = [f"{median(row['p50_ms'][name]):.3f}" for name in RUNTIMES]
        ratios = row["ratios"]
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cells = [
            row["network"],
            row["graph"],
            *times,
            ratio,
            str(row["n"]),
            f"{row['logit_difference']:.4f} sd",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "graphs":
        write_graphs(folder)
        return
    load1, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    rows = [
        {"network": name, "graph": form, **measure(folder / name / f"{form}.onnx")}
        for name in NETWORKS
        for form in FORMS
    ]
    found = [run(name, folder / NETWORKS[0] / "fp32.onnx", "cold").facts.versions for name in RUNTIMES]
    versions = {**found[0], **found[1]}
    result = {"isa": machine_isa(), "versions": versions, "load1": load1, "cores": cores, "rows": rows}
    out = Path(sys.argv[3])
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
