"""The spec of a dialect (export/specs/*.toml): what its runtime wants of a graph, and how close it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.runtime import TargetRuntime

Int8Dialect = Literal["onnxruntime-u8", "onnxruntime-u8u8", "tensorrt-s8"]
FloatDialect = Literal["onnxruntime-fp16", "tensorrt-fp16", "tensorrt-fp8"]
Dialect = Int8Dialect | FloatDialect
Saturation = Literal["s8", "u8"]
DEFAULT_DIALECT: dict[TargetRuntime, Int8Dialect] = {
    "onnxruntime": "onnxruntime-u8",
    "tensorrt": "tensorrt-s8",
}
"""The form of a graph that a runtime gets unless its device wants another one."""


class Quantizers(Section):
    """The Q/DQ rules of a dialect."""

    activation_dtypes: tuple[Literal["int8", "uint8"], ...]
    """Element types that an activation's quantizer may have."""
    activation_zero_points: tuple[int, ...]
    """Zero points that an activation's quantizer may have."""
    weight_dtypes: tuple[Literal["int8", "uint8"], ...] = ("int8",)
    """Element types of quantized weights, with scales per output channel: int8, zero point 0; uint8, 128."""
    saturating_weights: bool = True
    """Whether int8 weights may be so large that AVX2 without VNNI saturates on pairs of their products."""
    int32_bias_ops: tuple[Literal["Conv", "Gemm"], ...] = ()
    """Operators whose bias is int32 with the scale of input times weight; all others have float32."""
    shared_quantizer: bool = True
    """Whether consumers of one tensor share one quantizer."""
    factors: bool = False
    """Whether codes may be opened with another scale than theirs, which is a product with a constant."""


class ParityLimits(Section):
    """How far the graph on its runtime may stray from the fake-quantized student with the same saturation."""

    min_top1_agreement: Annotated[float, Field(ge=0, le=1)]
    """Least share of examples with the same top class."""
    max_mean_logit_difference: Annotated[float, Field(gt=0)]
    """Largest mean absolute difference of logits, over the standard deviation of the student's logits."""


class Spec(Document):
    """What a runtime wants of a graph in one of its dialects."""

    title: ClassVar[str] = "spec"

    runtime: TargetRuntime
    """The runtime."""
    dialect: Dialect
    """Name of the form of the graph."""
    description: str
    """One sentence for people."""
    opset: Annotated[int, Field(ge=19)]
    """ONNX opset of the graph."""
    saturation: Saturation | Literal["none"]
    """Where non-negative activations saturate: at 127 (s8) or 255 (u8) scale steps; none without int8."""
    quantizers: Quantizers | None = None
    """The Q/DQ rules; none where there are no integer codes."""
    parity: ParityLimits
    """What is asked of the graph on its runtime."""
    session_options: dict[str, str] = {}
    """Configuration entries of the runtime's session."""
    sources: tuple[str, ...] = ()
    """Where these rules come from."""

    @property
    def codes(self) -> Saturation:
        """The saturation of a dialect that has integer codes."""
        assert self.saturation != "none", "only int8 dialects saturate"
        return self.saturation
