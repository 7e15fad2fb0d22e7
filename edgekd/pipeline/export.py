"""The stage `graphs`: every network of the run as ONNX, beside the logits that torch computes for it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.fp8 import to_fp8
from edgekd.conversion.half import to_fp16
from edgekd.conversion.specs import load_spec, spec_of
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.devices.local import LocalDevice
from edgekd.documents.spec import DEFAULT_DIALECT, Dialect, Int8Dialect
from edgekd.files import write_text
from edgekd.pipeline.artefacts import FP8, FP16, STUDENT, TEACHER, Artefact, int8_dialects, keep_list
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.networks import WEIGHTS, load_student, network_ingredients
from edgekd.pipeline.prove import INPUTS, LABELS, load_array, save_array
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.quantize.choose import Choice
from edgekd.pipeline.quantize.stages import Quantized, load_quantized
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.teachers import TeacherStages, load_teacher
from edgekd.quantization.network import QuantizedNetwork
from edgekd.runtimes.torch_tensorrt import compile_student
from edgekd.tasks.task import Task
from edgekd.training.evaluate import predict_logits

_SOURCE = (
    *("networks", "quantization", "conversion", "tasks", "training"),
    *("pipeline/export.py", "pipeline/quantize/stages.py", "pipeline/networks.py", "pipeline/teachers.py"),
)


def graphs(
    context: Context,
    task: Task,
    *,
    teacher: TeacherStages | None,
    student: Stage,
    choice: Choice,
    dialects: Mapping[str, Dialect],
) -> Stage:
    """Export the teacher and the student in fp32, and the small students in every dialect.

    Where nothing teaches, or a file of answers does, there is no graph of a teacher. `dialects` are those of
    the targets; the first dialect of each runtime is always there.
    """
    wanted = tuple(dict.fromkeys([*DEFAULT_DIALECT.values(), *dialects.values()]))
    exported = teacher if teacher is not None and teacher.is_network else None
    ingredients = {
        "teacher": None if exported is None else exported.ingredients,
        "student": student.file.files[WEIGHTS],
        "quantized": {one.row: [one.stage.file.files[WEIGHTS], section(one.scheme)] for one in choice.made},
        "choice": [choice.ships.row, choice.note],
        "network": network_ingredients(context.recipe.student),
        "task": task.fingerprint,
        "dialects": dict(dialects),
        "specs": [spec_of(dialect).model_dump(mode="json", by_alias=True) for dialect in wanted],
        "source": source_digest(*_SOURCE),
        "versions": package_versions("torch", "onnx", "onnxscript"),
    }

    def work(folder: Path) -> None:
        keep_task(task, folder)
        if exported is not None:
            _export_fp32(Artefact(TEACHER, None), load_teacher(context, task, exported), task, folder)
        _export_fp32(Artefact(STUDENT, None), load_student(context, task, student), task, folder)
        for one in choice.made:
            quantized = load_quantized(context, task, student, one)
            export_quantized(one, quantized, task, folder, int8_dialects(wanted))
        export_floats(folder, load_quantized(context, task, student, choice.made[0]), task, wanted)
        rows = (TEACHER, STUDENT, FP16, FP8, *(one.row for one in choice.made))
        keep_list(folder, rows, ships=choice.ships.row, why=choice.note, dialects=dialects)

    return context.make("graphs", "export the graphs of every dialect", ingredients, work)


def torch_tensorrt(context: Context, task: Task, student: Stage, choice: Choice) -> Stage:
    """The stage `torch-tensorrt`: the student that ships as a program for the GPU at hand, batch 1.

    Raises:
        MissingError: Torch-TensorRT cannot compile here.
        ConversionError: it refuses the student.
    """
    ingredients = {
        "quantized": choice.ships.stage.file.files[WEIGHTS],
        "network": network_ingredients(context.recipe.student),
        "task": task.fingerprint,
        "source": source_digest(*_SOURCE, "runtimes/torch_tensorrt.py"),
        "versions": package_versions("torch", "torch-tensorrt", "tensorrt"),
        "gpu": LocalDevice().facts("torch-tensorrt").gpus,
    }

    def work(folder: Path) -> None:
        quantized = load_quantized(context, task, student, choice.ships)
        quantized.eval()
        quantized.set_observing(False)
        quantized.set_fake_quantizing(True)
        compile_student(quantized, torch.from_numpy(task.normalize(task.test.x[:1])), folder)

    return context.make("torch-tensorrt", "compile the student by Torch-TensorRT", ingredients, work)


def keep_task(task: Task, folder: Path) -> None:
    """Write the test set as a runtime gets it, and what is to be known of the task."""
    facts = {"input": task.input.model_dump(mode="json"), "classes": list(task.classes)}
    write_text(folder / "task.json", json.dumps(facts, indent=2) + "\n")
    save_array(folder / INPUTS, task.normalize(task.test.x))
    save_array(folder / LABELS, task.test.y)


def _export_fp32(artefact: Artefact, network: nn.Module, task: Task, folder: Path) -> None:
    opset = load_spec("onnxruntime").opset
    save_array(folder / artefact.logits, test_logits(network, task))
    export_fp32(network, task.input, folder / artefact.graph, opset=opset)


def export_quantized(
    one: Quantized, quantized: QuantizedNetwork, task: Task, folder: Path, dialects: Iterable[Int8Dialect]
) -> None:
    """One set of scales, one graph a dialect; torch's logits under the saturation of each."""
    quantized.eval()
    quantized.set_observing(False)
    quantized.set_fake_quantizing(True)
    canonical = canonical_graph(quantized, task)
    for dialect in dialects:
        artefact = Artefact(one.row, dialect)
        write_graph(to_dialect(canonical, dialect, one.scheme.rewrites), folder / artefact.graph)
        quantized.set_saturation(spec_of(dialect).codes)
        save_array(folder / artefact.logits, test_logits(quantized, task))


def canonical_graph(quantized: QuantizedNetwork, task: Task) -> onnx.ModelProto:
    """The int8 graph that every dialect is derived from."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "canonical.onnx"
        export_int8(quantized, task.input, path, opset=load_spec("tensorrt").opset)
        return onnx.load(path)


def export_floats(
    folder: Path, calibrated: QuantizedNetwork, task: Task, dialects: Iterable[Dialect]
) -> None:
    """The student in half precision and in FP8, where targets want it, beside the fp32 student's logits."""
    fp32 = Artefact(STUDENT, None)
    for dialect in dialects:
        match dialect:
            case "onnxruntime-fp16" | "tensorrt-fp16":
                artefact, graph = Artefact(FP16, dialect), to_fp16(onnx.load(folder / fp32.graph))
            case "tensorrt-fp8":
                artefact, graph = Artefact(FP8, dialect), to_fp8(canonical_graph(calibrated, task))
            case _:
                continue
        write_graph(graph, folder / artefact.graph)
        save_array(folder / artefact.logits, load_array(folder / fp32.logits))


def test_logits(network: nn.Module, task: Task) -> NDArray[np.float32]:
    """Torch's logits for the test set, (N, K)."""
    logits: NDArray[np.float32] = predict_logits(
        network, torch.from_numpy(task.normalize(task.test.x))
    ).numpy()
    return logits
