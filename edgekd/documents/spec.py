"""The spec of a runtime (export/specs/*.toml): which graphs it takes, and what parity is asked of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.recipe import RuntimeName

Dialect = Literal["onnxruntime-u8", "tensorrt-s8"]
Saturation = Literal["s8", "u8"]


class Quantizers(Section):
    """The Q/DQ rules of a dialect."""

    activation_dtypes: tuple[Literal["int8", "uint8"], ...]
    """Element types that an activation's quantizer may have."""
    activation_zero_points: tuple[int, ...]
    """Zero points that an activation's quantizer may have."""
    weight_dtype: Literal["int8"] = "int8"
    """Element type of quantized weights; their zero point is 0, their scales are per output channel."""
    int32_bias_ops: tuple[Literal["Conv", "Gemm"], ...] = ()
    """Operators whose bias is int32 with the scale of input times weight; all others have float32."""
    shared_quantizer: bool = True
    """Whether consumers of one tensor share one quantizer."""


class ParityLimits(Section):
    """How far the graph on its runtime may stray from the fake-quantized student with the same saturation."""

    min_top1_agreement: Annotated[float, Field(ge=0, le=1)]
    """Least share of examples with the same top class."""
    max_mean_logit_difference: Annotated[float, Field(gt=0)]
    """Largest mean absolute difference of logits, over the standard deviation of the student's logits."""


class Spec(Document):
    """What a runtime wants of a graph."""

    title: ClassVar[str] = "spec"

    runtime: RuntimeName
    """The runtime."""
    dialect: Dialect
    """Name of the form of the graph."""
    description: str
    """One sentence for people."""
    opset: Annotated[int, Field(ge=19)]
    """ONNX opset of the graph."""
    saturation: Saturation
    """Range at which non-negative activations saturate: 127 (s8) or 255 (u8) scale steps."""
    quantizers: Quantizers
    """The Q/DQ rules."""
    parity: ParityLimits
    """What is asked of the graph on its runtime."""
    session_options: dict[str, str] = {}
    """Configuration entries of the runtime's session."""
    sources: tuple[str, ...] = ()
    """Where these rules come from."""
