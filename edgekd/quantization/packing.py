"""Codes as a stream of bits: code 0 first, the lowest bit of each first, a byte filled from its lowest bit.

The last byte is filled up with zeros. Axes: N codes, K bits of a code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes take."""
    return -(-count * bits // 8)


def pack(codes_N: Bytes, bits: int) -> Bytes:
    """Codes below 2^bits as bytes, `bits` from 1 to 8."""
    bits_NK = codes_N[:, None] >> np.arange(bits, dtype=np.uint8) & np.uint8(1)
    return np.packbits(bits_NK.reshape(-1), bitorder="little")


def unpack(packed: Bytes, count: int, bits: int) -> Bytes:
    """The `count` codes that were packed."""
    bits_NK = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    codes_N: Bytes = (bits_NK << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    return codes_N
