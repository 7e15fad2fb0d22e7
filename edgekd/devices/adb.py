"""A board over adb, for those whose system runs adbd and has python3 beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.devices.address import Address
from edgekd.devices.channel import (
    DroppedError,
    Ended,
    UnreachableError,
    last_line,
    program_of,
    remote_command,
    run_here,
)
from edgekd.errors import DeviceError

_FINAL = {
    "unauthorized": (
        "it refuses this machine's key",
        "accept the question that the board shows on its screen",
    ),
    "more than one device": ("adb sees more than one device", "name one: adb:SERIAL (adb devices -l)"),
    "permissions": ("this user may not use its USB port", "add a udev rule for it, or use adb tcpip"),
}
"""What adb says when another attempt would not help: what it means, what to try."""
_LOST = {
    "not found": (
        "adb does not see it",
        "adb devices -l shows what it sees; adb connect HOST:PORT for a network",
    ),
    "offline": ("it is offline", "unplug it and plug it in again, or adb reconnect"),
}
"""What adb says when the board may be back later."""


class AdbChannel:
    """Runs programs on a board over adb's own protocol, which keeps bytes and exit codes as they are."""

    def __init__(self, address: Address) -> None:
        self.name = address.text
        self._serial = address.host

    def send(self, head: bytes, files: Sequence[Path], *, timeout_s: float) -> bytes:
        """Run the loader there; see Channel.send."""
        command = [*program_of("EDGEKD_ADB", "adb"), "-s", self._serial, "shell", "-T", remote_command()]
        ended = run_here(command, head, files, timeout_s=timeout_s)
        if ended.code == 0:
            return ended.output
        raise self._problem(ended, timeout_s)

    def close(self) -> None:
        """Nothing: adb keeps its own server."""

    def _problem(self, ended: Ended, timeout_s: float) -> DeviceError:
        if ended.code is None:
            return DroppedError(f"no answer within {timeout_s:.0f} s", where=self.name, hint="adb devices -l")
        if ended.code in (126, 127):
            return DeviceError(
                f"there is no python3 on the board: {last_line(ended.said)}",
                where=self.name,
                hint="edgekd needs a system with python3 behind adb; a plain Android has none",
            )
        own = [line for line in ended.said.splitlines() if line.startswith(("error:", "adb:"))]
        if ended.code > 0 and not own:
            return DeviceError(
                f"python3 on the board ended with exit code {ended.code}: {last_line(ended.said)}",
                where=self.name,
                hint="python3 of 3.8 or newer is needed there",
            )
        return self._refused_or_lost("\n".join(own))

    def _refused_or_lost(self, text: str) -> DeviceError:
        """What adb itself says: another attempt would not help, or it may."""
        for said, (what, hint) in _FINAL.items():
            if said in text:
                return DeviceError(what, where=self.name, hint=hint)
        for said, (what, hint) in _LOST.items():
            if said in text:
                return UnreachableError(what, where=self.name, hint=hint)
        return DroppedError(f"the connection was lost: {last_line(text)}", where=self.name)
