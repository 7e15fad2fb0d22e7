"""Where a device is: `local`, `ssh://[USER@]HOST[:PORT]` or `adb:SERIAL`, never written in a profile.

After a `?` may stand `python=PATH`, the Python on the board that has the runtime, and `folder=PATH`, where
edgekd keeps its files there: `ssh://pi@kitchen?python=~/venv/bin/python`. In them %26 stands for an &.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from edgekd.documents.base import nearest
from edgekd.errors import UsageError

EXPECTED = "local, ssh://[USER@]HOST[:PORT] or adb:SERIAL, with ?python=PATH and &folder=PATH if need be"
OPTIONS = ("python", "folder")

_SSH = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_ADB = re.compile(r"adb:(?P<serial>[A-Za-z0-9][A-Za-z0-9_.:-]*)")


@dataclass(frozen=True)
class Address:
    """Where a device is and how it is reached."""

    text: str
    """As it was written, without its options."""
    kind: Literal["local", "ssh", "adb"]
    host: str = ""
    """Host name, or the serial number for adb."""
    user: str | None = None
    """None: as ssh's own configuration says."""
    port: int | None = None
    python: str | None = None
    """The Python that runs the kit there; None for python3."""
    folder: str | None = None
    """Where edgekd keeps its files there; None for the user's cache folder."""


def parse_address(text: str) -> Address:
    """The address that a text means.

    Raises:
        UsageError: it is none; nothing that reaches a command line can look like an option or hold a space.
    """
    place, _, options = text.partition("?")
    given = _options(options, text)
    if place == "local":
        if given:
            raise UsageError(
                f"`local` takes no {next(iter(given))}", hint="run edgekd with the Python that is meant"
            )
        return Address(place, "local")
    places = (given.get("python"), given.get("folder"))
    if found := _SSH.fullmatch(place):
        port = None if found["port"] is None else int(found["port"])
        if port is None or 0 < port < 65536:
            return Address(place, "ssh", found["host"].strip("[]"), found["user"], port, *places)
    if found := _ADB.fullmatch(place):
        return Address(place, "adb", found["serial"], None, None, *places)
    raise UsageError(f"'{text}' is no address of a device", hint=EXPECTED)


def _options(text: str, whole: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for key, _, quoted in (part.partition("=") for part in text.split("&") if text):
        value = unquote(quoted)
        if key not in OPTIONS:
            raise UsageError(
                f"'{whole}' has the option '{key}'{nearest(key, OPTIONS)}",
                hint=f"known: {', '.join(OPTIONS)}",
            )
        if not value or not value.isprintable():
            raise UsageError(f"'{whole}' gives no path for '{key}'", hint=EXPECTED)
        if key in given:
            raise UsageError(f"'{whole}' gives '{key}' twice", hint=EXPECTED)
        given[key] = value
    return given
