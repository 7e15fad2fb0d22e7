"""The stage `graphs`: every network of the run as ONNX, beside the logits that torch computes for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.specs import load_spec
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.files import write_text
from edgekd.pipeline import learn
from edgekd.pipeline.artefacts import DIALECT_OF, PTQ, QAD, STUDENT, TEACHER, Artefact
from edgekd.pipeline.context import Context
from edgekd.pipeline.networks import WEIGHTS, load_student, network_ingredients
from edgekd.pipeline.prove import INPUTS, LABELS, save_array
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.teachers import TeacherStages, load_teacher
from edgekd.quantization.network import QuantizedNetwork
from edgekd.tasks.task import Task
from edgekd.training.evaluate import predict_logits

_SOURCE = (
    *("networks", "quantization", "conversion", "tasks", "training"),
    *("pipeline/export.py", "pipeline/learn.py", "pipeline/networks.py", "pipeline/teachers.py"),
)


def graphs(
    context: Context, task: Task, *, teacher: TeacherStages | None, student: Stage, ptq: Stage, qad: Stage
) -> Stage:
    """Export the teacher and the student in fp32, and the PTQ and QAD students in every dialect.

    Where nothing teaches, or a file of answers does, there is no graph of a teacher.
    """
    exported = teacher if teacher is not None and teacher.is_network else None
    ingredients = {
        "teacher": None if exported is None else exported.ingredients,
        "student": student.file.files[WEIGHTS],
        "ptq": ptq.file.files[WEIGHTS],
        "qad": qad.file.files[WEIGHTS],
        "network": network_ingredients(context.recipe.student),
        "task": task.fingerprint,
        "specs": [load_spec(runtime).model_dump(mode="json", by_alias=True) for runtime in DIALECT_OF],
        "source": source_digest(*_SOURCE),
        "versions": package_versions("torch", "onnx", "onnxscript"),
    }

    def work(folder: Path) -> None:
        _keep_task(task, folder)
        if exported is not None:
            _export_fp32(Artefact(TEACHER, None), load_teacher(context, task, exported), task, folder)
        _export_fp32(Artefact(STUDENT, None), load_student(context, task, student), task, folder)
        for row, stage in ((PTQ, ptq), (QAD, qad)):
            _export_int8(row, learn.load_quantized(context, task, student, stage), task, folder)

    return context.make("graphs", "export the graphs of every dialect", ingredients, work)


def _keep_task(task: Task, folder: Path) -> None:
    facts = {"input": task.input.model_dump(mode="json"), "classes": list(task.classes)}
    write_text(folder / "task.json", json.dumps(facts, indent=2) + "\n")
    save_array(folder / INPUTS, task.normalize(task.test.x))
    save_array(folder / LABELS, task.test.y)


def _export_fp32(artefact: Artefact, network: nn.Module, task: Task, folder: Path) -> None:
    opset = load_spec("onnxruntime").opset
    save_array(folder / artefact.logits, _test_logits(network, task))
    export_fp32(network, task.input, folder / artefact.graph, opset=opset)


def _export_int8(row: str, quantized: QuantizedNetwork, task: Task, folder: Path) -> None:
    """One set of scales, one graph a dialect; torch's logits under the saturation of each."""
    quantized.eval()
    quantized.set_observing(False)
    quantized.set_fake_quantizing(True)
    canonical = folder / f"{Artefact(row, 'tensorrt-s8').stem}.canonical.onnx"
    export_int8(quantized, task.input, canonical, opset=load_spec("tensorrt").opset)
    for runtime, dialect in DIALECT_OF.items():
        artefact = Artefact(row, dialect)
        write_graph(to_dialect(onnx.load(canonical), dialect), folder / artefact.graph)
        quantized.set_saturation(load_spec(runtime).saturation)
        save_array(folder / artefact.logits, _test_logits(quantized, task))
    canonical.unlink()


def _test_logits(network: nn.Module, task: Task) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = predict_logits(
        network, torch.from_numpy(task.normalize(task.test.x))
    ).numpy()
    return logits
