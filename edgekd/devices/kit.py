"""The kit's programs, and their digest: what a measurement depends on beside the graph and the device."""

from __future__ import annotations

import functools
from pathlib import Path

from edgekd.files import sha256_bytes, sha256_file
from edgekd.shipped import shipped


def kit_programs(kit: Path) -> list[Path]:
    """The programs that do a job; board.py, which travels with each request, measures nothing."""
    return sorted(path for path in kit.rglob("*.py") if path.name != "board.py")


@functools.cache
def kit_digest() -> str:
    """Digest of the program that measures."""
    files = kit_programs(shipped("export", "kit"))
    return sha256_bytes("".join(sha256_file(path) for path in files).encode())
