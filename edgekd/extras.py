"""What `pip install edgekd` leaves out, and how to get it."""

from __future__ import annotations

from importlib.util import find_spec

from edgekd.errors import MissingError


def is_installed(module: str) -> bool:
    """Whether a top-level module can be found; nothing is imported."""
    return find_spec(module) is not None


def install_line(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'edgekd[{extra}]'"


def require(module: str, *, extra: str, for_what: str) -> None:
    """Check that a module of an extra is installed, before it is imported.

    Raises:
        MissingError: it is not; the hint is the command that installs it.
    """
    if not is_installed(module):
        raise MissingError(f"{for_what} needs {module}, which is not installed", hint=install_line(extra))
