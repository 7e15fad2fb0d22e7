"""The stage `saturation-PROFILE`: a target's graph as its processor runs it, emulated, where that is no VNNI.

Such a processor is rarely the machine at hand, and what saturates there is exact here: measured accuracy
would not show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekd.conversion.avx2.emulate import measure_saturation
from edgekd.conversion.check_graph import read_graph
from edgekd.devices.isa import saturates
from edgekd.documents.recipe import Recipe, Target
from edgekd.documents.run_log import Facts
from edgekd.documents.saturation import Saturation
from edgekd.pipeline.artefacts import shipped_for
from edgekd.pipeline.context import Context
from edgekd.pipeline.measuring import profile_of
from edgekd.pipeline.prove import INPUTS, LABELS, load_array
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage

_EXAMPLES = 1000
"""Of the test set. An emulated network takes some milliseconds for each."""
_FILE = "saturation.json"


def may_saturate(target: Target, facts: Facts) -> bool:
    """Whether the processor of a target adds int8 products in 16 bits that saturate."""
    cpu = profile_of(target, facts).cpu
    int8 = target.runtime == "onnxruntime" and target.precision == "int8"
    return int8 and cpu is not None and saturates(cpu.int8)


def saturation(context: Context, graphs: Stage, target: Target, facts: Facts) -> Stage:
    """Emulate the graph that a target gets on examples of the test set."""
    artefact = shipped_for(target, graphs)
    ingredients = {
        "graphs": graphs.digest,
        "graph": artefact.graph,
        "source": source_digest("conversion", "runtimes", "pipeline/saturation.py"),
        "versions": package_versions("onnxruntime", "onnx", "numpy"),
        "machine": facts.isa,
    }

    def work(folder: Path) -> None:
        model = read_graph(graphs.path(artefact.graph))
        x, labels_N = (load_array(graphs.path(name))[:_EXAMPLES] for name in (INPUTS, LABELS))
        measure_saturation(model, x, labels_N).write(folder / _FILE)

    what = f"emulate the processor of {target.profile}"
    return context.make(_stage_of(target), what, ingredients, work)


def notes_of_saturation(recipe: Recipe, stages: Mapping[str, Stage]) -> Iterator[str]:
    """What saturation costs each target whose processor was emulated, a line each."""
    for target in recipe.targets:
        stage = stages.get(_stage_of(target))
        if stage is not None:
            yield f"{target.name}: emulated, {Saturation.read(stage.path(_FILE)).summary}"


def _stage_of(target: Target) -> str:
    return f"saturation-{target.profile}"
