"""Make the graph of each arm: a stage that holds it beside torch's and the runtime's logits and its audit.

An arm starts from what another one left: every fine-tuning from the calibrated student that validates best.
Needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import torch

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.codebook_graph import export_codebooks
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.half import to_fp16
from edgekd.conversion.parity import compare_logits
from edgekd.conversion.specs import load_spec
from edgekd.conversion.to_onnx import export_fp32
from edgekd.devices.isa import dialect_for, int8_instruction
from edgekd.devices.kit import kit_digest
from edgekd.devices.local import LocalDevice
from edgekd.documents.quantization import Calibrator
from edgekd.documents.scheme import Scheme
from edgekd.files import write_text
from edgekd.measure.accuracy import measure_outputs
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.export import canonical_graph, test_logits
from edgekd.pipeline.networks import WEIGHTS, load_student, network_ingredients
from edgekd.pipeline.prove import INPUTS, load_array, save_array
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.quantize import arms as names
from edgekd.pipeline.quantize.codebooks import CODEBOOKS, decoded, in_codebooks
from edgekd.pipeline.quantize.examples import calibration_set
from edgekd.pipeline.quantize.sensitivity import mixed
from edgekd.pipeline.quantize.stages import (
    Quantized,
    best_calibrated,
    calibrated,
    fine_tuned,
    load_quantized,
    tuned_in_float,
)
from edgekd.pipeline.quantize.static import quantize_statically
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import VALIDATION
from edgekd.pipeline.teachers import TeacherStages
from edgekd.quantization.codebook_file import read_codebooks
from edgekd.tasks.task import Task

GRAPH, PROOF, REFERENCE, LOGITS = "graph.onnx", "proof.json", "reference.npy", "logits.npy"
_SOURCE = ("networks", "quantization", "conversion", "tasks", "pipeline/quantize", "pipeline/export.py")


@dataclass(frozen=True)
class Made:
    """An arm's graph, and what it came from."""

    name: str
    graph: Stage
    before: tuple[Stage, ...] = ()
    """Stages that were made for it, beyond the fp32 student."""
    scheme: Scheme | None = None
    worth: dict[str, Any] = field(default_factory=dict)
    """What it is worth on validation: top1 and fp32_top1; empty where it was not asked."""


