"""What `edgekd bench` found: each graph on each device and runtime, and what could not be measured."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Sha256
from edgekd.documents.measurement import Comparison, Measurement
from edgekd.documents.recipe import Measuring
from edgekd.documents.run_log import Facts
from edgekd.documents.runtime import RuntimeName


class Setting(Section):
    """One way to run one graph."""

    graph: str
    """Name of the graph."""
    device: str
    """Address of the device."""
    runtime: RuntimeName
    """The runtime."""
    threads: Annotated[int, Field(ge=1)]
    """Threads of the runtime."""
    batch_size: Annotated[int, Field(ge=1)]
    """Examples in one inference."""


class Row(Section):
    """What became of one setting: a measurement, or why there is none."""

    setting: Setting
    """What was asked."""
    measurement: Measurement | None = None
    """What was measured."""
    logs: tuple[str, ...] = ()
    """Files of its raw logs, beside this document; empty when none were kept."""
    error: str | None = None
    """Why it could not be measured."""
    exit_code: int = 0
    """Exit code of that error."""


class SideBySide(Section):
    """Two graphs compared on one device and runtime."""

    setting: Setting
    """The second graph, and where both ran."""
    reference: str
    """Name of the first graph."""
    comparison: Comparison | None = None
    """What was found."""
    facts: Facts | None = None
    """What the device is."""
    mismatches: tuple[str, ...] = ()
    """How the device differs from its profile, a line each."""
    invalid: tuple[str, ...] = ()
    """Why the ratio does not count: the device was throttled or taken away, a line each."""
    warnings: tuple[str, ...] = ()
    """What makes it less certain, a line each."""
    logs: tuple[str, ...] = ()
    """Files of its raw logs, beside this document; empty when none were kept."""
    error: str | None = None
    """Why they could not be compared."""
    exit_code: int = 0
    """Exit code of that error."""


class Bench(Document):
    """All that one call of `edgekd bench` measured."""

    title: ClassVar[str] = "bench"

    graphs: dict[str, Sha256]
    """Name of each graph to its digest."""
    measuring: Measuring
    """How it was measured."""
    rows: tuple[Row, ...] = ()
    """Each setting."""
    comparisons: tuple[SideBySide, ...] = ()
    """Graphs compared side by side."""

    @property
    def results(self) -> tuple[Row | SideBySide, ...]:
        """All that was asked for: the settings, then the comparisons."""
        return (*self.rows, *self.comparisons)
