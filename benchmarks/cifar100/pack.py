"""Carry a run folder to another machine and back, where files are limited in size.

    python benchmarks/cifar100/pack.py pack runs/cifar100 PARTS      # PARTS/run-000.part, run-001.part, ...
    python benchmarks/cifar100/pack.py unpack PARTS runs/cifar100

Checkpoints travel too, so that a training goes on elsewhere. The parts are one tar file, cut.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

PART_BYTES = 15 * 2**20


class _Cutter(io.RawIOBase):
    """Writes what it is given into files of at most PART_BYTES."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._held = bytearray()
        self._count = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Hold the data, and write every part that is full."""
        view = memoryview(data)  # type: ignore[arg-type]
        self._held += view
        while len(self._held) >= PART_BYTES:
            self._put(PART_BYTES)
        return view.nbytes

    def close(self) -> None:
        """Write what is left."""
        if not self.closed and self._held:
            self._put(len(self._held))
        super().close()

    def _put(self, size: int) -> None:
        (self._folder / f"run-{self._count:03d}.part").write_bytes(bytes(self._held[:size]))
        del self._held[:size]
        self._count += 1


class _Joiner(io.RawIOBase):
    """Reads the parts as one file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._parts: Iterator[bytes] = (path.read_bytes() for path in sorted(folder.glob("run-*.part")))
        self._held = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer as far as the part under way goes."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        self._held = self._held or next(self._parts, b"")
        size = min(len(view), len(self._held))
        view[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


def pack(run: Path, parts: Path) -> None:
    """Write a run folder as parts; those of an earlier call are removed."""
    parts.mkdir(parents=True, exist_ok=True)
    for old in parts.glob("run-*.part"):
        old.unlink()
    with _Cutter(parts) as cutter, tarfile.open(fileobj=cutter, mode="w|") as archive:
        archive.add(run, arcname=".", filter=lambda one: None if "/." in one.name else one)


def unpack(parts: Path, run: Path) -> None:
    """Put a run folder together from its parts."""
    run.mkdir(parents=True, exist_ok=True)
    with (
        io.BufferedReader(_Joiner(parts)) as joined,
        tarfile.open(fileobj=joined, mode="r|") as archive,
    ):
        archive.extractall(run, filter="data")


if __name__ == "__main__":
    what, source, target = sys.argv[1:]
    {"pack": pack, "unpack": unpack}[what](Path(source), Path(target))
