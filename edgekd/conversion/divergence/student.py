"""The trained student beside a graph that was made of it: its scales, and its fake-quantized tensors.

A graph is made of the student without a choice, so that there is no noise to allow for: on the same
inputs its codes are the student's, but for a value in a thousand that lies between two codes and is
rounded the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from edgekd.conversion.divergence.grid import Grid, grid_of
from edgekd.conversion.divergence.layers import Candidate, open_candidate
from edgekd.conversion.divergence.match import match
from edgekd.conversion.divergence.probe import Values, like
from edgekd.conversion.divergence.sums import Difference

MOST_OFF = 0.05
"""Share of a layer's codes that may differ from the student's on the same inputs."""


class FakeQuantized(Protocol):
    """The student in its framework, with a look inside."""

    def run(self, x: np.ndarray, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Values]:
        """Logits, and what the quantizers make, by the names of the tensors in the student's graph.

        Args:
            x: a batch.
            given: tensors that go on from a quantizer in the place of what it made.
        """


@dataclass
class StudentLayer:
    """A layer of the candidate beside the student's."""

    grid: Grid
    """The student's quantizer."""
    whose: str
    """What messages call the student."""
    name: str
    """The tensor in the student's graph."""
    trained: Difference = field(default_factory=Difference)
    """The reference's tensor against the student's: what quantization does to the student up to here."""
    whole: Difference = field(default_factory=Difference)
    """The student's tensor against the candidate's: all that happened up to here."""
    codes: int = 0
    off: int = 0
    """Codes on the candidate's inputs, and how many of them differ."""

    @property
    def share_off(self) -> float:
        """Share of the codes that differ."""
        return self.off / self.codes if self.codes else 0.0


class Student:
    """What is known of the trained student, by the ends of the candidate's layers."""

    def __init__(
        self,
        candidate: Candidate,
        graph: onnx.ModelProto,
        network: FakeQuantized | None,
        x: np.ndarray,
        called: str,
    ) -> None:
        """Match the student's own graph with the candidate.

        Raises:
            ConversionError: the student's graph cannot be run.
        """
        own = open_candidate(graph, x, "student")
        quantized = {one.name for one in candidate.quantized}
        grids = {layer.end: grid_of(layer.quantizers[0]) for layer in own.layers if layer.quantizers}
        self.network = network
        self.layers: dict[str, StudentLayer] = {}
        self.logits: list[np.ndarray] = []
        with_quantizer = [layer for layer in candidate.layers if layer.quantizers]
        self._opened = {layer.end: layer.quantizers[0].dequantizers[0].output[0] for layer in with_quantizer}
        for pair in match(candidate.form, own.form, quantized).pairs:
            grid = grids.get(pair.reference)
            if grid is not None and pair.candidate in self._opened:
                self.layers[pair.candidate] = StudentLayer(grid, called, pair.reference)

    def watch(self, x: np.ndarray, mine: Values, theirs: Mapping[str, np.ndarray]) -> None:
        """Take in a batch, the candidate's tensors for it, and the reference's by the candidate's names."""
        if self.network is None:
            return
        logits, free = self.network.run(x, {})
        self.logits.append(logits)
        known = {
            end: one for end, one in self.layers.items() if one.name in free and self._opened[end] in mine
        }
        given = {one.name: like(mine[self._opened[end]], free[one.name]) for end, one in known.items()}
        _, local = self.network.run(x, given)
        for end, one in known.items():
            if end in theirs:
                one.trained.add(theirs[end], like(free[one.name], theirs[end]))
            one.whole.add(free[one.name], given[one.name])
            steps = np.abs(local[one.name].astype(np.float64) - given[one.name]) / one.grid.scale
            one.codes += steps.size
            one.off += int((steps > 0.5).sum())
