"""A board over the system's OpenSSH: its configuration, agent and known hosts hold; no password is asked for.

One connection is made and shared by all requests (ControlMaster); it ends with `close`, or by itself a minute
after the last request, so that a killed edgekd leaves none. EDGEKD_SSH replaces the program `ssh` and may
hold options, as in `ssh -F other_config`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
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
from edgekd.errors import DeviceError, EdgekdError

CONNECT_SECONDS = 10
PERSIST_SECONDS = 60
LONGEST_FOLDER = 60
"""Of a socket's folder: its whole path has at most 104 characters, of which ssh takes some for itself."""

_FINAL = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "its host key is not the one that is known: it was installed anew, or somebody stands between",
        "compare the new key with the board's own; if it is right: ssh-keygen -R {known}; ssh {login} once",
    ),
    "Host key verification failed": (
        "its host key is not known here",
        "compare the key that `ssh {login}` shows with the board's own, and accept it there once",
    ),
    "Permission denied": (
        "it refuses the login",
        "ssh-copy-id {login}, or name the user and the key for it in ~/.ssh/config",
    ),
    "Bad owner or permissions": ("ssh refuses its own configuration", "chmod 600 ~/.ssh/config"),
    "Bad configuration option": ("ssh refuses its own configuration", "ssh -G {login} shows what it reads"),
}
"""What ssh says when another attempt would not help: what it means, what to try."""
_LOST = {
    "Could not resolve hostname": ("there is no host of that name", "look for a typing error; ping {host}"),
    "Connection refused": ("it refuses connections", "start sshd there, or name its port: ssh://HOST:PORT"),
    "timed out": ("it does not answer", "look whether the board is on and in this network: ping {host}"),
    "No route to host": ("there is no way to it", "look whether the board is on and in this network"),
    "Network is unreachable": ("there is no way to it", "look whether this machine is in its network"),
    "_exchange_identification": (
        "it ends the connection before a login",
        "look whether that port is sshd's, and at its log: journalctl -u ssh",
    ),
}
"""What ssh says when the host may be back later."""
_BEFORE_LOGIN = (
    *("connect to host", "Could not resolve hostname", "_exchange_identification"),
    "during banner exchange",
)
"""What ssh says only while it makes a connection."""
_NO_PYTHON = (126, 127)
"""Exit codes of a shell that cannot run a program."""


class SshChannel:
    """Runs programs on a host over ssh."""

    def __init__(self, address: Address) -> None:
        self.name = address.text
        self._address = address
        self._folder = Path(tempfile.mkdtemp(prefix="edgekd-ssh-", dir=_short_folder()))

    def send(self, head: bytes, files: Sequence[Path], *, timeout_s: float) -> bytes:
        """Run the loader there; see Channel.send."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        command = [*self._command(), "--", self._address.host, remote_command()]
        ended = run_here(command, head, files, timeout_s=timeout_s)
        if ended.code == 0:
            return ended.output
        raise self._problem(ended, timeout_s)

    def close(self) -> None:
        """End the shared connection."""
        if (self._folder / "socket").exists():
            command = [*self._command(), "-O", "exit", "--", self._address.host]
            with contextlib.suppress(EdgekdError):  # it ends by itself a little later
                run_here(command, b"", (), timeout_s=CONNECT_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _command(self) -> list[str]:
        settings = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": CONNECT_SECONDS,
            "ServerAliveInterval": 5,
            "ServerAliveCountMax": 3,
            "ControlMaster": "auto",
            "ControlPath": self._folder / "socket",
            "ControlPersist": PERSIST_SECONDS,
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "LogLevel": "INFO",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "RequestTTY": "no",
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        user = [] if self._address.user is None else ["-l", self._address.user]
        port = [] if self._address.port is None else ["-p", str(self._address.port)]
        return [*program_of("EDGEKD_SSH", "ssh"), *options, *user, *port]

    def _problem(self, ended: Ended, timeout_s: float) -> DeviceError:
        """What became of a program that did not end well."""
        host = self._address.host
        if ended.code is None:
            return DroppedError(f"no answer within {timeout_s:.0f} s", where=self.name, hint=f"ping {host}")
        if ended.code in _NO_PYTHON:
            return DeviceError(
                f"there is no python3 on the board: {last_line(ended.said)}",
                where=self.name,
                hint="on a Debian or Ubuntu board: apt install python3",
            )
        if ended.code > 0 and ended.code != 255:
            return DeviceError(
                f"python3 on the board ended with exit code {ended.code}: {last_line(ended.said)}",
                where=self.name,
                hint="python3 of 3.8 or newer is needed there",
            )
        return self._refused_or_lost(ended.said)

    def _refused_or_lost(self, text: str) -> DeviceError:
        """What ssh itself says: another attempt would not help, or it may."""
        host, user, port = self._address.host, self._address.user, self._address.port
        login = (f"-p {port} " if port else "") + (f"{user}@" if user else "") + host
        known = f"'[{host}]:{port}'" if port else host
        for said, (what, hint) in _FINAL.items():
            if said in text:
                return DeviceError(what, where=self.name, hint=hint.format(login=login, known=known))
        lost = UnreachableError if any(said in text for said in _BEFORE_LOGIN) else DroppedError
        for said, (what, hint) in _LOST.items():
            if said in text:
                return lost(what, where=self.name, hint=hint.format(host=host))
        return lost(f"the connection was lost: {last_line(text)}", where=self.name)


def _short_folder() -> str | None:
    """A folder whose path is short enough for a socket and means nothing to ssh; None: the usual one."""
    usual = tempfile.gettempdir()
    return None if len(usual) <= LONGEST_FOLDER and not set(usual) & set("% \"'\\") else "/tmp"
