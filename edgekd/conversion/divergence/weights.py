"""In which way a weight or bias is another one than the reference's, in words."""

from __future__ import annotations

import numpy as np

from edgekd.conversion.divergence.constants import ConstantPair

_ALIKE = 0.98
"""Cosine from which two channels are one, in other codes or with another factor."""
_LEFT = 0.1
"""Share of a difference that may be left where factors explain it."""
_TURNED = 0.8
"""Cosine from which a weight is one that was turned: its scales stayed where they were."""
_TRAINED = 0.5
"""Cosine from which a weight may be the same one after more training."""
_UNRELATED = 0.3
"""Cosine below which two weights have nothing in common."""
_FEW = 4
"""Channels that are named one by one."""


def how_it_differs(pair: ConstantPair) -> str:
    """What is wrong with a constant that `differs`, as a sentence about its layer."""
    what = {"weight": "weights", "bias": "bias"}.get(pair.role, "constants")
    if pair.is_lost:
        largest = np.abs(pair.reference).max()
        verb = "is" if what == "bias" else "are"
        return f"its {what} {verb} lost: all zero, the reference's up to {largest:.3g}"
    if pair.role != "weight":
        gap = np.abs(pair.candidate - pair.reference).max()
        return f"its {what} differ{'s' if what == 'bias' else ''} from the reference's by up to {gap:.3g}"
    return _known_way(pair) or _other(pair)


def is_trained_on(pair: ConstantPair) -> bool:
    """Whether a weight that `differs` may be the reference's after more training."""
    return _known_way(pair) is None and likeness(pair) > _TRAINED


def _known_way(pair: ConstantPair) -> str | None:
    return _shift(pair) or _factor(pair) or _order(pair) or _turned(pair)


def _factor(pair: ConstantPair) -> str | None:
    """Channels that are the reference's times a factor."""
    one, other = pair.channels
    bad = _bad(pair)
    cosines = _cosines(one[bad], other[bad])
    if not (np.abs(cosines) > _ALIKE).all():
        return None
    factors = (one[bad] * other[bad]).sum(axis=1) / np.maximum((other[bad] ** 2).sum(axis=1), 1e-30)
    left = one[bad] - factors[:, None] * other[bad]
    if (left**2).sum() > _LEFT * ((one[bad] - other[bad]) ** 2).sum():
        return None
    equal = np.ptp(factors) < 0.05 * np.abs(factors).max()
    if len(bad) == len(one):
        if equal:
            return f"its weights are {factors.mean():.2g} times the reference's"
        return (
            f"its weights have another factor in each channel, {factors.min():.2g} to {factors.max():.2g}: "
            "batch norm was not folded into them, or otherwise"
        )
    if len(bad) > _FEW:
        return f"the weights of {len(bad)} of its {len(one)} channels have other factors than the reference's"
    factor = f"{factors.mean():.2g}" if equal else " and ".join(f"{value:.2g}" for value in factors)
    channels = "channel" if len(bad) == 1 else "channels"
    return f"the weights of {channels} {_listed(bad)} are {factor} times the reference's"


def _order(pair: ConstantPair) -> str | None:
    """Channels that are the reference's in another order."""
    assert pair.axis is not None
    outputs = pair.channels
    if len(outputs[0]) > 1 and _is_permuted(*outputs):
        return "its output channels are in another order than the reference's"
    if pair.candidate.ndim < 2:
        return None
    inputs = 1 if pair.axis % pair.candidate.ndim == 0 else 0
    one, other = (
        np.moveaxis(part.astype(np.float64), inputs, 0) for part in (pair.candidate, pair.reference)
    )
    if len(one) > 1 and _is_permuted(one.reshape(len(one), -1), other.reshape(len(other), -1)):
        return "its input channels are in another order than the reference's"
    return None


def _turned(pair: ConstantPair) -> str | None:
    """A weight that was transposed, or whose kernel was turned around."""
    one, other = pair.candidate.astype(np.float64), pair.reference.astype(np.float64)
    if one.shape[0] == one.shape[1] and _cosine(one, other.swapaxes(0, 1)) > _TURNED:
        return "its weight is transposed: input and output channels have changed places"
    if one.ndim > 3 and one.shape[-1] == one.shape[-2] and _cosine(one, other.swapaxes(-1, -2)) > _TURNED:
        return "its kernel is transposed: height and width have changed places"
    spatial = tuple(range(2, one.ndim))
    if spatial and _cosine(one, np.flip(other, spatial)) > _TURNED:
        return "its kernel is turned around"
    return None


def _shift(pair: ConstantPair) -> str | None:
    """Channels to which a constant was added."""
    one, other = pair.channels
    gap = (one - other)[_bad(pair)]
    constant = gap.mean(axis=1, keepdims=True)
    if gap.shape[1] < 2 or ((gap - constant) ** 2).sum() > 0.05 * (gap**2).sum():
        return None
    return f"a constant is added to its weights, up to {np.abs(constant).max():.3g}: look at their zero point"


def _other(pair: ConstantPair) -> str:
    cosine = _cosine(pair.candidate, pair.reference)
    return f"its weights are others than the reference's (cosine {cosine:.2f})"


def is_unrelated(pair: ConstantPair) -> bool:
    """Whether a weight that `differs` has nothing in common with the reference's."""
    return pair.reference.size > 1 and _known_way(pair) is None and abs(likeness(pair)) < _UNRELATED


def likeness(pair: ConstantPair) -> float:
    """Cosine between a constant and the reference's, 1 where both are zero."""
    return _cosine(pair.candidate, pair.reference)


def _bad(pair: ConstantPair) -> np.ndarray:
    excess = pair.excess()
    return np.flatnonzero(excess > pair.limit)


def _is_permuted(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the rows are the same, each once, in another order."""
    normal = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-30) for part in (one, other)]
    alike = normal[0] @ normal[1].T
    places = alike.argmax(axis=1)
    found = alike.max(axis=1) > _ALIKE
    return (
        bool(found.all())
        and len(set(places)) == len(places)
        and bool((places != np.arange(len(places))).any())
    )


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(norm, 1e-30))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    flat = [part.astype(np.float64).reshape(1, -1) for part in (one, other)]
    if not (flat[0].any() or flat[1].any()):
        return 1.0
    return float(_cosines(*flat)[0])


def _listed(channels: np.ndarray) -> str:
    names = [str(channel) for channel in channels]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
