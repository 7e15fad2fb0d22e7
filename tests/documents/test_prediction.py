"""How a prediction is written, and that it is nothing that a measurement is."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.documents.measurement import Latency, Percentile
from edgekd.documents.prediction import Prediction, estimate


@pytest.mark.parametrize(
    ("low", "mid", "high", "text"),
    [
        (0.41, 1.23, 3.69, "est. 1.2 ms (0.41 to 3.7)"),
        (0.004, 0.012, 0.036, "est. 12 µs (4.0 to 36)"),
        (41.2, 123.4, 370.4, "est. 120 ms (41 to 370)"),
        (400, 1200, 3600, "est. 1.2 s (0.40 to 3.6)"),
        (0.3333, 0.9999, 3.0, "est. 1.0 ms (0.33 to 3.0)"),
        (333.0, 999.0, 2997.0, "est. 1.0 s (0.33 to 3.0)"),
        (0.625, 0.994, 1.6, "est. 990 µs (620 to 1600)"),
    ],
)
def test_the_text(low, mid, high, text):
    assert estimate(low, mid, high) == text


@given(st.floats(1e-6, 1e6), st.floats(1.0, 30.0))
def test_two_significant_digits_at_most(mid, factor):
    text = estimate(mid / factor, mid, mid * factor)
    found = re.fullmatch(r"est\. ([0-9.]+) (µs|ms|s) \(([0-9.]+) to ([0-9.]+)\)", text)
    assert found is not None
    unit = {"µs": 1e3, "ms": 1.0, "s": 1e-3}[found[2]]
    for number, value in zip(found.group(3, 1, 4), (mid / factor, mid, mid * factor), strict=True):
        digits = number.replace(".", "").lstrip("0")
        assert len(digits.rstrip("0") if "." not in number else digits) <= 2
        assert float(number) == pytest.approx(value * unit, rel=0.051)
        assert math.isclose(float(f"{float(number):.1e}"), float(number))


def test_no_key_of_a_latency_is_one_of_a_prediction():
    assert not set(Prediction.model_fields) & (set(Latency.model_fields) | set(Percentile.model_fields)) - {
        "threads"
    }


def test_nothing_of_the_gate_knows_a_prediction():
    from edgekd.gate import checks, judge

    for module in (checks, judge):
        with open(module.__file__) as file:
            assert "prediction" not in file.read()
