"""The audit of a graph: which weighted operators really run in int8, and why the others do not."""

from __future__ import annotations

from typing import ClassVar

from edgekd.documents.base import Document, Section


class AuditedOperator(Section):
    """One weighted operator (convolution, matrix product) of the graph."""

    name: str
    """Name of the node in the graph that was given."""
    op_type: str
    """Its ONNX type, such as Conv."""
    int8: bool
    """Whether it runs in int8 after the runtime's optimization."""
    runs_as: str
    """Type of the operator that runs, such as QLinearConv."""
    cause: str | None = None
    """Why it does not run in int8."""
    advice: str | None = None
    """What to change."""


class Audit(Document):
    """Which weighted operators really run in int8."""

    title: ClassVar[str] = "audit"

    graph: str
    """File name of the graph."""
    graph_sha256: str
    """Digest of the graph."""
    runtime: str
    """The runtime whose optimized graph was read."""
    runtime_version: str
    """Its version."""
    machine: str
    """ISA of the machine, since kernels and rewrites differ by it."""
    operators: tuple[AuditedOperator, ...]
    """Every weighted operator, in the graph's order."""
    optimized_operators: dict[str, int]
    """Type to number of the operators that run."""

    @property
    def int8_ops(self) -> int:
        """Number of weighted operators that run in int8."""
        return sum(operator.int8 for operator in self.operators)

    @property
    def weighted_ops(self) -> int:
        """Number of weighted operators."""
        return len(self.operators)
