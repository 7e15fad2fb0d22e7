"""The scheme: how the tensors of a student are quantized, and in which form its operations are written."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from edgekd.documents.base import Document

LayerPrecision = Literal["int8", "int4", "float"]


class Scheme(Document):
    """How a student is quantized: symmetric codes, weights per output channel, activations per tensor.

    A layer is named by the path of its convolution or linear map in the network, such as `stages.0.conv1`;
    another operation, such as an addition, by where in the network it is.
    """

    title: ClassVar[str] = "scheme"

    weight_bits: Literal[4, 8] = 8
    """Bits of a weight; activations have 8."""
    ends_8bit: bool = True
    """Whether the first and the last layer keep 8 bits where the others have 4."""
    scales: Literal["followed", "learned"] = "followed"
    """`followed`: scales are those of the largest magnitudes; `learned`: fine-tuning trains them (LSQ)."""
    reduce_range: bool = False
    """Codes of 8-bit weights up to 63 rather than 127, which no processor saturates on."""
    layers: dict[str, LayerPrecision] = {}
    """Layers that differ from the rest; `float` has no quantizers at all."""
    rewrites: dict[str, bool] = {}
    """Forms of the network's operations, on or off; those that are not named are as measured best."""

    @model_validator(mode="after")
    def _one_range(self) -> Scheme:
        if self.reduce_range and self.weight_bits == 4:
            raise ValueError("reduce_range is for 8-bit weights: those of 4 bits do not saturate")
        return self

    @property
    def label(self) -> str:
        """What a report calls it, such as int8 or w4a8."""
        return "int8" if self.weight_bits == 8 else "w4a8"
