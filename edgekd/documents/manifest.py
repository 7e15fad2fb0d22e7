"""The manifest of a bundle: all that a stranger needs to run the student and to check that it is whole."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import InputSpec, Sha256, Versions
from edgekd.documents.parity import Parity
from edgekd.documents.runtime import TargetRuntime
from edgekd.documents.spec import Dialect, Saturation

_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
BundlePath = Annotated[str, Field(pattern=rf"^{_NAME}(/{_NAME})*$")]
"""A path inside the bundle: relative, no name of which starts with a dot."""


class OutputSpec(Section):
    """What a student says."""

    name: str = "logits"
    """Name of the graph's output, float32 of shape (batch, classes)."""
    classes: tuple[str, ...]
    """Class names, in the order of the logits."""


class Evaluation(Section):
    """The test examples that travel with the student."""

    inputs: BundlePath
    """A .npy of normalized float32 inputs, batch first."""
    labels: BundlePath
    """A .npy of int64 labels."""
    count: Annotated[int, Field(ge=1)]
    """Number of examples."""


class Manifest(Document):
    """All that a stranger needs to run the student."""

    title: ClassVar[str] = "manifest"

    name: str
    """The recipe's name."""
    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?$")]
    """The device that the bundle is for."""
    runtime: TargetRuntime
    """The runtime that the bundle is for."""
    dialect: Dialect
    """Form of the graph."""
    saturation: Saturation | Literal["none"]
    """Range at which non-negative activations saturate; none without int8."""
    opset: int
    """ONNX opset of the graph."""
    graph: BundlePath = "model.onnx"
    """The graph's file."""
    sha256: Sha256
    """Digest of the graph's file."""
    size_bytes: Annotated[int, Field(gt=0)]
    """Size of the graph's file."""
    input: InputSpec
    """What the student eats."""
    output: OutputSpec
    """What the student says."""
    preprocessing: str = "x = (raw - input.mean) / input.std per channel, as float32"
    """How a raw example becomes an input."""
    evaluation: Evaluation
    """The test examples that travel with the student."""
    fake_quant_top1: Annotated[float, Field(ge=0, le=1)]
    """Top-1 on the evaluation examples of what the graph was made from: the fake-quantized student under this
    saturation, or the fp32 student."""
    parity: Parity | None = None
    """Agreement of this graph with the fake-quantized student on the host's runtime; null when not run."""
    files: dict[BundlePath, Sha256]
    """Every other file of the bundle with its digest."""
    recipe_sha256: Sha256
    """Digest of the resolved recipe."""
    versions: Versions
    """What made the bundle."""
