"""E4M3 against the reference implementation of the ONNX project and ml_dtypes' own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.conversion.e4m3 import LARGEST, from_e4m3, to_e4m3

E4M3 = ml_dtypes.float8_e4m3fn


def test_every_code_has_its_value() -> None:
    codes = np.array([code for code in range(256) if code & 0x7F != 0x7F], np.uint8)
    np.testing.assert_array_equal(from_e4m3(codes), codes.view(E4M3).astype(np.float32))
    np.testing.assert_array_equal(to_e4m3(from_e4m3(codes)), codes)
    assert from_e4m3(codes).max() == LARGEST


def test_halves_go_to_even() -> None:
    values = from_e4m3(np.arange(127, dtype=np.uint8)).astype(np.float64)
    codes = to_e4m3((values[1:] + values[:-1]) / 2)
    np.testing.assert_array_equal(codes, [low + low % 2 for low in range(126)])


@settings(deadline=None, max_examples=80)
@given(hnp.arrays(np.float32, 30, elements=st.floats(-1e4, 1e4, width=32)), st.integers(-14, 0))
def test_the_nearest_number(x: np.ndarray, exponent: int) -> None:
    x = (x * 2.0**exponent).astype(np.float32)
    expected = np.clip(x, -LARGEST, LARGEST).astype(E4M3)
    np.testing.assert_array_equal(to_e4m3(x), expected.view(np.uint8))


def test_what_is_beyond_stays_at_the_largest() -> None:
    found = from_e4m3(to_e4m3(np.array([449.0, 480.0, 1e30, np.inf, -np.inf])))
    assert found.tolist() == [448.0, 448.0, 448.0, 448.0, -448.0]


def test_a_shape_stays() -> None:
    assert to_e4m3(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert to_e4m3(np.array(-0.0)).tolist() == 128
