"""The whole way, stage after stage: teacher, student, quantization, graphs, proof, bundles, measurement.

    Recipe -> weights -> scales -> graphs -> proof -> bundle -> measurement -> verdict

Every command that works on a recipe goes this way as far as it is asked to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekd.devices.local import LocalDevice
from edgekd.documents.recipe import Recipe
from edgekd.documents.report import Report
from edgekd.documents.scheme import Scheme
from edgekd.files import sha256_json
from edgekd.pipeline.context import Context, Listener, NotDoneError, learning_recipe
from edgekd.pipeline.deliver import deliver
from edgekd.pipeline.dialects import dialects_of
from edgekd.pipeline.measuring import check_runtime, measure, profile_of, why_not_here
from edgekd.pipeline.prove import engine, prove
from edgekd.pipeline.render import to_markdown
from edgekd.pipeline.report import Finished, build_report, write_report
from edgekd.pipeline.run_folder import RunFolder, Stage, keep_recipe
from edgekd.pipeline.saturation import may_saturate, saturation

if TYPE_CHECKING:
    from edgekd.pipeline.teachers import TeacherStages
    from edgekd.tasks.task import Task

Until = Literal["distill", "quantize", "export", "bench"]


def compress(
    recipe_path: Path,
    run: Path,
    listener: Listener,
    *,
    until: Until = "bench",
    fresh: bool = False,
    torch_tensorrt: bool = False,
) -> Report | None:
    """Go the whole way, or as far as `until`; finished stages are taken as they are.

    `torch_tensorrt`: compile the student by Torch-TensorRT too, once its graphs are there.

    Returns the report, or None when stopped before there is one.

    Raises:
        EdgekdError: whatever is wrong with the recipe, the data, the network, the machine or the run folder.
    """
    recipe, text = prepare_recipe(recipe_path)
    digest = sha256_json(recipe.model_dump(mode="json", by_alias=True))
    folder = RunFolder(run, recipe.name, recipe_sha256=digest, fresh=fresh)
    context = Context(recipe, recipe_path.resolve().parent, folder, listener, torch_tensorrt=torch_tensorrt)
    folder.check()
    task = _try_out(context)
    with folder:
        keep_recipe(run, text, recipe.to_json())
        stages = _go(context, task, until)
        if until in ("distill", "quantize", "export"):
            return None
        return finish(Finished(recipe, {stage.file.name: stage for stage in stages}), run)


def first_missing(
    recipe_path: Path, run: Path, listener: Listener, *, until: Until = "bench", fresh: bool = False
) -> str | None:
    """The first stage that `compress` would have to make; None when all is done. Writes nothing."""
    recipe, _ = prepare_recipe(recipe_path)
    folder = RunFolder(run, recipe.name, fresh=fresh)
    context = Context(recipe, recipe_path.resolve().parent, folder, listener, dry_run=True)
    folder.check()
    task = _try_out(context)
    try:
        _go(context, task, until)
    except NotDoneError as stop:
        return str(stop)
    return None


def finish(finished: Finished, run: Path) -> Report:
    """Judge a run and write its report."""
    report = build_report(finished, LocalDevice().facts("onnxruntime"))
    write_report(run, report, to_markdown(report))
    return report


def _try_out(context: Context) -> Task:
    """The data, and the networks built once: what is wrong with them is said before hours of training."""
    from edgekd.pipeline import learn
    from edgekd.pipeline.quantize.examples import try_out

    task = learn.task_of(context)
    try_out(context, task)
    return task


def _go(context: Context, task: Task, until: Until) -> list[Stage]:
    from edgekd.pipeline import export  # torch, at last
    from edgekd.pipeline.quantize.choose import choose
    from edgekd.pipeline.quantize.scheme import settled_scheme

    stages, teacher, student = to_student(context, task)
    if until == "distill":
        return stages
    scheme, settling = settled_scheme(context, task, student)
    choice = choose(context, task, teacher, student, scheme)
    stages += [*settling, *choice.stages]
    if until == "quantize":
        return stages
    dialects = dialects_of(context.recipe, scheme, LocalDevice().facts("onnxruntime"))
    graphs = export.graphs(context, task, teacher=teacher, student=student, choice=choice, dialects=dialects)
    compiled = [export.torch_tensorrt(context, task, student, choice)] if context.torch_tensorrt else []
    return [*stages, graphs, *compiled, *after_graphs(context, graphs, measuring=until == "bench")]


def to_student(context: Context, task: Task) -> tuple[list[Stage], TeacherStages | None, Stage]:
    """Teach and distil: all stages so far, the teacher among them, and the student's, the last."""
    from edgekd.pipeline import head_stages, learn, teachers

    taught = context.recipe.distillation.needs_teacher
    teacher = teachers.make_teacher(context, task) if taught else None
    heads = head_stages.heads(context, task, teacher) if teacher else []
    student = learn.student(context, task, teacher, heads)
    return [*(teacher.stages if teacher else ()), *heads, student], teacher, student


def after_graphs(context: Context, graphs: Stage, *, measuring: bool) -> list[Stage]:
    """Proof, engines, bundles and measurements: none of them needs torch."""
    proof = prove(context, graphs)
    stages = [proof]
    facts = LocalDevice().facts("onnxruntime")
    for target in context.recipe.targets:
        if target.runtime == "tensorrt":
            stages.append(engine(context, graphs, target, facts))
        if may_saturate(target, facts):
            stages.append(saturation(context, graphs, target, facts))
        if not context.dry_run:
            deliver(context, target, graphs, proof)
    for target in context.recipe.targets if measuring else ():
        reason = None if target.profile in context.addresses else why_not_here(target, facts)
        if reason is None:
            stages.append(measure(context, target, graphs, proof))
        else:
            context.listener.note(f"{target.profile}/{target.runtime} is not measured here: {reason}")
    return stages


def prepare_recipe(recipe_path: Path) -> tuple[Recipe, str]:
    """Read the recipe and find what would stop it before hours of training, not after.

    Raises:
        DocumentError, UsageError, MissingError: what is wrong with it, or with what it asks for.
    """
    recipe, text = learning_recipe(recipe_path)
    facts = LocalDevice().facts("onnxruntime")
    for target in recipe.targets:
        check_runtime(target, profile_of(target, facts))
    dialects_of(recipe, Scheme(), facts)  # whichever the scheme will be: what a device cannot run is refused
    return recipe, text
