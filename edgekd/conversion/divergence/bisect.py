"""Find the layers at fault by logits alone: take quantizers out until the logits agree.

For runtimes that show no tensor from within, or change what they fuse when asked to; TensorRT 11 has no
precision of a single layer that could be set instead. A layer's quantizers are those of what it gives and
of its weights, and in the place of its constants stand the reference's. First the shortest beginning of
the network without which the logits agree is found by halving; its last layer is one at fault. If its own
quantizers do not make the difference, the search goes on with them taken out. Of n layers it needs about
log2 n graphs for each that is found.

There are two questions. Whether the runtime computes what the graph says: then the same graph, node by
node, is what its logits are held against, and they agree when a quarter of the squared error is left. And
whether the graph says what the reference computes: then quantization itself makes a difference, and the
logits agree when the squared error is no more than three times that of the same graph with the steps that
data give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from edgekd.conversion.divergence.examine import Examination
from edgekd.conversion.divergence.probe import fixed_batch
from edgekd.conversion.divergence.question import Runner
from edgekd.conversion.divergence.sums import decibels
from edgekd.conversion.divergence.without import Group, Part, groups_of, healthy, without
from edgekd.documents.divergence import Bisection
from edgekd.runtimes.onnxruntime import open_session, run_batches

Agrees = Callable[[Sequence[Group], Part | None], bool]
"""Whether the logits agree without the quantizers of some layers, or one part of them."""

_BATCH = 64
_RESTORED = 0.25
"""Share of the squared error between a runtime and the graph that may be left."""
_BEYOND = 3.0
"""Times the squared error of quantization that a graph may have: 5 dB."""
_WORTH = 0.6
"""Share of the squared error that may be left where layers make the difference: 2 dB."""
_MOST = 3
"""Layers that are few enough to be at fault; beyond, the error is everybody's."""


def bisect_graph(
    found: Examination, x: np.ndarray, reference_NK: np.ndarray, run: Runner, runtime: str
) -> Bisection:
    """Search for the layers whose quantization keeps a graph's logits from those of the reference.

    Args:
        found: the candidate beside its reference.
        x: examples (N, ...).
        reference_NK: the reference's logits for them.
        run: gives a graph's logits.
        runtime: what that runtime is called.

    Raises:
        EdgekdError: the runtime cannot run a graph.
    """
    groups = groups_of(found)
    graph = _Errors(found.candidate.model, reference_NK, x, run)
    should = _Errors(healthy(found, groups), reference_NK, x, as_written)
    search = _Search(groups, lambda some, part: graph(some, part) <= _BEYOND * should(some, part))
    at_fault = search.find()
    if graph(at_fault) > _WORTH * graph(()):
        at_fault = []
    return _document(runtime, "fp32", graph, at_fault, search.part(at_fault), should(()))


def bisect_runtime(found: Examination, x: np.ndarray, run: Runner, runtime: str) -> Bisection:
    """Search for the layers whose quantization a runtime computes in another way than the graph says.

    Args:
        found: the candidate.
        x: examples (N, ...).
        run: gives a graph's logits on the runtime.
        runtime: what that runtime is called.

    Raises:
        EdgekdError: a runtime cannot run a graph.
    """
    errors = _Differences(found.candidate.model, x, run)
    allowed = _RESTORED * errors(())
    search = _Search(groups_of(found), lambda some, part: errors(some, part) <= allowed)
    at_fault = search.find()
    return _document(runtime, "as written", errors, at_fault, search.part(at_fault), None)


def as_written(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Logits of a graph on ONNX Runtime, node by node."""
    return run_batches(open_session(model, as_written=True), x, fixed_batch(model) or _BATCH)


class _Errors:
    """Mean squared errors of a graph's logits without the quantizers of some layers, each run once."""

    def __init__(self, model: onnx.ModelProto, reference: np.ndarray, x: np.ndarray, run: Runner) -> None:
        self._model, self._reference, self._x, self._run = model, reference.astype(np.float64), x, run
        self.power = float((self._reference**2).mean())
        self._known: dict[tuple[frozenset[int], Part | None], float] = {}

    @property
    def runs(self) -> int:
        """Graphs that were run."""
        return len(self._known)

    def __call__(self, groups: Sequence[Group], part: Part | None = None) -> float:
        key = frozenset(group.number for group in groups), part
        if key not in self._known:
            error = self._error(without(self._model, groups, part))
            self._known[key] = error if np.isfinite(error) else float(np.finfo(np.float64).max)
        return self._known[key]

    def _error(self, model: onnx.ModelProto) -> float:
        logits = self._run(model, self._x).reshape(self._reference.shape)
        return float(((logits - self._reference) ** 2).mean())


class _Differences(_Errors):
    """The same, against the graph without those quantizers as it is written."""

    def __init__(self, model: onnx.ModelProto, x: np.ndarray, run: Runner) -> None:
        super().__init__(model, as_written(model, x), x, run)

    def _error(self, model: onnx.ModelProto) -> float:
        logits = as_written(model, self._x).astype(np.float64)
        return float(((self._run(model, self._x).reshape(logits.shape) - logits) ** 2).mean())


class _Search:
    """Finds few layers without whose quantizers the logits agree."""

    def __init__(self, groups: list[Group], agrees: Agrees) -> None:
        self._groups, self._agrees = groups, agrees

    def find(self) -> list[Group]:
        """The layers; none if the logits agree as they are, or if it takes many."""
        found: list[Group] = []
        if self._agrees((), None) or not self._agrees(self._groups, None):
            return []
        while not self._agrees(found, None):
            if len(found) == _MOST:
                return []
            found.append(self._next(found))
        return [one for one in found if len(found) == 1 or not self._agrees(_but(found, one), None)]

    def part(self, found: list[Group]) -> Part | None:
        """Whether the weights or the activations of a single layer make the difference alone."""
        parts: tuple[Part, ...] = ("weights", "activations")
        return next((part for part in parts if len(found) == 1 and self._agrees(found, part)), None)

    def _next(self, found: list[Group]) -> Group:
        """The last layer of the shortest beginning that restores the logits together with what was found."""
        few, many = 0, len(self._groups)
        while many - few > 1:
            middle = (few + many) // 2
            if self._agrees([*found, *self._groups[:middle]], None):
                many = middle
            else:
                few = middle
        return self._groups[many - 1]


def _but(groups: list[Group], one: Group) -> list[Group]:
    return [other for other in groups if other is not one]


def _document(
    runtime: str,
    against: str,
    errors: _Errors,
    at_fault: list[Group],
    part: Part | None,
    expected: float | None,
) -> Bisection:
    return Bisection(
        runtime=runtime,
        against=against,
        runs=errors.runs,
        before_db=decibels(errors.power, errors(())),
        after_db=decibels(errors.power, errors(at_fault)),
        expected_db=None if expected is None else decibels(errors.power, expected),
        layers=tuple(group.name for group in at_fault),
        part=part if part is not None or not at_fault else "both",
    )
