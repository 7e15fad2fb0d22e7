"""Which tensors of two float forms are the same tensor of one network.

Both forms are lists in the order of computation. The best common order of the two lists is found
(Needleman and Wunsch, "A general method applicable to the search for similarities in the amino acid
sequence of two proteins", J. Mol. Biol. 48, 1970): only tensors of one shape that operators of one kind
make may correspond, and those whose nodes carry the same module path or the same names are preferred.
What corresponds must also be wired alike: reading back from both to the nearest tensors that correspond,
the same ones have to be found. Whatever fails that stands alone and is listed; nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgekd.conversion.divergence.skeleton import TRANSPARENT, Skeleton, Tensor

_SAME_NAMES, _SAME_PATH, _WEIGHTED, _ANY, _FILLED = 8.0, 3.0, 2.0, 1.0, 0.5
_MOST_PADDING = 16
"""Channels that a dialect may add to what kernels are slow with."""


@dataclass(frozen=True)
class Pair:
    """A tensor of the candidate and the reference's tensor that it stands for."""

    candidate: str
    reference: str
    extra: tuple[str, ...] = ()
    """The last tensors up to `candidate` that have no counterpart."""
    missing: tuple[str, ...] = ()
    """The same of the reference: operators that the candidate lacks."""
    core: tuple[str, str] = ("", "")
    """The two tensors whose operators correspond."""
    absorbed: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """Of `extra` and `missing` the additions that the other operator does itself: a Gemm adds its bias."""


@dataclass(frozen=True)
class Match:
    """What corresponds in two forms."""

    pairs: tuple[Pair, ...]
    """In the candidate's order; the first are the two inputs."""
    wired_otherwise: tuple[tuple[str, str], ...] = ()
    """Candidate's and reference's tensors that seemed to correspond, but read other tensors."""
    by_candidate: dict[str, Pair] = field(default_factory=dict)
    """The pairs by their candidate's tensor."""


def match(candidate: Skeleton, reference: Skeleton, quantized: Collection[str] = ()) -> Match:
    """Match two float forms that were made with the same examples.

    `quantized` are the candidate's tensors that have a quantizer: each is the end of a layer.
    """
    found = _align(candidate, reference)
    accepted = _Accepted(candidate, reference, found, quantized)
    for tensor in candidate.tensors.values():
        if tensor.name in found:
            accepted.consider(tensor.name, found[tensor.name])
    pairs = tuple(accepted.pairs)
    return Match(pairs, tuple(accepted.refused), {pair.candidate: pair for pair in pairs})


def boundary(form: Skeleton, name: str, known: Iterable[str]) -> set[str]:
    """The nearest tensors before one that are known."""
    return {source for _, _, source in segment(form, name, known) if source in known}


def segment(form: Skeleton, name: str, known: Iterable[str]) -> Iterator[tuple[Tensor, int, str]]:
    """Every reading (tensor, position of its node's input, source) on the way back to known tensors."""
    waiting, seen = [name] if name in form.tensors else [], {name}
    while waiting:
        tensor = form.tensors[waiting.pop()]
        for position, source in tensor.sources:
            yield tensor, position, source
            if source not in known and source in form.tensors and source not in seen:
                seen.add(source)
                waiting.append(source)


class _Accepted:
    """Pairs that are wired alike, found in the candidate's order."""

    def __init__(
        self, candidate: Skeleton, reference: Skeleton, found: dict[str, str], quantized: Collection[str]
    ) -> None:
        self.candidate, self.reference, self.quantized = candidate, reference, quantized
        self.aligned = {**found}, {other: one for one, other in found.items()}
        mine = [candidate.input, *_following(candidate, candidate.input, self.aligned[0], quantized)]
        theirs = [reference.input, *_following(reference, reference.input, self.aligned[1], ())]
        self.pairs = [Pair(mine[-1], theirs[-1])]
        self.known = {mine[-1]: theirs[-1]}
        self.refused: list[tuple[str, str]] = []

    def consider(self, name: str, other: str) -> None:
        """Accept a pair if both read the same tensors."""
        mine = {self.known[one] for one in boundary(self.candidate, name, self.known)}
        theirs = boundary(self.reference, other, set(self.known.values()))
        if mine != theirs:
            self.refused.append((name, other))
            return
        extra = _following(self.candidate, name, self.aligned[0], self.quantized)
        missing = _following(self.reference, other, self.aligned[1], ())
        pair = Pair(
            [name, *extra][-1],
            [other, *missing][-1],
            tuple(extra),
            tuple(missing),
            (name, other),
            (_biases(self.candidate, name, extra), _biases(self.reference, other, missing)),
        )
        self.pairs.append(pair)
        self.known[pair.candidate] = pair.reference


