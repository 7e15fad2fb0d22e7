"""Codes as a stream of bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.quantization.packing import pack, packed_size, unpack


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 8), st.data())
def test_codes_come_back(bits: int, data: st.DataObject) -> None:
    codes_N = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=50)), np.uint8)
    packed = pack(codes_N, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == packed_size(len(codes_N), bits)
    # One large number, the first code in its lowest bits.
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes_N))
    assert packed.tobytes() == number.to_bytes(len(packed), "little")
    np.testing.assert_array_equal(unpack(packed, len(codes_N), bits), codes_N)


def test_eight_bits_are_the_codes() -> None:
    codes_N = np.arange(256).astype(np.uint8)
    np.testing.assert_array_equal(pack(codes_N, 8), codes_N)
