"""What becomes of a graph where pairs of int8 products saturate: on AVX2 without VNNI."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.parity import Parity


class SaturatedOperator(Section):
    """One operator of the graph that multiplies uint8 activations by int8 weights."""

    name: str
    """Name of the node in the graph that was given."""
    op_type: str
    """Type of the operator that runs, such as QLinearConv."""
    pairs: Annotated[int, Field(ge=0)]
    """Pairs of products that were added up."""
    saturated: Annotated[int, Field(ge=0)]
    """How many of them left 16 bits."""

    @property
    def share(self) -> float:
        """Share of the pairs that saturated."""
        return self.saturated / self.pairs if self.pairs else 0.0


class Saturation(Document):
    """A graph on some examples with AVX2's products, beside the same graph with exact ones."""

    title: ClassVar[str] = "saturation"

    operators: tuple[SaturatedOperator, ...]
    """Every operator of uint8 activations and int8 weights, in the order of the graph that runs."""
    not_emulated: tuple[str, ...] = ()
    """Int8 operators that may saturate and were taken as exact, since nothing here does them."""
    parity: Parity
    """The logits with saturating products, compared with the exact ones."""
    exact_top1: float | None = None
    """Accuracy with exact products; null without labels."""
    top1: float | None = None
    """Accuracy with saturating products; null without labels."""

    @property
    def share(self) -> float:
        """Share of all pairs of products that saturated."""
        pairs = sum(operator.pairs for operator in self.operators)
        return sum(operator.saturated for operator in self.operators) / pairs if pairs else 0.0

    @property
    def summary(self) -> str:
        """A line for a report or a screen."""
        changed = f"{1 - self.parity.top1_agreement:.2%} of {self.parity.count} answers change"
        accuracy = "" if self.top1 is None else f" (top-1 {self.top1:.2%}, exact {self.exact_top1:.2%})"
        worst = max(self.operators, key=lambda operator: operator.share, default=None)
        if worst is None or not worst.saturated:
            return f"on AVX2 without VNNI no product saturates: {changed}{accuracy}"
        where = f"most in {worst.name} ({worst.share:.2%})"
        return f"on AVX2 without VNNI {self.share:.2%} of the products saturate, {where}: {changed}{accuracy}"
