"""What is asked: a candidate, its reference, examples, and what else is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from edgekd.conversion.divergence.student import FakeQuantized

Runner = Callable[[onnx.ModelProto, np.ndarray], np.ndarray]
"""Logits (N, K) of a graph for examples (N, ...)."""


@dataclass(frozen=True)
class Subject:
    """A graph to be compared."""

    name: str
    """What it is called."""
    model: onnx.ModelProto
    """With its weights inside."""
    sha256: str
    """Digest of its file."""


@dataclass(frozen=True)
class Runtime:
    """What runs the candidate in earnest."""

    name: str
    """What it is called, such as `onnxruntime, optimized`."""
    run: Runner
    """Gives the first output for examples."""


@dataclass(frozen=True)
class Question:
    """What is asked of a candidate and its reference."""

    candidate: Subject
    reference: Subject
    dialect: str
    """What the links call the candidate."""
    x: np.ndarray
    """Examples (N, ...)."""
    representative: bool = True
    """Whether the examples are data of the network's, so that scales can be judged by them."""
    student_graph: onnx.ModelProto | None = None
    """The trained student's own graph, where there is one: its scales are what the candidate's must be."""
    student_called: str = "the trained student"
    """What messages call whose graph that is."""
    network: FakeQuantized | None = None
    """The trained student itself."""
    student_logits: np.ndarray | None = None
    """Its logits (N, K) under this dialect's saturation, where they were kept."""
    runtime: Runtime | None = None
    """What runs the candidate in earnest; None where nothing can."""
    notes: tuple[str, ...] = ()
    """What is to be known beforehand."""

    @property
    def written(self) -> str:
        """What the links call the candidate node by node."""
        return f"{self.dialect} as written"
