"""Where a chain of graphs parts: fp32, the fake-quantized student, a dialect as it is written, its runtime.

Ratios of signal to noise are in decibels: 10 log10 of the power of what is compared with over that of the
difference. None stands for no difference.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Sha256
from edgekd.documents.numbers import Fraction, NotNegative
from edgekd.documents.parity import Parity


class Link(Section):
    """Two neighbors of the chain, by their logits."""

    source: str
    """What is compared with."""
    target: str
    """What is compared."""
    sqnr_db: float | None
    """Signal to noise of the logits."""
    parity: Parity | None
    """Agreement of the logits; None where they are not finite numbers."""
    parts: bool
    """Whether they differ by more than this link may."""


class LayerRow(Section):
    """One layer of a candidate: an operator and its activation, up to the tensor that a quantizer sees."""

    name: str
    """Its first operator's name in the candidate."""
    operation: str
    """Types of its operators."""
    reference: str | None
    """The reference's operator that it stands for; None where none was found, so that nothing is compared."""
    computes: bool
    """Whether it does more than put values elsewhere."""
    quantized: bool
    """Whether what it gives has a quantizer."""
    sqnr_db: float | None = None
    """The reference's tensor against the candidate's: all that happened up to here."""
    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Cosine of the angle between the two."""
    local_sqnr_db: float | None = None
    """The reference's layer on the candidate's inputs against the candidate's: what happened here."""
    expected_sqnr_db: float | None = None
    """The same, if no more happened than that weights and values are rounded to the step that data give."""
    mean_steps: NotNegative | None = None
    """Mean absolute difference that happened here, in steps of its codes."""
    max_steps: NotNegative | None = None
    """The largest."""
    saturated: Fraction | None = None
    """Share of the values that its quantizer meets beyond its codes."""
    trained_sqnr_db: float | None = None
    """The reference's tensor against the fake-quantized student's, where that was looked into."""
    student_sqnr_db: float | None = None
    """The fake-quantized student's tensor against the candidate's."""
    student_off: Fraction | None = None
    """Share of the codes that differ from the student's on the candidate's inputs."""
    parts: bool = False
    """Whether more happened here than quantization does."""


class Finding(Section):
    """A layer, or a link, that parts."""

    link: str
    """Between what: `fp32 -> onnxruntime-u8`."""
    layer: str | None
    """The layer; None for a link whose layers cannot be looked into."""
    operation: str | None
    """Types of its operators."""
    cause: str
    """The likely cause."""
    more: tuple[str, ...] = ()
    """What else is wrong there."""


class Bisection(Section):
    """Which layers' quantizers have to go for the logits to agree, found by logits alone."""

    runtime: str
    """What ran the graphs."""
    against: Literal["fp32", "as written"]
    """What its logits were held against: the reference, or the same graphs node by node."""
    runs: Annotated[int, Field(ge=1)]
    """How many graphs it ran."""
    before_db: float | None
    """Signal to noise of the logits with every quantizer."""
    after_db: float | None
    """The same without those of `layers`."""
    expected_db: float | None
    """What quantization gives with the steps that data give, where they were held against the reference."""
    layers: tuple[str, ...]
    """The layers; empty where the logits agree as they are, or no few layers make the difference."""
    part: Literal["weights", "activations", "both"] | None = None
    """Which of their quantizers make it."""


class Chain(Section):
    """One candidate beside its reference."""

    candidate: str
    """The candidate: a row of the run with its dialect, or a file."""
    dialect: str
    """Its dialect, or `as written` where it has none."""
    candidate_sha256: Sha256
    """Digest of its file."""
    reference: str
    """What it is compared with."""
    links: tuple[Link, ...]
    """The links that were looked at, in order."""
    layers: tuple[LayerRow, ...]
    """In the candidate's order."""
    findings: tuple[Finding, ...]
    """What parts, the first first."""
    not_compared: tuple[str, ...] = ()
    """Layers of the candidate and operators of the reference that have no counterpart."""
    notes: tuple[str, ...] = ()
    """What is to be known of how this was found out, and of what was left out."""
    bisection: Bisection | None = None
    """The search by removing quantizers, where it was asked for or needed."""

    @property
    def headline(self) -> str:
        """The result in one line."""
        if not self.findings:
            return f"{self.candidate}: no divergence beyond quantization"
        first = self.findings[0]
        where = first.layer or first.link
        return f"{self.candidate}: first divergence: {where}, {first.link}: {first.cause}"


class Divergence(Document):
    """Where the graphs of a network part from what it was trained as."""

    title: ClassVar[str] = "divergence"

    name: str
    """The run, or the candidate's file."""
    examples: Annotated[int, Field(ge=1)]
    """Examples that the graphs ran on."""
    inputs: str
    """Where they come from."""
    runtime: str
    """What ran the graphs, with its version."""
    machine: str
    """ISA of the machine, since kernels differ by it."""
    chains: tuple[Chain, ...]
    """The candidates."""

    @property
    def parts(self) -> bool:
        """Whether any of them parts."""
        return any(chain.findings for chain in self.chains)
