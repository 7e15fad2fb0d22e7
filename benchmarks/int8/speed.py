"""int8 over fp32: what each form of the graph is worth, side by side, on ONNX Runtime.

    python benchmarks/int8/speed.py [OUT.json [NETWORK ...]]

Writes OUT.json and the table OUT.md. Weights are random and so are the examples that they are calibrated on:
kernels do not look at values. Of each network five graphs take turns in the same processes, one thread, one
example, in three runs:

    fp32     its own, batch norm folded
    int8     what edgekd ships
    plain    the same with every rewrite of documents/rewrites.py off
    signed   TensorRT's form of it, which ONNX Runtime takes too
    static   onnxruntime's quantize_static: QDQ, U8S8, per channel, after its pre-processing

A ratio is that of medians of neighboring blocks; "as HardSwish" is the SiLU network quantized with
`silu_as_hard_swish`, over the fp32 graph with its own SiLU. About five minutes on two quiet cores.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import torch

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.devices.local import LocalDevice
from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Measuring
from edgekd.documents.rewrites import REWRITES
from edgekd.documents.scheme import Scheme
from edgekd.errors import ConversionError
from edgekd.measure.latency import measure_latency, ratio_of
from edgekd.networks.network import build_network
from edgekd.pipeline.provenance import versions
from edgekd.pipeline.quantize.static import quantize_statically
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import machine_isa, open_session

CLASSES, EXAMPLES, REPEATS, CONFIDENCE, OPSET = 100, 16, 3, 0.95, 21
MEASURING = Measuring(processes=3, warmup_s=0.1, max_warmup_s=0.5, min_time_s=0.2, min_samples=100)
PLAIN = {name: False for name, rewrite in REWRITES.items() if rewrite.measured}
VIT = {"patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 3}


@dataclass(frozen=True)
class Row:
    """A network, and the ratio to its own fp32 that is asked of its int8 graph."""

    network: str
    side: int
    target: float
    args: Mapping[str, Any] = field(default_factory=dict)
    rewrites: Mapping[str, bool] = field(default_factory=dict)


ROWS = {
    "WRN-16-2": Row("wrn-16-2", 32, 0.35),
    "ResNet-20": Row("resnet20", 32, 0.35),
    "MobileNetV2": Row("mobilenetv2", 32, 0.5),
    "MobileNetV2 at 128x128": Row("mobilenetv2", 128, 0.5),
    "MobileNetV2, SiLU": Row("mobilenetv2", 32, 0.8, {"activation": "silu"}),
    "MobileNetV2, SiLU as HardSwish": Row(
        "mobilenetv2", 32, 0.8, {"activation": "silu"}, {"silu_as_hard_swish": True}
    ),
    "MobileNetV2, HardSwish": Row("mobilenetv2", 32, 0.8, {"activation": "hardswish"}),
    "ViT, width 96, 4 layers": Row("timm:vit_tiny_patch16_224", 32, 0.75, VIT),
}


def export(row: Row, folder: Path) -> dict[str, Path]:
    """The five graphs of a network by name, and the examples in inputs.npy."""
    torch.manual_seed(0)
    shape = (3, row.side, row.side)
    network = build_network(
        row.network, in_channels=3, num_classes=CLASSES, input_shape=shape, args=row.args
    ).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics as a trained network has them
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(EXAMPLES, *shape)
    np.save(folder / "inputs.npy", x.numpy())
    spec = InputSpec(shape=shape, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)
    paths = {name: folder / f"{name}.onnx" for name in ("fp32", "int8", "plain", "signed", "static")}
    export_fp32(network, spec, paths["fp32"], opset=OPSET)
    for name, rewrites in (("plain", PLAIN), ("int8", row.rewrites)):
        canonical = export_canonical(network, x, spec, rewrites, folder)
        write_graph(to_dialect(canonical, "onnxruntime-u8", rewrites), paths[name])
    write_graph(canonical, paths["signed"])
    quantize_statically(paths["fp32"], spec.name, x.numpy(), paths["static"])
    return {name: path for name, path in paths.items() if loads(path)}


def export_canonical(
    network: torch.nn.Module, x: torch.Tensor, spec: InputSpec, rewrites: Mapping[str, bool], folder: Path
) -> onnx.ModelProto:
    quantized = prepare(network, x, Scheme(rewrites=dict(rewrites))).eval()
    calibrate(quantized, [x])
    quantized.set_fake_quantizing(True)
    export_int8(quantized, spec, folder / "canonical.onnx", opset=OPSET)
    return read_graph(folder / "canonical.onnx")


def loads(path: Path) -> bool:
    """Whether ONNX Runtime takes a graph: it fails in its own rewrites of some signed ones."""
    try:
        open_session(read_graph(path))
    except ConversionError:
        return False
    return True


def measure(row: Row) -> dict[str, Any]:
    """Median latency of each graph in milliseconds, and ratios, run by run."""
    with tempfile.TemporaryDirectory() as folder:
        graphs = export(row, Path(folder))
        runs = [measure_once(graphs, Path(folder) / "inputs.npy") for _ in range(REPEATS)]
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: [run[name] for run in runs] for name in names}


def measure_once(graphs: Mapping[str, Path], inputs: Path) -> dict[str, float]:
    result = measure_latency(
        LocalDevice(),
        graphs,
        runtime="onnxruntime",
        inputs=inputs,
        measuring=MEASURING,
        confidence=CONFIDENCE,
        reference="fp32",
        cold_starts=0,
    )
    found = {f"{name}_p50_ms": latency.p50.value_ms for name, latency in result.latencies.items()}
    found |= {f"{ratio.name} / fp32": ratio.value for ratio in result.ratios}
    return found | {"int8 / static": ratio_of("int8", "static", result.logs, CONFIDENCE).value}


def table(rows: Mapping[str, Any], machine: str) -> str:
    """The table, in Markdown: medians of the runs, and their range where a target is asked."""
    columns = (
        "asked",
        "int8 / fp32",
        "met",
        "int8 / static",
        "plain / fp32",
        "static / fp32",
        "signed / fp32",
    )
    lines = [
        "# Speed of int8 graphs over fp32 on ONNX Runtime, one thread, one example, p50",
        "",
        f"{machine}. Median of {REPEATS} runs (lowest to highest); see speed.py.",
        "",
        f"| network, 32x32 unless said | fp32, ms | {' | '.join(columns)} |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    for name, found in rows.items():
        ratio = found["int8 / fp32"]
        met = "yes" if median(ratio) <= found["target"] else "no"
        cells = [f"<= {found['target']:.2f}", spread(ratio), met, spread(found["int8 / static"])]
        cells += [spread(found.get(column)) for column in columns[4:]]
        lines.append(f"| {name} | {median(found['fp32_p50_ms']):.3f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float] | None) -> str:
    if values is None:
        return "does not load"
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(out: Path | None, names: list[str]) -> None:
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    for name in names or ROWS:
        rows[name] = {"target": ROWS[name].target, **measure(ROWS[name])}
        print(name, json.dumps({key: value for key, value in rows[name].items() if "/" in key}), flush=True)
    found = {"rows": rows, "versions": versions().model_dump(mode="json"), "machine": machine_isa()}
    text = table(rows, f"{machine_isa()}; onnxruntime {onnxruntime_version(found)}")
    print(text)
    if out is not None:
        out.write_text(json.dumps(found, indent=2) + "\n")
        out.with_suffix(".md").write_text(text)


def onnxruntime_version(found: Mapping[str, Any]) -> str:
    return str(found["versions"]["packages"]["onnxruntime"])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:])
