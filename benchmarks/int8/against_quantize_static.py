"""The shipped int8 student against its own fp32 and against ONNX Runtime's quantize_static, side by side.

    python benchmarks/int8/against_quantize_static.py RUN [OUT.json]

RUN is a finished run of `edgekd compress`; start this where the recipe lies. quantize_static gets the
same fp32 student and the same calibration examples, QDQ with uint8 activations and int8 weights per
channel (U8S8), after ONNX Runtime's own pre-processing. Latency: one thread, the graphs interleaved in
the same processes, three runs. Accuracy: the whole test set on ONNX Runtime.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgekd.conversion.audit import audit_graph
from edgekd.devices.local import LocalDevice
from edgekd.documents.recipe import Measuring, Recipe
from edgekd.measure.accuracy import measure_outputs
from edgekd.measure.latency import measure_latency
from edgekd.pipeline.artefacts import QAD, STUDENT, Artefact
from edgekd.pipeline.prove import INPUTS, LABELS
from edgekd.pipeline.provenance import versions
from edgekd.pipeline.run_folder import read_run
from edgekd.tasks.task import build_task

THEIRS = "quantize_static U8S8"
REPEATS = 3


class Examples(CalibrationDataReader):
    """Calibration examples, one at a time."""

    def __init__(self, x_NC: np.ndarray) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter([{"input": x[None]} for x in x_NC])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def calibration_examples(recipe: Recipe, base_dir: Path) -> np.ndarray:
    """The examples that edgekd calibrated on: the same seed, the same order."""
    task = build_task(recipe.task, base_dir=base_dir, seed=recipe.seed)
    count = min(recipe.quantization.calibration_examples, len(task.train.x))
    order = torch.randperm(len(task.train.x), generator=torch.Generator().manual_seed(recipe.seed))
    return task.normalize(task.train.x[order[:count].numpy()])


def quantize_theirs(fp32: Path, x_NC: np.ndarray, out: Path) -> None:
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared))
    quantize_static(
        str(prepared),
        str(out),
        Examples(x_NC),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def main(run: Path, base_dir: Path, out: Path | None) -> None:
    _, stages = read_run(run)
    recipe = Recipe.read(run / "recipe.resolved.json")
    graphs = stages["graphs"]
    fp32 = graphs.path(Artefact(STUDENT, None).graph)
    with tempfile.TemporaryDirectory() as scratch:
        theirs = Path(scratch) / "theirs.onnx"
        quantize_theirs(fp32, calibration_examples(recipe, base_dir), theirs)
        candidates = {
            STUDENT: fp32,
            QAD: graphs.path(Artefact(QAD, "onnxruntime-u8").graph),
            THEIRS: theirs,
        }
        result = measure(candidates, graphs.path(INPUTS), np.load(graphs.path(LABELS)))
    result |= {
        "run": recipe.name,
        "student": recipe.student.network,
        "versions": versions().model_dump(),
        "machine": LocalDevice().facts("onnxruntime").model_dump(mode="json"),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if out is not None:
        out.write_text(text)


def measure(candidates: dict[str, Path], inputs: Path, labels: np.ndarray) -> dict[str, object]:
    device, rows = LocalDevice(), {}
    for name, path in candidates.items():
        logits = measure_outputs(device, path, inputs, runtime="onnxruntime", threads=1)
        audit = audit_graph(path)
        rows[name] = {
            "top1": float((logits.argmax(axis=1) == labels).mean()),
            "n": len(labels),
            "int8_ops": audit.int8_ops,
            "weighted_ops": audit.weighted_ops,
            "size_bytes": path.stat().st_size,
            "p50_ms": [],
        }
    ratios: dict[str, list[float]] = {"int8 / fp32": [], "int8 / quantize_static": []}
    for _ in range(REPEATS):
        for key, reference in (("int8 / fp32", STUDENT), ("int8 / quantize_static", THEIRS)):
            pair = {QAD: candidates[QAD], reference: candidates[reference]}
            latency = measure_latency(
                device,
                pair,
                runtime="onnxruntime",
                inputs=inputs,
                measuring=Measuring(min_time_s=1.0),
                confidence=0.95,
                reference=reference,
            )
            ratios[key].append(latency.ratios[0].value)
            for name, figures in latency.latencies.items():
                rows[name]["p50_ms"].append(figures.p50.value_ms)
    return {"rows": rows, "p50_ratios": ratios}


if __name__ == "__main__":
    run_path = Path(sys.argv[1])
    out_path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    main(run_path, Path.cwd(), out_path)
