"""E4M3, numbers of eight bits: sign, four bits of exponent, three of mantissa, as ONNX and TensorRT have it.

    code s eeee mmm   value (-1)^s (1 + m / 8) 2^(e - 7), or (-1)^s (m / 8) 2^-6 where e = 0; s1111111 is NaN

Source: Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433, table 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 448.0
"""Largest value."""
_CODES = np.arange(127)
_EXPONENTS, _MANTISSAS = _CODES // 8, _CODES % 8
_VALUES = np.where(
    _EXPONENTS == 0, _MANTISSAS / 8 * 2.0**-6, (1 + _MANTISSAS / 8) * 2.0 ** (_EXPONENTS - 7.0)
)
"""Value of each code from 0 to 126, ascending."""


def to_e4m3(x: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Codes of the nearest E4M3 numbers, half to even; what is beyond 448 becomes 448.

    Args:
        x: any shape, without NaN.
    """
    magnitude = np.minimum(np.abs(x.astype(np.float64)), LARGEST)
    below = np.searchsorted(_VALUES, magnitude, side="right") - 1
    above = np.minimum(below + 1, len(_VALUES) - 1)
    down, up = magnitude - _VALUES[below], _VALUES[above] - magnitude
    rounds_up = (up < down) | ((up == down) & (below % 2 == 1))
    codes: NDArray[np.uint8] = np.where(rounds_up, above, below).astype(np.uint8)
    codes |= np.signbit(x).astype(np.uint8) << np.uint8(7)
    return codes


def from_e4m3(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Values of codes that are numbers, float32, exactly."""
    values: NDArray[np.float32] = _VALUES[codes & 0x7F].astype(np.float32)
    values[codes & 0x80 != 0] *= -1
    return values
