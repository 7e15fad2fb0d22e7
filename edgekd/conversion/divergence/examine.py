"""Measure every layer of a candidate against its reference, over examples, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx

from edgekd.conversion.divergence.constants import ConstantPair
from edgekd.conversion.divergence.forced import checkpoints, cut
from edgekd.conversion.divergence.grid import Grid, grid_of
from edgekd.conversion.divergence.layers import Candidate, Layer
from edgekd.conversion.divergence.match import Match, Pair, segment
from edgekd.conversion.divergence.pairing import codings_of, constant_pairs, unknown_steps
from edgekd.conversion.divergence.probe import Probe, Values, as_input, input_of, input_shape, like, probe
from edgekd.conversion.divergence.skeleton import MOVERS, TRANSPARENT, Skeleton
from edgekd.conversion.divergence.sums import Difference, Extent
from edgekd.conversion.remove_quantizers import QuantizedTensor

_BATCH_BYTES = 2**27
"""Most that the tensors of one batch may weigh, of one graph."""
_LARGEST_BATCH = 64
_PRECISION = {"float16": 3e-3, "bfloat16": 3e-2}


@dataclass
class Met:
    """A quantizer's grid, and the values that it meets."""

    grid: Grid
    operation: str
    """Type of the operator that makes the values."""
    extent: Extent = field(default_factory=Extent)
    """The reference's values, or the candidate's own where the reference has none of them."""


@dataclass
class Examined:
    """What was measured of a layer."""

    layer: Layer
    pair: Pair | None
    """The reference's tensor that it stands for; None where there is none."""
    values: str | None = None
    """The reference's tensor with the values that it gives: its counterpart, or what it only moves."""
    met: tuple[Met, ...] = ()
    """The grids of its quantizers, of those that are of whole numbers and one scale."""
    constants: list[ConstantPair] = field(default_factory=list)
    """The constants of its operators beside the reference's."""
    blurred: bool = False
    """Whether the candidate has quantizers within it that the reference cannot show."""
    lacking: tuple[str, ...] = ()
    """The reference's tensors within it that the candidate does not have."""
    added: tuple[str, ...] = ()
    """The candidate's that the reference does not have."""
    alike: bool = True
    """Whether all that both do to values, rather than where they put them, corresponds."""
    whole: Difference = field(default_factory=Difference)
    """The reference's tensor against the candidate's: all that happened up to here."""
    operation: Difference = field(default_factory=Difference)
    """The reference's layer on the candidate's inputs against the candidate's, before its quantizer."""
    local: Difference = field(default_factory=Difference)
    """The same, behind its quantizer."""
    structure: Difference = field(default_factory=Difference)
    """The reference's layer with the candidate's constants against the candidate's."""
    rounding: Difference = field(default_factory=Difference)
    """What rounding the reference's weights does to its layer on the candidate's inputs."""
    precision: float = 1e-4
    """Relative error that computing in its float type may make."""
    unknown_steps: int | None = None
    """Steps of a quantized weight that the reference has in another form, if there is one."""

    @property
    def grid(self) -> Grid | None:
        """The grid of its first quantizer."""
        return self.met[0].grid if self.met else None

    @property
    def through_grid(self) -> bool:
        """Whether `operation` is taken behind the quantizer, which may do a missing Relu's work."""
        return self.pair is not None and bool(self.pair.missing) and self.grid is not None


@dataclass
class Examination:
    """A candidate beside its reference."""

    candidate: Candidate
    reference: Skeleton
    match: Match
    layers: list[Examined]
    logits: Difference = field(default_factory=Difference)
    """The reference's first output against the candidate's."""
    outputs: tuple[list[np.ndarray], list[np.ndarray]] = field(default_factory=lambda: ([], []))
    """Both outputs, batch by batch."""


Constants = dict[tuple[str, int], np.ndarray]
"""By the tensor that a node makes of them and their position among its inputs."""
Watcher = Callable[[np.ndarray, Values, Values], None]
"""Is given each batch, the candidate's tensors for it, and the reference's by the candidate's names."""


