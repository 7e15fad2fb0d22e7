"""Which layers a student cannot have quantized, and the scheme that spares the fewest of them.

Each layer alone is given more precision while the others stay as they are, and so is each activation; the
figure is by how much the divergence from the fp32 student falls, KL(fp32 || quantized) on validation
examples. An activation that hurts is spared only with all layers around it in float, so these are tried
together too. What sparing costs is measured by the caller. From both follows the set of layers to spare
(spare.py); it is judged by top-1 on all validation examples, and in the end calibrated anew as it would ship.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor, nn

from edgekd.documents.scheme import LayerPrecision, Scheme
from edgekd.documents.sensitivity import (
    Cost,
    GroupSensitivity,
    LayerSensitivity,
    SearchStep,
    TensorSensitivity,
    Worth,
)
from edgekd.quantization.layers import layers_around, quantizer_at, sources_of
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.reuse import Variant, logits_of
from edgekd.quantization.scheme import Saturation
from edgekd.quantization.spare import Candidate, Layers, Spared, spare
from edgekd.quantization.variants import Variants
from edgekd.quantization.worth import Judge

EXAMPLES = 512
"""Validation examples on which layers are compared: a mean divergence needs fewer than a share of answers."""
GROUPS = 8
"""Activations around which layers are tried together: those that hurt most."""

NOTHING: Layers = frozenset()
Measure = Callable[[Mapping[Layers, QuantizedNetwork]], Mapping[Layers, Cost]]
"""What networks cost beside the one in which nothing is spared, by the layers that each spares."""


@dataclass(frozen=True)
class Found:
    """The scheme that was found, and the figures that it rests on; documents/sensitivity.py explains them."""

    precision: LayerPrecision
    scheme: Scheme
    within: bool
    fp32_top1: float
    start: Worth
    found: Worth
    cost: Cost
    all_cost: Cost
    examples: int
    layers: tuple[LayerSensitivity, ...]
    tensors: tuple[TensorSensitivity, ...]
    groups: tuple[GroupSensitivity, ...]
    steps: tuple[SearchStep, ...]


def find_scheme(
    student: nn.Module,
    build: Callable[[Scheme], QuantizedNetwork],
    x_NC: Tensor,
    y_N: Tensor,
    *,
    start: Scheme,
    budget_pt: float,
    measure: Measure,
    saturation: Saturation,
) -> Found:
    """Find the smallest set of layers to spare: in float, or by 8 bits where the start has weights of 4.

    Args:
        student: the fp32 student, in evaluation.
        build: a scheme -> the student prepared and calibrated by it.
        x_NC: normalized validation examples, on the student's device.
        y_N: their labels.
        start: the scheme to start from; it may name layers that are float already.
        budget_pt: percentage points of top-1 below the fp32 student that are good enough.
        measure: what sparing costs; called once for all candidates, and once for the set that was found.
        saturation: under which networks are judged.

    Returns:
        The scheme; where none is within the budget at less than what sparing every layer costs, the best.
    """
    variants = Variants(student, build, x_NC[:2], start, saturation)
    judge = Judge.of(student, x_NC, y_N)
    tried = _Trial(variants, judge.some(EXAMPLES), measure)
    result = spare(
        tried.candidates(),
        divergence=cache(tried.divergence),
        drop_pt=lambda layers: judge.worth(variants.prepared(layers)).drop_pt,
        budget_pt=budget_pt,
        most_cost=_most_cost(tried.all_cost),
    )
    return _found(variants, judge, tried, result, budget_pt, measure)


def _most_cost(all_cost: Cost) -> float:
    """Relative cost at which sparing no longer pays: that of sparing everything, where it costs anything."""
    surely = all_cost.ratio if all_cost.interval is None else all_cost.interval.lower
    return all_cost.ratio - 1 if surely > 1 else math.inf


def _found(
    variants: Variants, judge: Judge, tried: _Trial, result: Spared, budget_pt: float, measure: Measure
) -> Found:
    """Build what the search found as it would ship, judge and measure it."""
    scheme, network = variants.scheme(result.layers), variants.built(result.layers)
    found = judge.worth(network)
    costs = measure({NOTHING: variants.first, result.layers: network})
    return Found(
        precision=variants.precision,
        scheme=scheme,
        within=found.drop_pt <= budget_pt,
        fp32_top1=judge.top1,
        start=judge.worth(variants.first),
        found=found,
        cost=costs[result.layers],
        all_cost=tried.all_cost,
        examples=len(tried.judge.x_NC),
        layers=tried.layers(scheme),
        tensors=tried.tensors,
        groups=tried.groups(),
        steps=tuple(SearchStep(layers=tuple(sorted(layers)), drop_pt=drop) for layers, drop in result.steps),
    )


class _Trial:
    """Every layer alone, and the groups of neighbors, beside the network that is started from."""

    def __init__(self, variants: Variants, judge: Judge, measure: Measure) -> None:
        self._variants, self.judge = variants, judge
        self._kl = judge.worth(variants.first).kl
        self._every, self._names = frozenset(variants.layers()), variants.alone()
        self.tensors = self._tensors() if variants.precision == "float" else ()
        """What each activation gains by passing in float."""
        self._groups = _groups(self.tensors)
        every = [*(frozenset({name}) for name in self._names), *self._groups]
        networks = {layers: variants.prepared(layers) for layers in (NOTHING, self._every, *every)}
        self._costs = measure(networks)
        worths = self._compared([Variant(networks[layers]) for layers in every])
        self._worths = dict(zip(every, worths, strict=True))

    @property
    def all_cost(self) -> Cost:
        """What it costs to spare every layer."""
        return self._costs[self._every]

    def divergence(self, layers: Layers) -> float:
        """Of the network that spares these layers."""
        return self.judge.worth(self._variants.prepared(layers)).kl

    def candidates(self) -> list[Candidate]:
        """What the search may choose from."""
        return [
            Candidate(layers, self._gain(worth), self._costs[layers].ratio - 1)
            for layers, worth in self._worths.items()
        ]

    def layers(self, scheme: Scheme) -> tuple[LayerSensitivity, ...]:
        """Every layer alone, and what the scheme has for it."""
        usual: LayerPrecision = "int4" if self._variants.precision == "int8" else "int8"
        return tuple(
            LayerSensitivity(
                name=name,
                precision=scheme.layers.get(name, usual),
                gain=self._gain(self._worths[frozenset({name})]),
                top1=self._worths[frozenset({name})].top1,
                cost=self._costs[frozenset({name})],
            )
            for name in self._names
        )

    def groups(self) -> tuple[GroupSensitivity, ...]:
        """Neighbors together."""
        return tuple(
            GroupSensitivity(
                layers=self._in_order(layers),
                gain=self._gain(self._worths[layers]),
                cost=self._costs[layers],
            )
            for layers in self._groups
        )

    def _tensors(self) -> tuple[TensorSensitivity, ...]:
        first = self._variants.first
        paths = tuple(sources_of(first))
        worths = self._compared([Variant(first, frozenset({path})) for path in paths])
        return tuple(
            TensorSensitivity(
                name=quantizer_at(first, path).label,
                gain=self._gain(worth),
                layers=self._in_order(layers_around(first, path)),
            )
            for path, worth in zip(paths, worths, strict=True)
        )

    def _compared(self, variants: Sequence[Variant]) -> list[Worth]:
        logits = logits_of(self._variants.first, variants, self.judge.x_NC)
        return [self.judge.worth_of(each) for each in logits]

    def _in_order(self, layers: Layers) -> tuple[str, ...]:
        return tuple(name for name in self._variants.layers() if name in layers)

    def _gain(self, worth: Worth) -> float:
        return self._kl - worth.kl


def _groups(tensors: Sequence[TensorSensitivity]) -> tuple[Layers, ...]:
    """The layers around the activations that hurt most, where there is more than one."""
    worst = sorted(tensors, key=lambda tensor: -tensor.gain)[:GROUPS]
    around = [frozenset(tensor.layers) for tensor in worst if tensor.gain > 0]
    return tuple(dict.fromkeys(group for group in around if len(group) > 1))
