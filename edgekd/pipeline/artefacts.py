"""The graphs of a run: which rows of the report they are, where their files lie, and which of them ships."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from edgekd.documents.recipe import Target
from edgekd.documents.spec import Dialect, FloatDialect, Int8Dialect
from edgekd.files import write_text
from edgekd.pipeline.run_folder import Stage

TEACHER, STUDENT = "teacher fp32", "student fp32"
FP16, FP8 = "student fp16", "student fp8"
_LIST = "artefacts.json"
_DIALECTS: tuple[Dialect, ...] = (*get_args(Int8Dialect), *get_args(FloatDialect))


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


def keep_list(
    folder: Path, rows: Sequence[str], *, ships: str, why: str, dialects: Mapping[str, Dialect]
) -> None:
    """Write which rows there are, in the report's order, which of them ships, why, and in which dialects."""
    data = {"rows": list(rows), "ships": ships, "why": why, "dialects": dict(dialects)}
    write_text(folder / _LIST, json.dumps(data, indent=2) + "\n")


def artefacts_in(graphs: Stage) -> tuple[Artefact, ...]:
    """The graphs of a run in the report's order; of the teacher there is one where it is a network."""
    rows: list[str] = graphs.json(_LIST)["rows"]
    every = [Artefact(row, dialect) for row in rows for dialect in (None, *_DIALECTS)]
    return tuple(artefact for artefact in every if artefact.graph in graphs.file.files)


def int8_dialects(dialects: Iterable[Dialect]) -> tuple[Int8Dialect, ...]:
    """Those of the dialects that have integer codes."""
    return tuple(dialect for dialect in get_args(Int8Dialect) if dialect in dialects)


def dialect_for(target: Target, graphs: Stage) -> Dialect:
    """The dialect that a target gets."""
    dialect: Dialect = graphs.json(_LIST)["dialects"][target.name]
    return dialect


def artefacts_for(target: Target, graphs: Stage) -> tuple[Artefact, ...]:
    """The rows of a target, in the report's order."""
    wanted = (None, dialect_for(target, graphs))
    return tuple(artefact for artefact in artefacts_in(graphs) if artefact.dialect in wanted)


def shipped_for(target: Target, graphs: Stage) -> Artefact:
    """The graph that a target gets."""
    row = {"int8": graphs.json(_LIST)["ships"], "fp16": FP16, "fp8": FP8}[target.precision]
    return Artefact(row, dialect_for(target, graphs))


def why_it_ships(graphs: Stage) -> str:
    """Why the quantized student that ships does, a line."""
    why: str = graphs.json(_LIST)["why"]
    return why