def examine(
    candidate: Candidate, reference: Skeleton, match: Match, x: np.ndarray, watch: Watcher | None = None
) -> Examination:
    """Run both graphs as they are written, and the reference's layers on the candidate's inputs.

    Raises:
        ConversionError: a graph cannot be run.
    """
    pairs = checkpoints(candidate, match)
    codings = codings_of(candidate)
    constants = constant_pairs(candidate, reference, match.pairs, codings)
    runs = _Runs(candidate, reference, pairs, [one for group in constants.values() for one in group])
    found = Examination(candidate, reference, match, [])
    for layer in candidate.layers:
        pair = None if layer.end in candidate.in_codes else match.by_candidate.get(layer.end)
        one = Examined(layer, pair, _values(candidate.form, layer.end, match))
        grids = [grid for grid in map(grid_of, layer.quantizers) if grid is not None]
        one.met = tuple(Met(grid, layer.operation.split(" + ")[-1]) for grid in grids)
        one.constants = [pair for name in layer.tensors for pair in constants.get(name, [])]
        if layer.end in candidate.form.tensors:
            one.precision = _PRECISION.get(candidate.form.tensors[layer.end].dtype.name, one.precision)
        one.unknown_steps = unknown_steps(candidate, codings, layer.tensors, one.constants)
        one.blurred = layer.end in runs.exact.blurred
        if one.pair is not None and one.pair.reference != reference.input:
            one.lacking = _alone(reference, one.pair.reference, pairs, match, side=1)
            one.added = _alone(candidate.form, one.pair.candidate, pairs, match, side=0)
            alone = [(reference, name) for name in one.lacking] + [
                (candidate.form, name) for name in one.added
            ]
            one.alike = all(form.tensors[name].node.op_type in MOVERS for form, name in alone)
        found.layers.append(one)
    for batch in _batches(x, runs):
        _add(found, runs, batch, watch)
    return found


def _values(form: Skeleton, name: str, match: Match) -> str | None:
    """The reference's tensor that holds the values of one of the candidate's, perhaps in other places."""
    while name not in match.by_candidate:
        tensor = form.tensors[name]
        moves = tensor.node.op_type in (*MOVERS, *TRANSPARENT) and tensor.node.op_type not in (
            "Concat",
            "Pad",
        )
        if not moves or len(tensor.sources) != 1:
            return None
        name = tensor.sources[0][1]
    return match.by_candidate[name].reference


def _alone(form: Skeleton, end: str, pairs: tuple[Pair, ...], match: Match, *, side: int) -> tuple[str, ...]:
    """Tensors between checkpoints that have no counterpart, from the first to the last."""
    known = {(pair.candidate, pair.reference)[side] for pair in pairs}
    cores = {pair.core[side] for pair in match.pairs}
    cores.update(name for pair in match.pairs for name in pair.absorbed[side])
    visited = {tensor.name: tensor for tensor, _, _ in segment(form, end, known)}
    visited = {name: one for name, one in visited.items() if one.node.op_type not in TRANSPARENT}
    return tuple(name for name in form.tensors if name in visited and name not in cores)


class _Runs:
    """The sessions that an examination needs."""

    def __init__(
        self,
        candidate: Candidate,
        reference: Skeleton,
        pairs: tuple[Pair, ...],
        constants: list[ConstantPair],
    ) -> None:
        self.exact = cut(candidate, reference, pairs, {})
        given, rounded = _given(constants), _rounded(constants)
        self.given = cut(candidate, reference, pairs, given) if given else self.exact
        self.rounded = cut(candidate, reference, pairs, rounded) if rounded else self.exact
        whole = [layer for layer in candidate.layers if layer.end not in candidate.in_codes]
        own = [name for layer in whole for name in (layer.end, *_opened(layer))]
        read = [feed.candidate for feed in self.exact.feeds.values()]
        outputs = [model.graph.output[0].name for model in (candidate.model, reference.model)]
        self.candidate = probe(candidate.model, [*own, *read, outputs[0]])
        self.reference = probe(reference.model, [*(pair.reference for pair in pairs), outputs[1]])
        self.outputs = outputs
        self.inputs = (input_of(candidate.model, "candidate"), input_of(reference.model, "reference"))

    def values(self, which: Probe, name: str, x: np.ndarray) -> Values:
        """The tensors of a graph for a batch; the input itself among them."""
        return {**which.run({name: as_input(x, which.session, name)}), name: x}


