"""The graphs of a finished run beside what was trained, along the whole chain.

    fp32 -> fake-quantized student in torch -> dialect's graph node by node -> its runtime, optimized

The second link needs torch and the run's weights; without them it rests on the logits that the run has kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.conversion.divergence.chain import compare
from edgekd.conversion.divergence.question import Question, Runtime, Subject
from edgekd.conversion.divergence.searched import searched
from edgekd.conversion.specs import spec_of
from edgekd.documents.divergence import Chain, Divergence
from edgekd.documents.recipe import Recipe
from edgekd.documents.spec import Dialect
from edgekd.errors import EdgekdError, RunFolderError, UsageError
from edgekd.extras import install_line, is_installed
from edgekd.files import write_text
from edgekd.pipeline.artefacts import STUDENT, Artefact, artefacts_in, shipped_for
from edgekd.pipeline.debug.files import read_subject, spread
from edgekd.pipeline.debug.render import to_markdown
from edgekd.pipeline.debug.runtimes import about, onnxruntime, tensorrt
from edgekd.pipeline.prove import INPUTS, load_array
from edgekd.pipeline.rejudge import RESOLVED
from edgekd.pipeline.run_folder import Stage, read_run
from edgekd.runtimes.onnxruntime import machine_isa

if TYPE_CHECKING:
    from edgekd.pipeline.debug.student import Trained

JSON, MARKDOWN = "debug.json", "debug.md"
"""The two files in the run folder."""
_NOT_ON_TENSORRT = (
    "compared node by node on ONNX Runtime: TensorRT was not run, for there is no GPU with it here"
)


@dataclass(frozen=True)
class Wish:
    """What is to be looked at."""

    row: str | None = None
    """Row of the report; None takes what ships."""
    dialect: str | None = None
    """Dialect; None takes all that the row has."""
    graph: Path | None = None
    """A graph in the place of the run's own."""
    examples: int = 64
    bisect: bool = False


def debug_run(run: Path, wish: Wish | None = None) -> Divergence:
    """Compare the graphs of a run along the chain, and write debug.json and debug.md into its folder.

    Raises:
        RunFolderError: it is no run folder, a stage is missing or altered, or there are no graphs.
        UsageError: the run has no such row or dialect, or the graph is not of its network.
        BundleError: the given graph is missing or no valid ONNX graph.
        ConversionError: a graph cannot be run.
    """
    wish = wish or Wish()
    index, stages = read_run(run)
    if "graphs" not in stages:
        raise RunFolderError("has no graphs yet", where=run, hint="edgekd export RECIPE --out RUN makes them")
    recipe = Recipe.read(run / RESOLVED)
    material = _Material(run, recipe, stages, wish)
    chains = tuple(material.chain(artefact) for artefact in material.wanted())
    found = Divergence(
        name=index.name,
        examples=len(material.x),
        inputs="the run's test examples",
        runtime=about(),
        machine=machine_isa(),
        chains=chains,
    )
    found.write(run / JSON)
    write_text(run / MARKDOWN, to_markdown(found))
    return found


