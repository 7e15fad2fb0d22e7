"""The smallest set of layers to spare: greedy by gain for what it costs, then nothing that is not needed.

Each step takes the candidate whose divergence falls most for its cost, counted with what was taken before; a
gain that was counted at an earlier step is counted again only while it could still be the best. Once the set
is within the budget, layers are dropped again, the costliest first, as long as it stays there: what is left
cannot lose a member. The search ends without success when sparing more gains nothing, or costs too much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Layers = frozenset[str]

LEAST_COST = 0.005
"""Relative cost below which costs are not told apart: about what a short measurement can resolve."""


@dataclass(frozen=True)
class Candidate:
    """Layers that can be spared together."""

    layers: Layers
    gain: float
    """By how much the divergence falls when these alone are spared."""
    cost: float
    """Relative cost of that: 0.1 is a tenth more."""

    def cost_beside(self, taken: Layers) -> float:
        """What it adds to layers that are spared already, by the share of its own that is new."""
        return max(self.cost, LEAST_COST) * len(self.layers - taken) / len(self.layers)


@dataclass(frozen=True)
class Spared:
    """What the search came to."""

    layers: Layers
    drop_pt: float
    within: bool
    steps: tuple[tuple[Layers, float], ...]
    """Every set whose drop was looked at, in that order, and the drop."""


def spare(
    candidates: Sequence[Candidate],
    *,
    divergence: Callable[[Layers], float],
    drop_pt: Callable[[Layers], float],
    budget_pt: float,
    most_cost: float,
) -> Spared:
    """Find the layers.

    Args:
        candidates: what can be spared.
        divergence: from the fp32 network when some layers are spared; what gains are counted in.
        drop_pt: what the budget is about, when some layers are spared.
        budget_pt: the largest drop that is good enough.
        most_cost: relative cost at which sparing no longer pays.

    Returns:
        The set; where none is within the budget, the one with the least drop that was seen.
    """
    search = _Search(candidates, divergence, drop_pt)
    taken: Layers = frozenset()
    while search.drop(taken) > budget_pt:
        following = search.best_after(taken, most_cost)
        if following is None:
            least = min(search.steps, key=lambda step: (step[1], len(step[0])))[0]
            return search.result(search.pruned(least, search.drop(least)), within=False)
        taken |= following
    return search.result(search.pruned(taken, budget_pt), within=True)


class _Search:
    """The candidates with their latest gains, and every drop that was looked at."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        divergence: Callable[[Layers], float],
        drop_pt: Callable[[Layers], float],
    ) -> None:
        self._candidates = sorted(candidates, key=lambda one: (len(one.layers), sorted(one.layers)))
        self._divergence, self._drop_pt = divergence, drop_pt
        self._drops: dict[Layers, float] = {}

    @property
    def steps(self) -> tuple[tuple[Layers, float], ...]:
        return tuple(self._drops.items())

    def result(self, layers: Layers, *, within: bool) -> Spared:
        return Spared(layers, self.drop(layers), within, self.steps)

    def drop(self, layers: Layers) -> float:
        if layers not in self._drops:
            self._drops[layers] = self._drop_pt(layers)
        return self._drops[layers]

    def best_after(self, taken: Layers, most_cost: float) -> Layers | None:
        """The candidate that gains most for its cost beside those taken; None where none gains and pays."""
        now = self._divergence(taken)
        left = [
            index
            for index, one in enumerate(self._candidates)
            if not one.layers <= taken and self._cost_of(taken | one.layers) < most_cost
        ]
        best, best_merit = None, 0.0
        for index in sorted(left, key=lambda index: -self._merit(index, taken)):
            if self._merit(index, taken) <= best_merit:
                break
            candidate = self._candidates[index]
            gain = now - self._divergence(taken | candidate.layers)
            self._candidates[index] = replace(candidate, gain=gain)
            if self._merit(index, taken) > best_merit:
                best, best_merit = candidate.layers, self._merit(index, taken)
        return best

    def _merit(self, index: int, taken: Layers) -> float:
        candidate = self._candidates[index]
        return candidate.gain / candidate.cost_beside(taken)

    def _cost_of(self, layers: Layers) -> float:
        """Relative cost of a set, as the sum of the costs of its layers."""
        return sum(self._cost_of_layer(layer) for layer in layers)

    def _cost_of_layer(self, layer: str) -> float:
        return min(
            one.cost_beside(frozenset()) / len(one.layers) for one in self._candidates if layer in one.layers
        )

    def pruned(self, layers: Layers, drop_pt: float) -> Layers:
        """Without the members that the drop does not need, the costliest first."""
        order = sorted(layers, key=lambda layer: (-self._cost_of_layer(layer), layer))
        needed: Layers = frozenset()
        while layers != needed:
            needed = layers
            for layer in order:
                if layer in layers and self.drop(layers - {layer}) <= drop_pt:
                    layers -= {layer}
        return layers
