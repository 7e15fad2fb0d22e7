"""Numbers as people read them. Inside edgekd: nanoseconds on the device, milliseconds in documents, bytes."""

from __future__ import annotations


def format_ms(value_ms: float) -> str:
    """Three significant digits with the unit that fits: `412 µs`, `1.53 ms`, `2.10 s`."""
    if value_ms >= 1000:
        return f"{_significant(value_ms / 1000)} s"
    if value_ms >= 1:
        return f"{_significant(value_ms)} ms"
    return f"{_significant(value_ms * 1000)} µs"


def format_bytes(value: int) -> str:
    """Binary units: `812 B`, `77.1 KiB`, `2.40 MiB`."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{value} B" if unit == "B" else f"{_significant(size)} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def format_percent(fraction: float, digits: int = 2) -> str:
    """A fraction as percent: 0.9884 -> `98.84 %`."""
    return f"{100 * fraction:.{digits}f} %"


def format_points(fraction: float) -> str:
    """A difference of fractions in percentage points, signed: -0.0033 -> `-0.33 pt`."""
    return f"{100 * fraction:+.2f} pt"


def _significant(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