class _Material:
    """What a run has for the comparison."""

    def __init__(self, run: Path, recipe: Recipe, stages: Mapping[str, Stage], wish: Wish) -> None:
        self.run, self.recipe, self.stages, self.wish = run, recipe, stages, wish
        self.graphs = stages["graphs"]
        inputs = load_array(self.graphs.path(INPUTS))
        self.chosen = spread(len(inputs), wish.examples)
        self.x: NDArray[np.float32] = inputs[self.chosen]
        self._trained: dict[str, Trained] = {}

    def wanted(self) -> list[Artefact]:
        """The graphs to look at.

        Raises:
            UsageError: there is none, or the given graph could stand for several.
        """
        known = [one for one in artefacts_in(self.graphs) if one.dialect is not None]
        found = [one for one in known if self._is_wanted(one)]
        if not found:
            rows = ", ".join(dict.fromkeys(f"{one.row} ({one.dialect})" for one in known)) or "none"
            raise UsageError("the run has no such graph", where=self.run, hint=f"there are: {rows}")
        if self.wish.graph is None or len(found) == 1:
            return found
        return [_meant(self.graphs, found, read_subject(self.wish.graph).model)]

    def _is_wanted(self, artefact: Artefact) -> bool:
        if self.wish.dialect is not None and artefact.dialect != self.wish.dialect:
            return False
        if self.wish.row is not None:
            return self.wish.row.lower() in artefact.row.lower()
        return artefact.row in {shipped_for(target, self.graphs).row for target in self.recipe.targets}

    def chain(self, artefact: Artefact) -> Chain:
        """One graph, and what was trained."""
        dialect = artefact.dialect
        assert dialect is not None
        own = read_subject(self.graphs.path(artefact.graph), f"{artefact.row} {dialect}")
        given = self.wish.graph
        candidate = own if given is None else read_subject(given, f"{given.name} as {artefact.row} {dialect}")
        question = self._question(artefact, dialect, candidate, own)
        return searched(compare(question), question, asked=self.wish.bisect)

    def _question(self, artefact: Artefact, dialect: Dialect, candidate: Subject, own: Subject) -> Question:
        runtime, notes = _runtime(dialect)
        logits = load_array(self.graphs.path(artefact.logits))[self.chosen]
        question = Question(
            candidate=candidate,
            reference=read_subject(self.graphs.path(Artefact(STUDENT, None).graph), STUDENT),
            dialect=dialect,
            x=self.x,
            student_graph=own.model,
            student_logits=logits,
            runtime=runtime,
            notes=notes,
        )
        return question if spec_of(dialect).saturation == "none" else self._with_torch(question, artefact)

    def _with_torch(self, question: Question, artefact: Artefact) -> Question:
        """The same with the student in torch, or with a note that says why it is left out."""
        if not is_installed("torch"):
            return _without(question, f"torch is not installed ({install_line('train')})")
        from edgekd.pipeline.debug.student import InTorch, trained_student

        assert artefact.dialect is not None
        try:
            if artefact.row not in self._trained:
                found = trained_student(self.run, self.recipe, self.stages, artefact.row)
                self._trained[artefact.row] = found
            trained = self._trained[artefact.row]
            network = InTorch(trained, spec_of(artefact.dialect).codes, self.x[:2])
        except EdgekdError as error:
            return _without(question, error.message)
        return replace(
            question,
            reference=Subject(
                f"the float form of {artefact.row}", trained.float_graph, question.reference.sha256
            ),
            student_graph=trained.graph,
            network=network,
        )


def _without(question: Question, why: str) -> Question:
    note = f"the fake-quantized student was not run: {why}. Its logits are those that the run has kept"
    return replace(question, notes=(*question.notes, note))


def _runtime(dialect: Dialect) -> tuple[Runtime | None, tuple[str, ...]]:
    """What runs a dialect here, and what is to be said of it."""
    if spec_of(dialect).runtime == "onnxruntime":
        return onnxruntime(), ()
    found = tensorrt()
    return found, () if found is not None else (_NOT_ON_TENSORRT,)


def _meant(graphs: Stage, artefacts: list[Artefact], model: onnx.ModelProto) -> Artefact:
    """The graph of the run in whose place a given one can stand: the one with the same types of codes."""
    wanted = _code_types(model)
    found = [one for one in artefacts if _code_types(read_subject(graphs.path(one.graph)).model) == wanted]
    if len(found) != 1:
        names = ", ".join(f"{one.row} ({one.dialect})" for one in found or artefacts)
        raise UsageError(f"the graph could stand for {names}", hint="say which with --row and --dialect")
    return found[0]


def _code_types(model: onnx.ModelProto) -> frozenset[int]:
    """Element types of the zero points of a graph's quantizers."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return frozenset(types[node.input[2]] for node in nodes if len(node.input) > 2 and node.input[2] in types)
