"""The grid of an activation's quantizer, and what it does to the values that it meets.

QuantizeLinear: code = clip(round half to even (x / scale) + zero point); DequantizeLinear: (code - zero
point) * scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from edgekd.conversion.graph_view import GraphView, attribute
from edgekd.conversion.remove_quantizers import QuantizedTensor

_LIMITS = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int4": (-8, 7),
    "uint4": (0, 15),
}
_UNSIGNED = onnx.TensorProto.UINT8


@dataclass(frozen=True)
class Grid:
    """One scale and one zero point for a whole tensor."""

    scale: float
    zero_point: int
    dtype: str
    """Type of the codes, such as uint8."""
    opened_with: tuple[tuple[float, int], ...] = field(default=())
    """Scale and zero point of every DequantizeLinear behind it."""

    @property
    def codes(self) -> tuple[int, int]:
        """Lowest and highest code."""
        return _LIMITS[self.dtype]

    @property
    def limits(self) -> tuple[float, float]:
        """Least and greatest value that it can say."""
        low, high = self.codes
        return (low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale

    @property
    def is_symmetric(self) -> bool:
        """Whether code 0 of a centered grid, or the lowest code of one that starts at zero, means zero."""
        low, high = self.codes
        return self.zero_point in (low, (low + high + 1) // 2)

    @property
    def starts_at_zero(self) -> bool:
        """Whether it says no negative values."""
        return self.zero_point == self.codes[0]

    @property
    def half(self) -> int:
        """Steps from zero to the end of a centered grid of this type: 127 for 8 bits."""
        low, high = self.codes
        return (high - low - 1) // 2

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Codes of values, as floats."""
        low, high = self.codes
        return np.asarray(np.clip(np.rint(x / np.float32(self.scale)) + self.zero_point, low, high))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """The nearest values that it can say."""
        return np.asarray((self.encode(x) - self.zero_point) * np.float32(self.scale))


def grid_of(tensor: QuantizedTensor) -> Grid | None:
    """The grid of an activation's quantizer; None unless it has whole codes and one constant scale."""
    assert tensor.quantizer is not None
    found = _pair(tensor.view, tensor.quantizer)
    opened = [_pair(tensor.view, node) for node in tensor.dequantizers]
    if found is None or any(one is None for one in opened):
        return None
    scale, zero_point, dtype = found
    return Grid(scale, zero_point, dtype, tuple(one[:2] for one in opened if one is not None))


def _pair(view: GraphView, node: onnx.NodeProto) -> tuple[float, int, str] | None:
    scale = view.constant(node.input[1])
    given = len(node.input) > 2 and node.input[2] != ""
    zero_point = view.constant(node.input[2]) if given else None
    if scale is None or scale.size != 1 or (given and zero_point is None):
        return None
    declared = attribute(node, "output_dtype", _UNSIGNED) or _UNSIGNED
    dtype = onnx.TensorProto.DataType.Name(declared).lower() if zero_point is None else zero_point.dtype.name
    value = float(scale.reshape(()))
    if dtype not in _LIMITS or not np.isfinite(value) or value <= 0:
        return None
    return value, 0 if zero_point is None else int(zero_point.reshape(-1)[0]), dtype
