"""Prediction against measurement: error, rank and coverage over networks, before and after calibrating.

    python benchmarks/prediction/run.py [GRAPHS]

Exports 14 networks with random weights in fp32 and int8 (calibrated on random examples: kernels do not look
at values) into the folder GRAPHS, unless they are there; measures each with the kit on ONNX Runtime, one
thread, one example, in three fresh processes (the latency while nothing disturbs it); calibrates this
machine; predicts each graph by generic efficiencies and by the calibration. Three turns of all of it. Writes
results.json, results.md and results.svg beside this file. About eight minutes on two quiet cores.

Networks of `SEEN` were looked at while the model was written; the figures are told for the others too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import list_profiles
from edgekd.documents.calibration import Calibration
from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Measuring
from edgekd.documents.scheme import Scheme
from edgekd.measure.latency import measure_latency
from edgekd.measure.prediction.calibrate import calibrate
from edgekd.measure.prediction.predict import predict, read_fused
from edgekd.measure.prediction.target import Target, machine_target, read_clock_mhz
from edgekd.networks.network import build_network
from edgekd.quantization.calibrate import calibrate as observe
from edgekd.quantization.prepare import prepare
from edgekd.stats import spearman

HERE = Path(__file__).parent
EXAMPLES, CONFIDENCE, OPSET, REPEATS, CALIBRATIONS = 8, 0.95, 21, 3, 3
MEASURING = Measuring(processes=3, warmup_s=0.1, max_warmup_s=0.5, min_time_s=0.2, min_samples=60)
SEEN = ("resnet20", "mobilenetv2", "vit")


@dataclass(frozen=True)
class Row:
    """A network with what it eats."""

    network: str
    shape: tuple[int, int, int] = (3, 32, 32)
    args: Mapping[str, Any] = field(default_factory=dict)


VIT = {"patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 3}
ROWS = {
    **{
        name: Row(name)
        for name in (
            *("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet8x4"),
            *("wrn-16-2", "mobilenetv2", "shufflenetv1", "shufflenetv2", "vgg8"),
        )
    },
    "ds-cnn": Row("ds-cnn", (1, 49, 10)),
    "vit": Row("timm:vit_tiny_patch16_224", (3, 32, 32), VIT),
}


def export(name: str, row: Row, folder: Path) -> None:
    """The graph in fp32, the graph in int8 as edgekd ships it, and examples."""
    if (folder / f"{name} int8.onnx").exists():
        return
    torch.manual_seed(0)
    network = build_network(
        row.network, in_channels=row.shape[0], num_classes=100, input_shape=row.shape, args=row.args
    ).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics as a trained network has them
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(EXAMPLES, *row.shape)
    np.save(folder / f"{name}.npy", x.numpy())
    channels = row.shape[0]
    spec = InputSpec(
        shape=row.shape, layout="NCHW", raw_dtype="float32", mean=(0.0,) * channels, std=(1.0,) * channels
    )
    export_fp32(network, spec, folder / f"{name} fp32.onnx", opset=OPSET)
    quantized = prepare(network, x, Scheme()).eval()
    observe(quantized, [x])
    quantized.set_fake_quantizing(True)
    export_int8(quantized, spec, folder / "canonical.onnx", opset=OPSET)
    canonical = read_graph(folder / "canonical.onnx")
    write_graph(to_dialect(canonical, "onnxruntime-u8"), folder / f"{name} int8.onnx")


def measure(name: str, folder: Path) -> dict[str, float]:
    """Latency of both graphs of a network in milliseconds while nothing disturbs it."""
    graphs = {f"{name} {kind}": folder / f"{name} {kind}.onnx" for kind in ("fp32", "int8")}
    result = measure_latency(
        LocalDevice(),
        graphs,
        runtime="onnxruntime",
        inputs=folder / f"{name}.npy",
        measuring=MEASURING,
        confidence=CONFIDENCE,
        cold_starts=0,
    )
    return {graph: (one.quiet or one.p50).value_ms for graph, one in result.latencies.items()}


def targets(calibrations: Sequence[Calibration]) -> dict[str, list[Target]]:
    """The machine at hand by generic efficiencies, and by each calibration."""
    facts = LocalDevice().facts("onnxruntime")
    profiles = [one.profile for one in list_profiles() if one.profile is not None]

    def target(calibration: Calibration | None) -> Target:
        return machine_target(
            facts, 1, calibration=calibration, profiles=profiles, clock_mhz=read_clock_mhz()
        )

    return {"generic": [target(None)], "calibrated": [target(one) for one in calibrations]}


def judged(rows: Sequence[Mapping[str, Any]], method: str) -> dict[str, float]:
    """Error, rank correlation and coverage of one method over some graphs."""
    measured = [row["measured_ms"] for row in rows]
    mid = [row[method]["mid_ms"] for row in rows]
    inside = [row[method]["low_ms"] <= row["measured_ms"] <= row[method]["high_ms"] for row in rows]
    errors = [abs(guess / truth - 1) for guess, truth in zip(mid, measured, strict=True)]
    factors = [max(guess / truth, truth / guess) for guess, truth in zip(mid, measured, strict=True)]
    return {
        "graphs": len(rows),
        "median_absolute_percentage_error": median(errors),
        "median_ratio": median(guess / truth for guess, truth in zip(mid, measured, strict=True)),
        "spearman": spearman(mid, measured),
        "coverage": sum(inside) / len(rows),
        "factor_that_covers_90_percent": sorted(factors)[max(0, int(np.ceil(0.9 * len(factors))) - 1)],
    }


def main(folder: Path) -> None:
    """Everything, and the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, row in ROWS.items():
        export(name, row, folder)
    load_before = os.getloadavg()
    calibrations: list[Calibration] = []
    runs: list[dict[str, float]] = []
    for turn in range(REPEATS):
        calibrations += [calibrate(LocalDevice())] if turn < CALIBRATIONS else []
        runs.append({graph: ms for name in ROWS for graph, ms in measure(name, folder).items()})
        print(f"turn {turn + 1} of {REPEATS}, load {os.getloadavg()[0]:.1f}", flush=True)
    found = {"load_average": [load_before[0], os.getloadavg()[0]], **results(folder, runs, calibrations)}
    (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (HERE / "results.md").write_text(report(found))
    plot(found, HERE / "results.svg")
    print(report(found))


def results(
    folder: Path, runs: Sequence[Mapping[str, float]], calibrations: Sequence[Calibration]
) -> dict[str, Any]:
    """All rows: the median of the runs, and of the predictions by each calibration."""
    by_method = targets(calibrations)
    rows = []
    for graph in runs[0]:
        fused = read_fused(folder / f"{graph}.onnx", "onnxruntime")
        row: dict[str, Any] = {
            "graph": graph,
            "seen": graph.split()[0] in SEEN,
            "measured_ms": median(run[graph] for run in runs),
            "runs_ms": [run[graph] for run in runs],
            "missing_ops": fused.missing,
        }
        for method, of_method in by_method.items():
            made = sorted((predict(fused, target) for target in of_method), key=lambda one: one.mid_ms)
            row["mmacs"] = made[0].macs / 1e6
            row[method] = {key: getattr(made[len(made) // 2], key) for key in ("low_ms", "mid_ms", "high_ms")}
            row[method] |= {"text": made[len(made) // 2].text, "all_mid_ms": [one.mid_ms for one in made]}
        rows.append(row)
    groups = {
        "all": rows,
        "not seen while it was written": [row for row in rows if not row["seen"]],
        "fp32": [row for row in rows if row["graph"].endswith("fp32")],
        "int8": [row for row in rows if row["graph"].endswith("int8")],
    }
    return {
        "key": calibrations[0].key.model_dump(mode="json"),
        "generic_notes": by_method["generic"][0].notes,
        "judged": {
            group: {method: judged(members, method) for method in by_method}
            for group, members in groups.items()
        },
        "macs_alone": spearman([row["mmacs"] for row in rows], [row["measured_ms"] for row in rows]),
        "rows": rows,
        "calibrations": [json.loads(one.to_json()) for one in calibrations],
    }


def report(found: Mapping[str, Any]) -> str:
    """The tables, in Markdown."""
    key = found["key"]
    before, after = found["load_average"]
    lines = [
        "# Predicted against measured latency on ONNX Runtime, one thread, one example",
        "",
        f"{key['processor']}, ONNX Runtime {key['runtime_version']}; load average {before:.1f} before and "
        f"{after:.1f} after, of other work on the same two cores. Measured is the latency while nothing "
        f"disturbs it, the median of {REPEATS} turns; predicted is the median by {CALIBRATIONS} "
        "calibrations; see run.py.",
        "",
        "| graphs | method | number | median error | median of predicted / measured | Spearman | in the "
        "interval | factor that holds 90 % |",
        f"|{'---|' * 8}",
    ]
    for group, methods in found["judged"].items():
        for method, one in methods.items():
            lines.append(
                f"| {group} | {method} | {one['graphs']} | {one['median_absolute_percentage_error']:.0%} | "
                f"{one['median_ratio']:.2f} | {one['spearman']:.3f} | {one['coverage']:.0%} | "
                f"{one['factor_that_covers_90_percent']:.2f} |"
            )
    lines += [
        "",
        f"MACs alone rank with Spearman {found['macs_alone']:.3f}.",
        "",
        "| graph | MMACs | measured, ms | generic | calibrated | calibrated / measured |",
        f"|{'---|' * 6}",
    ]
    for row in sorted(found["rows"], key=lambda row: row["measured_ms"]):
        ratio = row["calibrated"]["mid_ms"] / row["measured_ms"]
        seen = " (seen)" if row["seen"] else ""
        lines.append(
            f"| {row['graph']}{seen} | {row['mmacs']:.2f} | {row['measured_ms']:.3f} | "
            f"{row['generic']['text']} | {row['calibrated']['text']} | {ratio:.2f} |"
        )
    lines += ["", *(f"Generic: {line}." for line in found["generic_notes"])]
    return "\n".join(lines) + "\n"


def plot(found: Mapping[str, Any], out: Path) -> None:
    """Predicted over measured, with the intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "edgekd"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.5), sharex=True, sharey=True, layout="constrained")
    for panel, method in zip(axes, ("generic", "calibrated"), strict=True):
        for kind, color in (("fp32", "tab:blue"), ("int8", "tab:orange")):
            rows = [row for row in found["rows"] if row["graph"].endswith(kind)]
            measured = [row["measured_ms"] for row in rows]
            mid = np.array([row[method]["mid_ms"] for row in rows])
            low, high = (np.array([row[method][key] for row in rows]) for key in ("low_ms", "high_ms"))
            panel.errorbar(measured, mid, (mid - low, high - mid), fmt="o", color=color, label=kind, ms=4)
        every = [row["measured_ms"] for row in found["rows"]]
        ends = (min(every) / 2, 2 * max(every))
        panel.plot(ends, ends, color="gray", lw=1)
        panel.set(xscale="log", yscale="log", xlabel="measured, ms", title=method)
    axes[0].set_ylabel("predicted, ms (est., not measured)")
    axes[0].legend(loc="upper left")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir()) / "edgekd-graphs")
