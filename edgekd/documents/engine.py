"""What became of a TensorRT graph on this host: parsed, built, or neither, and why."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgekd.documents.base import Document
from edgekd.documents.common import Sha256


class EngineRecord(Document):
    """What became of a TensorRT graph on this host."""

    title: ClassVar[str] = "engine"

    graph_sha256: Sha256
    """Digest of the graph."""
    sm: int | None
    """Compute capability that was asked for, such as 89; null for the GPU at hand."""
    status: Literal["built", "parsed", "rejected", "not-run"]
    """built: an engine was made; parsed: the parser took the graph; rejected; not-run: nothing was tried."""
    tool: str | None = None
    """tensorrt or tensorrt-rtx."""
    tool_version: str | None = None
    """Its version."""
    engine_sha256: Sha256 | None = None
    """Digest of the engine."""
    engine_bytes: int | None = None
    """Size of the engine."""
    note: str
    """What was done and what was not, in a sentence."""
    messages: tuple[str, ...] = ()
    """Warnings and errors of the parser and the builder."""
