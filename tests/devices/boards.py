"""Boards for tests: this machine behind channels of several kinds, and kits that do what a test wants."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgekd.devices.channel import LOADER, Channel, DroppedError, run_here
from edgekd.devices.remote import RemoteDevice
from edgekd.documents.job import Job
from edgekd.documents.run_log import RunLog

RUN = """import hashlib, json, os, subprocess, sys, time
JOB, LOG = sys.argv[1:]
job = json.load(open(JOB, encoding="utf-8"))
facts = dict(machine=os.uname().machine, system="x", cpu=None, isa=[], cores=1, memory_bytes=None,
             governor=None, versions={"python": "3"})
graphs = [dict(name=graph["name"], load_ns=1, first_ns=2, latency_ns=[3]) for graph in job["graphs"]]
log = dict(schema=1, mode=job["mode"], runtime=job["runtime"], facts=facts, graphs=graphs)
def write(text=None):
    with open(LOG + ".part", "w") as file:
        file.write(json.dumps(log) if text is None else text)
    os.replace(LOG + ".part", LOG)
"""
"""The beginning of a stand-in kit, which needs nothing but Python."""


def kit_that(folder: Path, does: str = "write()") -> Path:
    """A kit's folder whose program does something else than the job; `does` may use the names of RUN."""
    (folder / "kit").mkdir(parents=True)
    (folder / "kit" / "run.py").write_text(f"{RUN}{does}\n")
    return folder / "kit"


def job_of(folder: Path, **changes: object) -> Job:
    """A job whose graph and inputs are files that no stand-in kit reads."""
    (folder / "g.onnx").write_bytes(b"a graph")
    (folder / "x.npy").write_bytes(b"some inputs")
    graph = {"name": "student", "path": str(folder / "g.onnx")}
    whole = {"mode": "cold", "runtime": "onnxruntime", "graphs": [graph], "inputs": str(folder / "x.npy")}
    return Job.parse({"schema": 1, **whole, **changes}, where="test")


class HereChannel:
    """This machine as a board, without a connection between."""

    name = "ssh://here"
    command = (sys.executable, "-I", "-S", "-c", LOADER)

    def __init__(self) -> None:
        self.closed = 0

    def send(self, head: bytes, files: Sequence[Path], *, timeout_s: float) -> bytes:
        ended = run_here(self.command, head, files, timeout_s=timeout_s)
        assert ended.code == 0, ended.said
        return ended.output

    def close(self) -> None:
        self.closed += 1


class Wrapped:
    """A channel to which something happens at its n-th request, before or after the board has done it."""

    def __init__(self, channel: Channel, happens: Callable[[int, bytes | None], bytes | None]) -> None:
        self.name = channel.name
        self.requests: list[bytes] = []
        """What was sent before the files, request by request."""
        self.sent_bytes = 0
        self._channel, self._happens = channel, happens

    def send(self, head: bytes, files: Sequence[Path], *, timeout_s: float) -> bytes:
        self.requests.append(head.splitlines()[-1])
        number = len(self.requests)
        self._happens(number, None)
        reply = self._channel.send(head, files, timeout_s=timeout_s)
        self.sent_bytes += sum(path.stat().st_size for path in files)
        changed = self._happens(number, reply)
        return reply if changed is None else changed

    def close(self) -> None:
        self._channel.close()


def pulled(at: int, when: str) -> Callable[[int, bytes | None], None]:
    """The plug is pulled at a request, before or after the board has done it."""

    def happens(number: int, reply: bytes | None) -> None:
        if number == at and (reply is None) == (when == "before"):
            raise DroppedError("the plug was pulled", where="ssh://here")

    return happens


def processes_of(mark: str) -> list[str]:
    """Processes, zombies aside, whose command line or working folder has a text in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if state != "Z" and (mark in line or mark in place):
            found.append(f"{process.name}: {line}")
    return found


def kept_on(board: Path) -> dict[str, int]:
    """How many files of each kind a board's folder has, apart from those that stay on purpose."""
    return {
        "jobs": len(list((board / "jobs").iterdir())),
        "locks": len(list(board.glob("lock.json*"))),
        "parts": len(list(board.rglob("*.part"))),
        "processes": len(processes_of(str(board))),
    }


NOTHING = {"jobs": 0, "locks": 0, "parts": 0, "processes": 0}


def nothing_happens(number: int, reply: bytes | None) -> None:
    """Every request is answered."""


class Board:
    """A board in a folder, whose kit counts how often it runs."""

    def __init__(self, folder: Path, does: str = "write()") -> None:
        self.folder, self.place, self.runs = folder, folder / "board", folder / "runs.txt"
        self.kit = kit_that(folder, f"open({str(self.runs)!r}, 'a').write('x')\n{does}")
        self.events: list[str] = []
        self.channel = Wrapped(HereChannel(), nothing_happens)

    def device(
        self, happens: Callable[[int, bytes | None], bytes | None] = nothing_happens, **changes: object
    ) -> RemoteDevice:
        self.channel = Wrapped(HereChannel(), happens)
        whole = {"kit": self.kit, "folder": str(self.place), "reconnect_s": 5, **changes}
        return RemoteDevice(self.channel, on_event=self.events.append, **whole)

    def once(self, happens: Callable[[int, bytes | None], bytes | None], **changes: object) -> RunLog:
        """One job of a device that is closed after it."""
        device = self.device(happens)
        try:
            return device.run(job_of(self.folder, **changes), timeout_s=20)
        finally:
            device.close()

    def count(self) -> int:
        return len(self.runs.read_text())

    def asked(self) -> list[str]:
        return [json.loads(line)["op"] for line in self.channel.requests]


def text_of(error: type[Exception], device: RemoteDevice, job: Job, timeout_s: float = 20) -> str:
    with pytest.raises(error) as caught:
        device.run(job, timeout_s=timeout_s)
    assert type(caught.value) is error
    return str(caught.value)
