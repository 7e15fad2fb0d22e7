"""The reference, layer by layer on the candidate's own inputs.

Errors add up on the way through a network, so the layer where the figures become bad need not be the one
that is at fault. Here the reference is cut at every tensor that the two graphs share, and each piece is
given what the candidate really reads there; what it makes is what the candidate's layer ought to make.
One bad layer is not charged to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.conversion.divergence.layers import Candidate
from edgekd.conversion.divergence.match import Match, Pair, segment
from edgekd.conversion.divergence.probe import Probe, Values, as_input, like, probe
from edgekd.conversion.divergence.skeleton import Skeleton

_FED = "fed::"


@dataclass(frozen=True)
class Feed:
    """One input of the cut reference."""

    candidate: str
    """The candidate's tensor that is given to it: dequantized, where the candidate reads it so."""
    reference: str
    """The reference's tensor in whose place it stands, and whose shape and type it gets."""


@dataclass(frozen=True)
class Cut:
    """The reference in pieces, ready to run."""

    probe: Probe
    feeds: dict[str, Feed]
    """By the name of the input."""
    blurred: frozenset[str]
    """Ends of pieces in which the candidate has quantizers that the reference cannot show."""

    def run(self, x: np.ndarray, source: str, candidate: Values, reference: Values) -> Values:
        """What every piece makes, by the reference's names.

        Args:
            x: the batch.
            source: the reference's input.
            candidate: the candidate's tensors for it.
            reference: the reference's own, for their shapes and types.
        """
        given = {}
        for name, feed in self.feeds.items():
            other = reference[feed.reference]
            given[name] = like(candidate[feed.candidate], other).astype(other.dtype)
        known = {entry.name for entry in self.probe.session.get_inputs()}
        own = {source: as_input(x, self.probe.session, source)} if source in known else {}
        return self.probe.run({**given, **own})


def checkpoints(candidate: Candidate, match: Match) -> tuple[Pair, ...]:
    """The pairs at which the reference is cut: the ends of layers."""
    ends = [layer.end for layer in candidate.layers if layer.end not in candidate.in_codes]
    return tuple(match.by_candidate[end] for end in ends if end in match.by_candidate)


def made_by(reference: Skeleton, pairs: tuple[Pair, ...]) -> list[Pair]:
    """The pairs whose tensor the reference makes: all but its input."""
    return [pair for pair in pairs if pair.reference != reference.input]


def cut(
    candidate: Candidate,
    reference: Skeleton,
    pairs: tuple[Pair, ...],
    weights: Mapping[tuple[str, int], np.ndarray],
) -> Cut:
    """Cut the reference at the pairs.

    Args:
        candidate: the graph whose tensors it will be given.
        reference: the graph to cut.
        pairs: its checkpoints, the input first.
        weights: constants to put in the place of the reference's, by the tensor that is made of each and its
            position among the inputs of the node that makes it.

    Raises:
        ConversionError: ONNX Runtime refuses the pieces.
    """
    edges, feeds, blurred = _edges(candidate, reference, pairs)
    model = onnx.ModelProto()
    model.CopyFrom(reference.model)
    for node in model.graph.node:
        made = next(filter(None, node.output), "")
        for position in range(len(node.input)):
            if (made, position) in edges:
                node.input[position] = edges[made, position]
            elif (made, position) in weights:
                name = f"{_FED}{made}:{position}"
                value = weights[made, position]
                model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
                node.input[position] = name
    for name in feeds:
        model.graph.input.append(helper.make_tensor_value_info(name, _type_of(reference, feeds[name]), None))
    return Cut(
        probe(model, [pair.reference for pair in made_by(reference, pairs)]), feeds, frozenset(blurred)
    )


def _edges(
    candidate: Candidate, reference: Skeleton, pairs: tuple[Pair, ...]
) -> tuple[dict[tuple[str, int], str], dict[str, Feed], set[str]]:
    """Which readings of the reference get which input."""
    known = {pair.reference: pair for pair in pairs}
    edges: dict[tuple[str, int], str] = {}
    feeds: dict[str, Feed] = {}
    blurred = set()
    for pair in made_by(reference, pairs):
        read, hidden = _versions(candidate, pair.candidate, {one.candidate for one in pairs})
        if hidden:
            blurred.add(pair.candidate)
        for tensor, position, source in segment(reference, pair.reference, known):
            version = read.get(known[source].candidate) if source in known else None
            if version is not None:
                name = f"{_FED}{version}"
                feeds.setdefault(name, Feed(version, source))
                made = next(filter(None, tensor.node.output))
                edges.setdefault((made, position), name)
    return edges, feeds, blurred


def _versions(candidate: Candidate, end: str, known: Iterable[str]) -> tuple[dict[str, str], bool]:
    """What the candidate really reads before a layer's end, and whether quantizers are hidden there."""
    quantized = {one.name for one in candidate.quantized}
    read: dict[str, str] = {}
    hidden = False
    for tensor, position, source in segment(candidate.form, end, known):
        name = candidate.read_as(tensor.name, position)
        if source not in known:
            hidden |= source in quantized
        elif candidate.is_codes(name):  # what only moves reads codes; the values are those, not yet rounded
            read.setdefault(source, source)
            hidden = True
        elif name != source or source not in read:
            read[source] = name
    return read, hidden


def _type_of(reference: Skeleton, feed: Feed) -> int:
    """Element type of a fed tensor: that of the reference's tensor."""
    if feed.reference == reference.input:
        (entry,) = (one for one in reference.model.graph.input if one.name == reference.input)
        return int(entry.type.tensor_type.elem_type)
    return int(helper.np_dtype_to_tensor_dtype(reference.tensors[feed.reference].dtype))
