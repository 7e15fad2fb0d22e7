"""A channel to a board: one program run there, bytes in, bytes out. ssh and adb are two of them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from edgekd.errors import DeviceError, MissingError, StorageError, UsageError

LOADER = (
    "import sys; source = sys.stdin.buffer.read(int(sys.stdin.buffer.readline())); "
    "exec(compile(source, 'board.py', 'exec'), {'__name__': '__main__', 'SOURCE': source})"
)
"""Reads a program from standard input and runs it; the rest of the input is the program's own."""
TAIL_BYTES = 2000
MOST_BYTES = 2**31 + 2**20
"""Most that a board may send in one answer: its largest result, and what a login shell prints."""


class DroppedError(DeviceError):
    """The connection ended, or could not be made; another attempt may succeed."""


class UnreachableError(DroppedError):
    """No connection could be made: the board has heard nothing of what was sent."""


class Channel(Protocol):
    """Runs LOADER on a board with some bytes and files for its input."""

    @property
    def name(self) -> str:
        """The address, for messages."""
        ...

    def send(self, head: bytes, files: Sequence[Path], *, timeout_s: float) -> bytes:
        """Run LOADER on the board with `head` and then the files as its input; what it writes.

        Raises:
            UnreachableError: no connection could be made.
            DroppedError: the connection ended, and what was sent may have been done.
            DeviceError: the board refuses us or cannot run python3; another attempt would not help.
            MissingError: the program that reaches the board is not installed here.
            UsageError: the environment variable that names this program cannot be read.
        """
        ...

    def close(self) -> None:
        """End the connection; a later send makes a new one."""
        ...


@dataclass(frozen=True)
class Ended:
    """How a program of this machine ended."""

    code: int | None
    """Exit code; None when the time was up."""
    output: bytes
    said: str
    """The end of its standard error."""


def remote_command() -> str:
    """The one command line that a board's shell sees; no part of it comes from a user.

    -I and -S: nothing of the board's own configuration of Python takes part, and it starts faster.
    """
    return shlex.join(["python3", "-I", "-S", "-c", LOADER])


def program_of(variable: str, usual: str) -> list[str]:
    """A program of this machine with its options, as an environment variable names it, or the usual one.

    Raises:
        UsageError: the variable has a quote that is never closed.
    """
    try:
        return shlex.split(os.environ.get(variable, "")) or [usual]
    except ValueError as error:
        raise UsageError(f"cannot be read: {error}", where=variable, hint=f"{variable}={usual}") from None


def run_here(command: Sequence[str], head: bytes, files: Sequence[Path], *, timeout_s: float) -> Ended:
    """Run a program of this machine with bytes and files for its input.

    Input, output and errors are files, not pipes: nothing can block, and a connection that ssh keeps open in
    the background holds on to no pipe of ours.

    Raises:
        MissingError: there is no such program.
        StorageError: the temporary files cannot be written.
    """
    if shutil.which(command[0]) is None:
        raise MissingError(
            f"there is no program {command[0]}", hint=f"install it: apt install {_package(command[0])}"
        )
    try:
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as said,
        ):
            _fill(given, head, files)
            process = subprocess.Popen(command, stdin=given, stdout=output, stderr=said)
            code = _wait(process, timeout_s, output.fileno())
            if os.fstat(output.fileno()).st_size > MOST_BYTES:
                raise DeviceError(
                    "the board sent more than it was asked for",
                    where=command[0],
                    hint="look at its login shell",
                )
            last = _content(said)[-TAIL_BYTES:].decode(errors="replace").strip()
            return Ended(code, _content(output), last)
    except OSError as error:
        raise StorageError(
            f"cannot keep what is sent: {error.strerror or error}",
            where=error.filename or tempfile.gettempdir(),
            hint="free some space, or set TMPDIR to another folder",
        ) from error


def _package(program: str) -> str:
    return "openssh-client" if program == "ssh" else program


def _fill(given: IO[bytes], head: bytes, files: Sequence[Path]) -> None:
    given.write(head)
    for path in files:
        with path.open("rb") as file:
            shutil.copyfileobj(file, given)
    given.seek(0)


def _wait(process: subprocess.Popen[bytes], timeout_s: float, output: int) -> int | None:
    """Wait for the end, for the time to be up, or until it has written more than anybody wants."""
    end = time.monotonic() + timeout_s
    try:
        while time.monotonic() < end and os.fstat(output).st_size <= MOST_BYTES:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(1.0, max(0.0, end - time.monotonic())))
        return None
    finally:
        process.kill()
        process.wait()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def last_line(said: str) -> str:
    """The last line that a program said, for a message."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