def _biases(form: Skeleton, name: str, following: list[str]) -> tuple[str, ...]:
    """The addition right behind a product, which a Gemm has within it."""
    if form.kind(name) != "product":
        return ()
    return tuple(one for one in following[:1] if form.tensors[one].node.op_type == "Add")


def _following(form: Skeleton, name: str, aligned: dict[str, str], ends: Collection[str]) -> list[str]:
    """What follows a tensor, belongs to it and has no counterpart, such as an activation."""
    found: list[str] = []
    while len(form.readers(name)) == 1 and not form.view.is_output(name) and name not in ends:
        after = form.readers(name)[0].output[0]
        if after not in form.tensors or after in aligned:
            break
        if name == form.input and form.tensors[after].node.op_type not in ("Pad", *TRANSPARENT):
            break
        if not form.is_tail(after) and form.tensors[after].node.op_type not in TRANSPARENT:
            break
        found.append(after)
        name = after
    return found


def _align(candidate: Skeleton, reference: Skeleton) -> dict[str, str]:
    """The candidate's tensors with those of the reference at the same place of the common order."""
    rows, columns = (list(_listed(form)) for form in (candidate, reference))
    named = _by_names(candidate, reference)
    scores = _scores(candidate, reference)
    aligned = dict(_trace(scores, rows, columns))
    taken = set(named.values())
    return {
        **{one: other for one, other in aligned.items() if one not in named and other not in taken},
        **named,
    }


def _listed(form: Skeleton) -> Iterator[Tensor]:
    return (tensor for tensor in form.tensors.values() if tensor.node.op_type not in TRANSPARENT)


def _by_names(candidate: Skeleton, reference: Skeleton) -> dict[str, str]:
    """Tensors that keep both their own and their node's name: tools that quantize a file leave them so."""
    known = {(other.name, other.node.name): other for other in _listed(reference) if other.node.name}
    found = {}
    for one in _listed(candidate):
        other = known.get((one.name, one.node.name))
        if other is not None and _key(candidate, one) == _key(reference, other) and _fits(one, other):
            found[one.name] = other.name
    return found


def _key(form: Skeleton, tensor: Tensor) -> tuple[str, int]:
    """What two tensors must share: the kind of the operator, and which of its outputs it is."""
    return form.kind(tensor.name), list(tensor.node.output).index(tensor.name)


def _fits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values in the same order, but for channels that only fill up."""
    sizes = [[size for size in tensor.shape if size != 1] for tensor in (one, other)]
    if sizes[0] == sizes[1]:
        return True
    if math.prod(one.shape) == math.prod(other.shape):  # tokens in one axis with the batch, or in their own
        return sizes[0][-1:] == sizes[1][-1:] and 2 in (len(one.shape), len(other.shape))
    return len(one.shape) == len(other.shape) > 2 and _is_filled(one.shape, other.shape)


def _is_filled(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one of two shapes (B, C, ...) is the other one with some channels more."""
    return (shape[0], *shape[2:]) == (other[0], *other[2:]) and abs(shape[1] - other[1]) < _MOST_PADDING


def _scores(candidate: Skeleton, reference: Skeleton) -> np.ndarray:
    """How well each tensor of the candidate goes with each of the reference; below 0 where it must not."""
    rows, columns = list(_listed(candidate)), list(_listed(reference))
    places: dict[object, list[int]] = {}
    for place, other in enumerate(columns):
        places.setdefault(_key(reference, other), []).append(place)
    scores = np.full((len(rows), len(columns)), -1.0, np.float32)
    for row, one in enumerate(rows):
        weight = _WEIGHTED if candidate.is_weighted(one.name) else _ANY
        for place in places.get(_key(candidate, one), []):
            other = columns[place]
            if _fits(one, other):
                path = _SAME_PATH if one.stem and one.stem == other.stem else 0.0
                names = _SAME_NAMES if (one.name, one.node.name) == (other.name, other.node.name) else 0.0
                filled = 1.0 if one.shape[1:2] == other.shape[1:2] or path else _FILLED
                scores[row, place] = filled * weight + path + names
    return scores


def _trace(scores: np.ndarray, rows: list[Tensor], columns: list[Tensor]) -> Iterator[tuple[str, str]]:
    """The pairs of the common order with the highest sum of scores."""
    best = np.zeros((len(rows) + 1, len(columns) + 1), np.float32)
    for row in range(len(rows)):
        paired = np.where(scores[row] > 0, best[row, :-1] + scores[row], 0)
        best[row + 1, 1:] = np.maximum.accumulate(np.maximum(best[row, 1:], paired))
    row, column = len(rows), len(columns)
    while row and column:
        score = scores[row - 1, column - 1]
        if best[row, column] == best[row, column - 1]:
            column -= 1
        elif best[row, column] == best[row - 1, column]:
            row -= 1
        else:
            assert score > 0
            row, column = row - 1, column - 1
            yield rows[row].name, columns[column].name
