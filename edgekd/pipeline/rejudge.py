"""Work on a run that has its graphs already: judge it again, or measure it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekd.devices.local import LocalDevice
from edgekd.documents.recipe import Gate, Recipe
from edgekd.documents.report import Report
from edgekd.errors import RunFolderError, UsageError
from edgekd.pipeline.compress import after_graphs, finish
from edgekd.pipeline.context import Context, Listener, read_recipe
from edgekd.pipeline.report import Finished, build_report
from edgekd.pipeline.run_folder import RunFolder, read_run

RESOLVED = "recipe.resolved.json"


def rejudge(run: Path, recipe_path: Path | None = None) -> Report:
    """The report of a finished run, by its own gate or by that of another recipe. Writes nothing.

    Raises:
        RunFolderError: it is no run folder, a stage was altered, or there are no graphs yet.
    """
    _, stages = read_run(run)
    recipe = Recipe.read(run / RESOLVED)
    gate: Gate = recipe.gate if recipe_path is None else read_recipe(recipe_path)[0].gate
    if gate.confidence != recipe.gate.confidence:
        raise UsageError(
            f"the run's bounds hold at {recipe.gate.confidence:g}; the gate asks for {gate.confidence:g}",
            where=recipe_path,
            hint="edgekd compress with that recipe measures at its confidence",
        )
    return build_report(Finished(recipe, stages), LocalDevice().facts("onnxruntime"), gate=gate)


def measure_run(run: Path, listener: Listener, addresses: Mapping[str, str] | None = None) -> Report:
    """Prove, deliver and measure a run whose graphs are there, and write its report.

    `addresses`: profile of a target to where that device is; other targets are measured on this machine.

    Raises:
        RunFolderError: it is no run folder, a stage was altered, or the graphs are not there.
        UsageError: an address is for a profile that no target has.
    """
    _, stages = read_run(run)
    recipe = Recipe.read(run / RESOLVED)
    if "graphs" not in stages:
        raise RunFolderError("has no graphs yet", where=run, hint="edgekd export RECIPE --out RUN makes them")
    profiles = {target.profile for target in recipe.targets}
    for profile in addresses or {}:
        if profile not in profiles:
            hint = f"its targets are {', '.join(sorted(profiles))}: --device PROFILE=ADDRESS"
            raise UsageError(f"no target of the run has the profile '{profile}'", where=run, hint=hint)
    with RunFolder(run, recipe.name) as folder:
        context = Context(recipe, run, folder, listener, addresses=dict(addresses or {}))
        more = after_graphs(context, stages["graphs"], measuring=True)
        return finish(Finished(recipe, {**stages, **{stage.file.name: stage for stage in more}}), run)
