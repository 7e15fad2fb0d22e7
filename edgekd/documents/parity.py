"""Parity: how far two computations of the same logits are apart."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgekd.documents.base import Section


class Parity(Section):
    """Agreement of two sets of logits (N, K)."""

    count: Annotated[int, Field(ge=1)]
    """Number of examples N."""
    top1_agreement: Annotated[float, Field(ge=0, le=1)]
    """Share of examples with the same top class."""
    mean_difference: Annotated[float, Field(ge=0)]
    """Mean absolute difference of logits."""
    max_difference: Annotated[float, Field(ge=0)]
    """Largest absolute difference of logits."""
    logit_std: Annotated[float, Field(ge=0)]
    """Standard deviation of the reference's logits, the unit for the differences."""
