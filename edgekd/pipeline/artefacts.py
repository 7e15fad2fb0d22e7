"""The graphs of a run: which rows of the report they are, and where their files lie."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.documents.recipe import RuntimeName
from edgekd.documents.spec import Dialect
from edgekd.pipeline.run_folder import Stage

DIALECT_OF: dict[RuntimeName, Dialect] = {"onnxruntime": "onnxruntime-u8", "tensorrt": "tensorrt-s8"}

TEACHER, STUDENT, PTQ, QAD = "teacher fp32", "student fp32", "student PTQ int8", "student QAD int8"


@dataclass(frozen=True)
class Artefact:
    """One graph of the run."""

    row: str
    """Its row in the report."""
    dialect: Dialect | None
    """Its dialect; None for fp32."""

    @property
    def stem(self) -> str:
        """Start of its files' names."""
        name = self.row.lower().replace(" ", "-")
        return f"{name}.{self.dialect}" if self.dialect else name

    @property
    def graph(self) -> str:
        """Its file in the stage `graphs`."""
        return f"{self.stem}.onnx"

    @property
    def logits(self) -> str:
        """Logits on the test set: of torch in the stage `graphs`, of the runtime in the stage `prove`."""
        return f"{self.stem}.logits.npy"


_ALL = (
    Artefact(TEACHER, None),
    Artefact(STUDENT, None),
    *(Artefact(row, dialect) for row in (PTQ, QAD) for dialect in DIALECT_OF.values()),
)


def artefacts_in(graphs: Stage) -> tuple[Artefact, ...]:
    """The graphs of a run in the report's order; of the teacher there is one where it is a network."""
    return tuple(artefact for artefact in _ALL if artefact.graph in graphs.file.files)


def artefacts_for(runtime: RuntimeName, graphs: Stage) -> tuple[Artefact, ...]:
    """The rows of a target, in the report's order."""
    wanted = (None, DIALECT_OF[runtime])
    return tuple(artefact for artefact in artefacts_in(graphs) if artefact.dialect in wanted)
