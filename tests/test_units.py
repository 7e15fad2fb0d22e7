import pytest

from edgekd import units


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [(0.0412, "41.2 µs"), (0.412, "412 µs"), (1.534, "1.53 ms"), (15.34, "15.3 ms"), (2100, "2.10 s")],
)
def test_latency(value_ms, text):
    assert units.format_ms(value_ms) == text


@pytest.mark.parametrize(
    ("size", "text"), [(812, "812 B"), (78950, "77.1 KiB"), (2516582, "2.40 MiB"), (5 << 40, "5120 GiB")]
)
def test_size(size, text):
    assert units.format_bytes(size) == text


def test_fractions():
    assert units.format_percent(0.98843) == "98.84 %"
    assert units.format_points(-0.0033) == "-0.33 pt"
    assert units.format_points(0.012) == "+1.20 pt"
