"""How far two computations of the same logits are apart."""

from __future__ import annotations

import numpy as np

from edgekd.documents.parity import Parity
from edgekd.errors import ConversionError


def compare_logits(reference_NK: np.ndarray, other_NK: np.ndarray) -> Parity:
    """Agreement of two sets of logits (N, K), with the reference's standard deviation as their unit.

    Raises:
        ConversionError: the shapes differ, there is nothing to compare, or a logit is not a finite number.
    """
    if reference_NK.shape != other_NK.shape or reference_NK.ndim != 2 or reference_NK.size == 0:
        raise ConversionError(f"cannot compare logits of shapes {reference_NK.shape} and {other_NK.shape}")
    if not (np.isfinite(reference_NK).all() and np.isfinite(other_NK).all()):
        raise ConversionError("cannot compare logits: some are not finite numbers")
    difference_NK = np.abs(reference_NK.astype(np.float64) - other_NK)
    same_N = reference_NK.argmax(axis=1) == other_NK.argmax(axis=1)
    return Parity(
        count=len(reference_NK),
        top1_agreement=float(same_N.mean()),
        mean_difference=float(difference_NK.mean()),
        max_difference=float(difference_NK.max()),
        logit_std=float(reference_NK.astype(np.float64).std()),
    )
