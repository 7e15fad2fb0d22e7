"""The scheme of a recipe, its own or that of a file, with the forms of operations that measured best here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.devices.kit import kit_digest
from edgekd.devices.local import LocalDevice
from edgekd.documents.recipe import Recipe
from edgekd.documents.rewrites import RewriteDecisions
from edgekd.documents.scheme import Scheme
from edgekd.files import write_text
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.measuring import why_not_here
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage

if TYPE_CHECKING:
    from edgekd.tasks.task import Task

DECISIONS = "rewrites.json"
_EXAMPLES = 16
_SOURCE = (
    *("networks", "quantization", "conversion", "tasks", "measure", "devices", "documents/rewrites.py"),
    *("pipeline/rewrites.py", "pipeline/networks.py"),
    *("pipeline/quantize/scheme.py", "pipeline/quantize/examples.py"),
)


def scheme_of(context: Context) -> Scheme:
    """How the recipe says that its student is quantized.

    Raises:
        DocumentError: the scheme's file is missing or no scheme.
    """
    section = context.recipe.quantization
    if section.scheme_file is None:
        return section.scheme
    return Scheme.read(context.base_dir / section.scheme_file)


def settled_scheme(context: Context, task: Task, student: Stage) -> tuple[Scheme, list[Stage]]:
    """The recipe's scheme with every form of the network's operations decided, and the stage that decided.

    Forms are measured where the student runs on ONNX Runtime here; for another device they are as by default.
    """
    scheme = scheme_of(context)
    if not is_measured_here(context.recipe):
        return scheme, []
    stage = _decide(context, task, student, scheme)
    choices = RewriteDecisions.model_validate(stage.json(DECISIONS)).choices
    return scheme.model_copy(update={"rewrites": {**scheme.rewrites, **choices}}), [stage]


def is_measured_here(recipe: Recipe) -> bool:
    """Whether a target is ONNX Runtime on the machine at hand."""
    facts = LocalDevice().facts("onnxruntime")
    return any(
        target.runtime == "onnxruntime" and why_not_here(target, facts) is None for target in recipe.targets
    )


def _decide(context: Context, task: Task, student: Stage, scheme: Scheme) -> Stage:
    from edgekd.pipeline.networks import WEIGHTS, load_student, network_ingredients  # torch
    from edgekd.pipeline.quantize.examples import training_examples
    from edgekd.pipeline.rewrites import decide_rewrites

    ingredients = {
        "student": [student.file.files[WEIGHTS], network_ingredients(context.recipe.student)],
        "scheme": section(scheme),
        "task": task.fingerprint,
        "facts": section(LocalDevice().facts("onnxruntime"), without=("governor",)),
        "kit": kit_digest(),
        "source": source_digest(*_SOURCE),
        "versions": package_versions("torch", "onnx", "onnxscript", "onnxruntime"),
    }

    def work(folder: Path) -> None:
        decisions = decide_rewrites(
            load_student(context, task, student),
            training_examples(task, _EXAMPLES, seed=context.recipe.seed),
            task.input,
            device=LocalDevice(),
            scheme=scheme,
        )
        write_text(folder / DECISIONS, decisions.model_dump_json(indent=2) + "\n")

    return context.make("rewrites", "measure the forms of the network's operations", ingredients, work)