class Maker:
    """Makes the arms of one run."""

    def __init__(
        self,
        context: Context,
        task: Task,
        teacher: TeacherStages | None,
        student: Stage,
        inputs: Stage,
        scheme: Scheme,
    ) -> None:
        """Start from a finished student.

        Args:
            context: what every stage is given.
            task: what is learned.
            teacher: the finished teacher; None where no term reads it.
            student: the stage of the fp32 student.
            inputs: the stage that holds the test set as the runtime gets it.
            scheme: the recipe's.
        """
        self._context, self._task, self._teacher, self._student = context, task, teacher, student
        self._inputs, self._scheme = inputs, scheme

    def make(self, name: str) -> Made:
        """Make or find an arm."""
        match name:
            case names.FP32:
                return self._fp32(name, (), load_student(self._context, self._task, self._student))
            case names.TUNED:
                return self._tuned(name)
            case names.STATIC:
                return self._static(name)
            case names.MIXED:
                spared = mixed(self._context, self._task, self._student, self._start)
                return self._int8(name, spared, self._start)
            case names.FP16:
                return self._half(name)
            case names.UNIFORM | names.POINTS:
                return self._in_codebooks(name)
            case "qat" | "qad-self" | "qad-teacher" | "qad":
                return self._int8(name, self._trained(self._start, name, name), self._start)
            case names.LEARNED:
                start = self._calibrated({"scales": "learned"}, "lsq-ptq")
                return self._int8(name, self._trained(start, "qad", name), start)
            case names.W4_PTQ:
                return self._int8(name, self._four_bits)
            case names.W4_QAD:
                start = self._calibrated({"weight_bits": 4, "scales": "learned"}, "w4-lsq-ptq")
                return self._int8(name, self._trained(start, "qad", name), start)
            case _:
                calibrator: Any = name.removeprefix("ptq-")
                return self._int8(name, self._by(calibrator))

    @cached_property
    def _start(self) -> Quantized:
        return best_calibrated(self._context, self._task, self._student, self._scheme)

    @cached_property
    def _four_bits(self) -> Quantized:
        return self._calibrated({"weight_bits": 4}, "w4-ptq")

    def _calibrated(self, changes: dict[str, Any], prefix: str) -> Quantized:
        scheme = self._scheme.model_copy(update=changes)
        return best_calibrated(self._context, self._task, self._student, scheme, prefix=prefix)

    def _by(self, calibrator: Calibrator) -> Quantized:
        name = f"ptq-{calibrator}"
        return calibrated(self._context, self._task, self._student, self._scheme, calibrator, name=name)

    def _trained(self, start: Quantized, arm: Any, name: str) -> Quantized:
        return fine_tuned(self._context, self._task, self._teacher, self._student, start, arm, name=name)

    def _int8(self, name: str, one: Quantized, *before: Quantized) -> Made:
        def write(folder: Path) -> None:
            quantized = load_quantized(self._context, self._task, self._student, one)
            quantized.eval().set_observing(False)
            quantized.set_fake_quantizing(True)
            quantized.set_saturation(load_spec("onnxruntime").codes)
            save_array(folder / REFERENCE, test_logits(quantized, self._task))
            canonical = canonical_graph(quantized, self._task)
            write_graph(to_dialect(canonical, dialect, one.scheme.rewrites), folder / GRAPH)

        instruction = int8_instruction(LocalDevice().facts("onnxruntime").isa)
        dialect = dialect_for("onnxruntime", instruction, one.scheme)
        made_of = {
            "weights": one.stage.file.files[WEIGHTS],
            "scheme": section(one.scheme),
            "dialect": dialect,
        }
        graph = self._graph(name, made_of, write)
        stages = tuple(each.stage for each in (*before, one))
        return Made(name, graph, stages, one.scheme, one.stage.json(VALIDATION))

    def _fp32(self, name: str, before: tuple[Stage, ...], network: torch.nn.Module) -> Made:
        def write(folder: Path) -> None:
            save_array(folder / REFERENCE, test_logits(network, self._task))
            export_fp32(network, self._task.input, folder / GRAPH, opset=load_spec("onnxruntime").opset)

        source = before[-1] if before else self._student
        worth = source.json(VALIDATION) if before else {}
        return Made(
            name, self._graph(name, {"weights": source.file.files[WEIGHTS]}, write), before, None, worth
        )

    def _tuned(self, name: str) -> Made:
        stage, network = tuned_in_float(
            self._context, self._task, self._teacher, self._student, self._start, name=name
        )
        return self._fp32(name, (stage,), network)

    def _static(self, name: str) -> Made:
        fp32 = self.make(names.FP32).graph
        given = calibration_set(self._context, self._task)

        def write(folder: Path) -> None:
            quantize_statically(fp32.path(GRAPH), self._task.input.name, given.take().numpy(), folder / GRAPH)
            save_array(folder / REFERENCE, load_array(fp32.path(REFERENCE)))

        made_of = {"fp32": fp32.file.files[GRAPH], **given.ingredients}
        return Made(name, self._graph(name, made_of, write))

    def _half(self, name: str) -> Made:
        fp32 = self.make(names.FP32).graph

        def write(folder: Path) -> None:
            write_graph(to_fp16(onnx.load(fp32.path(GRAPH))), folder / GRAPH)
            save_array(folder / REFERENCE, load_array(fp32.path(REFERENCE)))

        return Made(name, self._graph(name, {"fp32": fp32.file.files[GRAPH]}, write))

    def _in_codebooks(self, name: str) -> Made:
        context, task, student = self._context, self._task, self._student
        learned = name == names.POINTS
        stage = in_codebooks(context, task, self._teacher, student, name=name, learned=learned)

        def write(folder: Path) -> None:
            codebooks = read_codebooks(stage.path(CODEBOOKS))
            network = decoded(context, task, student, codebooks)
            save_array(folder / REFERENCE, test_logits(network, task))
            opset = load_spec("onnxruntime").opset
            export_codebooks(network, codebooks, task.input, folder / GRAPH, opset=opset)

        graph = self._graph(name, {"codebooks": stage.file.files[CODEBOOKS]}, write)
        return Made(name, graph, (stage,), worth=stage.json(VALIDATION))

    def _graph(self, name: str, made_of: dict[str, Any], write: Callable[[Path], None]) -> Stage:
        threads = self._context.recipe.measuring.threads
        ingredients = {
            **made_of,
            "network": network_ingredients(self._context.recipe.student),
            "inputs": self._inputs.digest,
            "specs": section(load_spec("onnxruntime")),
            "threads": threads,
            "kit": kit_digest(),
            "source": source_digest(*_SOURCE, "measure", "runtimes", "devices"),
            "versions": package_versions("torch", "onnx", "onnxscript", "onnxruntime"),
            "machine": LocalDevice().facts("onnxruntime").isa,
        }

        def work(folder: Path) -> None:
            write(folder)
            self._prove(folder, threads)

        return self._context.make(f"arm-{name}", f"export and run the graph of {name}", ingredients, work)

    def _prove(self, folder: Path, threads: int) -> None:
        graph, inputs = folder / GRAPH, self._inputs.path(INPUTS)
        logits = measure_outputs(LocalDevice(), graph, inputs, runtime="onnxruntime", threads=threads)
        save_array(folder / LOGITS, logits)
        proof = {
            "parity": compare_logits(load_array(folder / REFERENCE), logits).model_dump(mode="json"),
            "audit": audit_graph(graph, threads=threads).model_dump(mode="json", by_alias=True),
        }
        write_text(folder / PROOF, json.dumps(proof, indent=2) + "\n")
