"""Sections that several documents share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgekd.documents.base import Section

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Hex digest of a file's content."""
UNLABELED = -1
"""Label of an example that has none."""


class InputSpec(Section):
    """What a student eats. A raw example x becomes `(x - mean) / std`, per channel, as float32."""

    name: str = "input"
    """Name of the graph's input."""
    shape: tuple[int, ...]
    """Shape of one example without the batch axis, in `layout` without its N."""
    layout: str
    """The graph's axes, N first, then C: NCHW, NCL or NC."""
    dtype: str = "float32"
    """Element type that the graph takes."""
    raw_dtype: str
    """Element type of the examples before normalization, such as uint8."""
    mean: tuple[float, ...]
    """Mean of each channel of the training set, in raw units."""
    std: tuple[float, ...]
    """Standard deviation of each channel of the training set, in raw units."""


class Interval(Section):
    """A confidence interval."""

    lower: float
    """Lower end."""
    upper: float
    """Upper end."""
    confidence: float
    """Two-sided confidence, such as 0.95."""


class Versions(Section):
    """Versions of what took part, by package name."""

    packages: dict[str, str]
    """Package name to version; only those that were installed."""
    python: str
    """Python's version."""
    edgekd_commit: str | None = None
    """Commit of edgekd when it runs from a checkout."""
