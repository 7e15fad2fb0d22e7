"""Transferability: how well the features of a network fit the labels of the task.

Formula
    s = Spearman correlation, over the pairs i < j of P examples, of the distance of their features,
    1 - Pearson(f_i, f_j), and whether their labels differ. Each feature is brought to mean 0 and deviation 1
    over the examples first. 1: examples are alike exactly where their labels are; 0: no relation.
Source
    Bolya, Mittapalli, Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning" (PARC),
    NeurIPS 2021.
Shapes
    features (P, ...) at the tap `pool`, flattened; the logits (P, K) where a network has no such tap.
    P <= 500 examples of the validation split, chosen by the seed.
Defaults
    does not apply
Traps
    PARC reduces all features to 32 principal components, for networks of very unlike widths; not done here.
    Validation examples, since training examples would favor the network that has learned them by heart.
    It ranks networks for this task; the value itself says little: also a perfect classifier is far from 1.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from edgekd.networks.taps import TapReader, taps_of
from edgekd.tasks.task import Task

_PROBE = 500
_TAP = "pool"


def transferability(network: nn.Module, task: Task, *, seed: int) -> float:
    """The score of a network in eval mode on validation examples of the task, from -1 to 1."""
    count = len(task.validation.y)
    chosen = np.random.default_rng(seed).permutation(count)[:_PROBE]
    x_PC = torch.from_numpy(task.normalize(task.validation.x[chosen]))
    return label_fit(_features(network, x_PC), task.validation.y[chosen])


def label_fit(features_PD: NDArray[np.float64], labels_P: NDArray[np.int64]) -> float:
    """Rank correlation of feature distances and label differences; 0 where either does not vary.

    Args:
        features_PD: (P, D), a row an example.
        labels_P: (P,).
    """
    deviation_D = features_PD.std(axis=0)
    used = (features_PD - features_PD.mean(axis=0))[:, deviation_D > 0] / deviation_D[deviation_D > 0]
    first, second = np.triu_indices(len(labels_P), k=1)
    rows = used - used.mean(axis=1, keepdims=True) if used.shape[1] else np.zeros((len(labels_P), 1))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    distances = 1 - (rows @ rows.T)[first, second]
    ranks = rankdata(distances)
    differ = (labels_P[first] != labels_P[second]).astype(np.float64)
    if np.ptp(ranks) == 0 or np.ptp(differ) == 0:
        return 0.0
    return float(np.corrcoef(ranks, differ)[0, 1])  # the ranks of two values are the values, rescaled


def _features(network: nn.Module, x_PC: Tensor) -> NDArray[np.float64]:
    reader = TapReader(network, [_TAP] if _TAP in taps_of(network) else [])
    try:
        with torch.no_grad():
            parts = []
            for x_BC in torch.split(x_PC, 128):
                logits_BK = network(x_BC)
                parts.append(reader.take().get(_TAP, logits_BK).flatten(1).double())
        features: NDArray[np.float64] = torch.cat(parts).numpy()
        return features
    finally:
        reader.close()
