"""The stage `sensitivity`: which layers the student cannot have quantized, and the scheme that spares them.

Its result is kept in the stage; RUN/sensitivity.json and RUN/scheme.toml are copies for the user. The scheme
is a file to edit: one that was edited is not written over. Needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgekd.devices.isa import dialect_for, int8_instruction
from edgekd.devices.kit import kit_digest
from edgekd.devices.local import LocalDevice
from edgekd.documents.run_log import Facts
from edgekd.documents.scheme import Scheme
from edgekd.documents.scheme_toml import is_untouched, scheme_toml
from edgekd.documents.sensitivity import Sensitivity
from edgekd.files import write_text
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.networks import WEIGHTS, load_student, network_ingredients
from edgekd.pipeline.provenance import package_versions, source_digest, versions
from edgekd.pipeline.quantize.costs import LatencyCosts, short, weight_costs
from edgekd.pipeline.quantize.examples import calibration_set
from edgekd.pipeline.quantize.stages import (
    Quantized,
    calibrated,
    new_quantized,
    saturation_of,
)
from edgekd.pipeline.run_folder import Stage
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.sensitivity import Found, find_scheme
from edgekd.tasks.task import Task
from edgekd.training.data import load_split

SENSITIVITY, SCHEME, NEW_SCHEME = "sensitivity.json", "scheme.toml", "scheme.new.toml"
_SOURCE = (
    *("networks", "quantization", "conversion", "tasks", "measure", "devices"),
    *("pipeline/quantize/sensitivity.py", "pipeline/quantize/costs.py", "pipeline/quantize/stages.py"),
    *("pipeline/networks.py", "pipeline/quantize/examples.py", "documents/scheme_toml.py"),
)
_FED = 16
"""Examples that graphs are fed with while they are measured."""
_BATCH = 128


def mixed(context: Context, task: Task, student: Stage, start: Quantized) -> Quantized:
    """The calibrated student with the fewest layers spared: the arm `mixed`.

    Args:
        context: what every stage is given.
        task: what is learned.
        student: the stage of the fp32 student.
        start: the calibrated student to start from.
    """
    stage = sensitivity(context, task, student, start)
    place = publish(stage, context.folder.path, force=False)
    context.listener.note(f"sensitivity: the scheme is in {place}")
    calibrator: Any = start.stage.file.ingredients["calibrator"]
    one = calibrated(context, task, student, found_scheme(stage), calibrator, name="mixed")
    return replace(one, arm="mixed")


def sensitivity(context: Context, task: Task, student: Stage, start: Quantized) -> Stage:
    """Find the smallest set of layers to spare.

    Args:
        context: what every stage is given.
        task: what is learned; its validation split is used.
        student: the stage of the fp32 student.
        start: the calibrated student to start from.
    """
    facts = LocalDevice().facts("onnxruntime")
    ingredients = {
        "student": [student.file.files[WEIGHTS], network_ingredients(context.recipe.student)],
        "start": [start.stage.file.files[WEIGHTS], section(start.scheme)],
        "calibration": start.stage.file.key,
        "task": task.fingerprint,
        "budget_pt": context.recipe.quantization.budget_pt,
        "measuring": section(short(context.recipe.measuring)),
        "saturation": saturation_of(context),
        "facts": section(facts, without=("governor",)),
        "kit": kit_digest(),
        "source": source_digest(*_SOURCE),
        "versions": package_versions("torch", "onnx", "onnxscript"),
    }

    def work(folder: Path) -> None:
        document = _document(context, *_analyze(context, task, student, start, facts), facts)
        document.write(folder / SENSITIVITY)
        write_text(folder / SCHEME, scheme_toml(document))

    what = "find the layers that cannot be quantized"
    return context.make("sensitivity", what, ingredients, work)


def found_scheme(stage: Stage) -> Scheme:
    """The scheme that the stage found."""
    return Sensitivity.read(stage.path(SENSITIVITY)).scheme


def publish(stage: Stage, run: Path, *, force: bool) -> Path:
    """Copy the stage's result into the run folder, and say where the scheme is.

    A scheme.toml that was edited stays as it is, unless `force`; the new one then lies beside it.
    """
    write_text(run / SENSITIVITY, stage.path(SENSITIVITY).read_text(encoding="utf-8"))
    place = run / SCHEME
    if place.exists() and not force and not _is_ours(place):
        place = run / NEW_SCHEME
    write_text(place, stage.path(SCHEME).read_text(encoding="utf-8"))
    return place


def _is_ours(path: Path) -> bool:
    try:
        return is_untouched(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _analyze(
    context: Context, task: Task, student: Stage, start: Quantized, facts: Facts
) -> tuple[Found, tuple[str, ...]]:
    validation = load_split(task, task.validation, torch.device("cpu"))
    given = start.stage.file.ingredients
    examples = calibration_set(context, task).take()

    def build(scheme: Scheme) -> QuantizedNetwork:
        quantized = new_quantized(context, task, student, scheme)
        calibrate(quantized, torch.split(examples, _BATCH), given["calibrator"])
        return quantized

    dialect = dialect_for("onnxruntime", int8_instruction(facts.isa), start.scheme)
    x_NC = validation.x_NC[:_FED].numpy()
    measuring, rewrites = short(context.recipe.measuring), start.scheme.rewrites
    latency = LatencyCosts(task.input, x_NC, dialect, measuring, rewrites)
    found = find_scheme(
        load_student(context, task, student),
        build,
        validation.x_NC,
        validation.y_N,
        start=start.scheme,
        budget_pt=context.recipe.quantization.budget_pt,
        measure=weight_costs if start.scheme.weight_bits == 4 else latency,
        saturation=saturation_of(context),
    )
    return found, latency.warnings


def _document(context: Context, found: Found, warnings: tuple[str, ...], facts: Facts) -> Sensitivity:
    return Sensitivity(
        name=context.recipe.name,
        precision=found.precision,
        budget_pt=context.recipe.quantization.budget_pt,
        within=found.within,
        scheme=found.scheme,
        fp32_top1=found.fp32_top1,
        start=found.start,
        found=found.found,
        cost=found.cost,
        all_cost=found.all_cost,
        examples=found.examples,
        layers=found.layers,
        tensors=found.tensors,
        groups=found.groups,
        steps=found.steps,
        notes=(*_notes(context, found), *warnings),
        facts=facts if found.cost.what == "latency" else None,
        versions=versions(),
    )


def _notes(context: Context, found: Found) -> Iterator[str]:
    if found.within and not found.steps[1:]:
        yield "no layer has to be spared: the scheme that was started from is within the budget"
    if not found.within:
        yield "no set of layers is within the budget and costs less than all of them: this is the best one"
    if found.precision == "float":
        if found.cost.ratio >= found.all_cost.ratio:
            yield "the scheme is no faster than the fp32 graph on ONNX Runtime here"
        if not any(target.runtime == "onnxruntime" for target in context.recipe.targets):
            yield "latency is that of ONNX Runtime on this machine, which is no target of the recipe"