def batch_size(*shapes: tuple[int | None, ...] | None) -> int | None:
    """The number of examples that graphs take at a time; None where they take any."""
    fixed = {shape[0] for shape in shapes if shape} - {None}
    return min((size for size in fixed if size is not None), default=None)


def _opened(layer: Layer) -> Iterator[str]:
    """What comes out behind a layer's quantizer, where its two halves only round."""
    for one in layer.quantizers[:1]:
        assert one.quantizer is not None
        for node in one.dequantizers:
            if node.input[0] == one.quantizer.output[0] and _same_scale(one, node):
                yield node.output[0]


def _same_scale(one: QuantizedTensor, node: onnx.NodeProto) -> bool:
    assert one.quantizer is not None
    scales = [one.view.constant(half.input[1]) for half in (one.quantizer, node)]
    return scales[0] is None or scales[1] is None or np.array_equal(scales[0], scales[1])


def _rounded(constants: list[ConstantPair]) -> Constants:
    """The reference's constants as they should be in the candidate, by where the reference reads them."""
    return {
        one.places[1]: one.rounded_reference()
        for one in constants
        if one.coding is not None and not one.coding.is_wide
    }


def _given(constants: list[ConstantPair]) -> Constants:
    """The candidate's constants, by where the reference reads its own."""
    return {
        one.places[1]: one.candidate.astype(one.reference.dtype)
        for one in constants
        if one.comparable and not np.array_equal(one.candidate, one.reference)
    }


def _batches(x: np.ndarray, runs: _Runs) -> Iterator[np.ndarray]:
    """The examples in batches that both graphs take and that fit into memory."""
    fixed = batch_size(*map(input_shape, runs.inputs))
    if fixed is not None:
        x = x[: len(x) - len(x) % fixed]
    size = fixed or _fitting(x, runs)
    for start in range(0, len(x), size):
        yield x[start : start + size]


def _fitting(x: np.ndarray, runs: _Runs) -> int:
    first = runs.values(runs.candidate, runs.inputs[0].name, x[:1])
    weight = sum(value.nbytes for value in first.values() if isinstance(value, np.ndarray))
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES // max(weight, 1)))


def _add(found: Examination, runs: _Runs, x: np.ndarray, watch: Watcher | None) -> None:
    mine = runs.values(runs.candidate, runs.inputs[0].name, x)
    theirs = runs.values(runs.reference, runs.inputs[1].name, x)
    source = runs.inputs[1].name
    pieces = {id(one): one.run(x, source, mine, theirs) for one in (runs.exact, runs.given, runs.rounded)}
    for one in found.layers:
        for met in one.met:
            values = mine.get(one.layer.end) if one.values is None else theirs[one.values]
            if values is not None:
                _meet(met, values)
        if one.pair is not None:
            name = one.pair.reference
            versions = [pieces[id(which)].get(name, x) for which in (runs.exact, runs.given, runs.rounded)]
            _add_layer(one, mine, theirs[name], versions)
    outputs = theirs[runs.outputs[1]], mine[runs.outputs[0]]
    found.logits.add(outputs[0].reshape(outputs[1].shape), outputs[1])
    for kept, value in zip(found.outputs, outputs, strict=True):
        kept.append(value)
    if watch is not None:
        pairs = [one.pair for one in found.layers if one.pair is not None]
        watch(x, mine, {pair.candidate: theirs[pair.reference] for pair in pairs})


def _add_layer(one: Examined, mine: Values, free: np.ndarray, versions: list[np.ndarray]) -> None:
    """Take in a batch: what the reference makes on its own, and of the candidate's inputs in 3 versions."""
    made = like(mine[one.layer.end], free)
    behind = next((like(mine[name], free) for name in _opened(one.layer)), made)
    exact, given, rounded = versions
    one.whole.add(free, behind)
    one.local.add(exact, behind)
    one.rounding.add(exact, rounded)
    one.structure.add(given, made)
    if one.through_grid and one.grid is not None:
        one.operation.add(one.grid.apply(exact), behind)
    else:
        one.operation.add(exact, made)


def _meet(met: Met, x: np.ndarray) -> None:
    met.extent.add(x, met.grid.apply(x.astype(np.float32)), met.grid.limits, met.grid.scale)
