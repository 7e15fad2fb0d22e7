"""A real sshd on loopback with keys of its own, and the ssh that may use it."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
WHY_NOT = "no sshd here: apt install openssh-server"


def is_installed() -> bool:
    return Path(SSHD).is_file() and shutil.which("ssh-keygen") is not None


class Sshd:
    """Start, cut and start again; `command` is what EDGEKD_SSH takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.address = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "client_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
            )
        shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
        self.trust((folder / "host_key.pub").read_text())
        (folder / "sshd_config").write_text(
            f'ListenAddress 127.0.0.1\nPort {self.port}\nHostKey "{folder}/host_key"\n'
            f'AuthorizedKeysFile "{folder}/authorized_keys"\nPidFile none\nStrictModes no\nUsePAM no\n'
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f'SetEnv EDGEKD_BUSY="{folder}/busy"\n'
            "MaxStartups 100\nLogLevel ERROR\n"
        )
        (folder / "ssh_config").write_text(
            f'Host *\n  IdentityFile "{folder}/client_key"\n  IdentitiesOnly yes\n  IdentityAgent none\n'
            f'  UserKnownHostsFile "{folder}/known_hosts"\n  GlobalKnownHostsFile none\n'
            f"Host kitchen\n  HostName 127.0.0.1\n  Port {self.port}\n"
        )

    @property
    def command(self) -> str:
        return f"ssh -F '{self.folder}/ssh_config'"

    def trust(self, host_key: str) -> None:
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")

    def start(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd of root gives its privileges up
        with (self.folder / "sshd.txt").open("wb") as said:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, (self.folder / "sshd.txt").read_text()
            time.sleep(0.02)
        raise AssertionError("sshd does not listen")

    def cut(self) -> None:
        """Pull the plug: the daemon and every connection of it, and nothing that runs on the board."""
        assert self._process is not None
        for pid in [self._process.pid, *_sshd_children(self._process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.cut()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sshd_children(parent: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().rpartition(")")
        except OSError:
            continue
        if name.partition("(")[2] == "sshd":
            parents[int(folder.name)] = int(rest.split()[1])
    found, new = [], [parent]
    while new:
        new = [pid for pid, above in parents.items() if above in new]
        found += new
    return found
