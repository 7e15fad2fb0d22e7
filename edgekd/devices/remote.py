"""A board reached over a channel: what it lacks is pushed, a job is run there, its results are pulled.

Files go by their digest, so that what is there is not sent again. A job runs under a supervisor on the board
(export/kit/board.py) and outlives the connection: when that drops, it is made anew and the job is found as it
is. One session holds the board's lock from its first job to `close`.
"""

from __future__ import annotations

import getpass
import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.devices.board_link import RECONNECT_SECONDS, REQUEST_SECONDS, BoardLink
from edgekd.devices.channel import Channel
from edgekd.devices.device import thread_variables
from edgekd.devices.kit import kit_programs
from edgekd.devices.outcome import Outcome, log_of
from edgekd.devices.replies import Cleaned, Held, Reply, Started, Unlocked, Waited
from edgekd.documents.job import Job
from edgekd.documents.run_log import Facts, RunLog
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import DeviceError, StorageError
from edgekd.files import sha256_bytes, sha256_file, write_bytes
from edgekd.shipped import shipped

LEASE_SECONDS = 300.0
"""After so long without a word from the host, the board ends the job: longer than RECONNECT_SECONDS."""
WAIT_SECONDS = 15.0
"""Longest time that one request waits for the job."""
SLOWEST_BYTES_S = 50_000
"""Slowest connection that a push is given time for."""
SLOWEST_DISK_BYTES_S = 10_000_000
"""Slowest disk that a board is given time for: it holds its files against their digests before a job."""
SMALL_BYTES = 2**20
"""Files up to here are pushed together."""
FACTS_SECONDS = 60.0
MOST_BYTES = 2**31
"""Largest result that is taken from a board."""
INPUTS, OUTPUTS = "inputs.npy", "outputs.npy"


@dataclass(frozen=True)
class _Ended:
    """How a job ended on the board."""

    code: int | None
    reason: str | None
    """Why the supervisor ended it, as Waited.ended; None: by itself."""
    files: Mapping[str, bytes]


class RemoteDevice:
    """A board behind a channel. Closing it gives the lock back."""

    def __init__(
        self,
        channel: Channel,
        *,
        python: str | None = None,
        folder: str | None = None,
        kit: Path | None = None,
        reconnect_s: float = RECONNECT_SECONDS,
        lease_s: float = LEASE_SECONDS,
        on_event: Callable[[str], None] = lambda line: None,
    ) -> None:
        place = {key: value for key, value in (("python", python), ("folder", folder)) if value}
        self._link = BoardLink(channel, place, reconnect_s, on_event)
        self._kit = kit or shipped("export", "kit")
        self._lease_s = lease_s
        self._session = uuid.uuid4().hex[:12]
        self._jobs = 0

    @property
    def name(self) -> str:
        """The address."""
        return self._link.name

    def close(self) -> None:
        """End what was left, give the lock back, end the connection; a board that is gone is let be."""
        try:
            if self._jobs and self._link.reached:
                self._link.tell("unlock", session=self._session, any=False)
        finally:
            self._link.close()

    def facts(self, runtime: RuntimeName) -> Facts:
        """What the board is."""
        return self.run(Job(mode="facts", runtime=runtime), timeout_s=FACTS_SECONDS).facts

    def run(self, job: Job, *, timeout_s: float) -> RunLog:
        """Do a job there in a fresh process; see Device.run for what is raised."""
        self._jobs += 1
        name = f"{self._session}-{self._jobs}"
        there, files = _as_there(job, self._kit_files())
        self._start(name, there, files, timeout_s)
        wanted = ("log.json", "output.txt", *(() if job.outputs is None else (OUTPUTS,)))
        ended = self._ended(name, wanted, timeout_s)
        log = log_of(self._outcome(ended, timeout_s), job, where=self.name)
        if job.outputs is not None:
            self._keep_outputs(Path(job.outputs), ended.files.get(OUTPUTS), log)
        return log

    def unlock(self) -> str | None:
        """End the session of whoever holds the lock; who it was, None for nobody."""
        return self._link.ask(Unlocked, "unlock", session=self._session, any=True)[0].owner

    def clean(self) -> str:
        """Remove all that edgekd keeps on the board; the folder that is gone.

        Raises:
            DeviceError: somebody measures there.
        """
        reply, _ = self._link.ask(Cleaned, "clean")
        self._refuse_held(reply)
        return reply.root

    def _start(self, name: str, job: Job, files: Mapping[str, Path], timeout_s: float) -> None:
        """Start a job, and push what the board says it lacks for it."""
        digests = _digests(files)
        request = {
            "id": name,
            **self._claim(
                self._lease_s + sum(path.stat().st_size for path in files.values()) / SLOWEST_BYTES_S
            ),
            "job": job.model_dump(mode="json", by_alias=True),
            "files": digests,
            "timeout_s": timeout_s,
            "lease_s": self._lease_s,
            "environment": thread_variables(job.threads),
        }
        by_digest = {digest: files[place] for place, digest in digests.items()}
        limit_s = REQUEST_SECONDS + sum(path.stat().st_size for path in files.values()) / SLOWEST_DISK_BYTES_S
        reply = self._started(request, limit_s)
        for _ in range(2):
            if not reply.missing:
                return
            self._push([by_digest[digest] for digest in by_digest if digest in reply.missing])
            reply = self._started(request, limit_s)
        if reply.missing:
            raise DeviceError(
                "the board does not keep what it is sent", where=self.name, hint="look at its disk"
            )

    def _claim(self, lasts_s: float) -> dict[str, object]:
        """What a request says to take the lock, or to make it last for so long from now."""
        return {"session": self._session, "owner": _owner(), "lasts_s": lasts_s}

    def _started(self, request: Mapping[str, Any], limit_s: float) -> Started:
        reply, _ = self._link.ask(Started, "start", (), limit_s, **request)
        self._refuse_held(reply)
        return reply

    def _push(self, files: Sequence[Path]) -> None:
        small = [path for path in files if path.stat().st_size <= SMALL_BYTES]
        for group in filter(None, [small, *([path] for path in files if path not in small)]):
            sizes = [path.stat().st_size for path in group]
            heads = [
                {"sha256": sha256_file(path), "size": size} for path, size in zip(group, sizes, strict=True)
            ]
            limit_s = REQUEST_SECONDS + sum(sizes) / SLOWEST_BYTES_S
            self._link.ask(Reply, "put", group, limit_s, files=heads)

    def _ended(self, name: str, wanted: Sequence[str], timeout_s: float) -> _Ended:
        """Wait for a job, and take the files that it left."""
        end = time.monotonic() + 2 * timeout_s + LEASE_SECONDS  # it may wait as long for another user's job
        seconds = min(WAIT_SECONDS, self._lease_s / 3)
        request = {
            "id": name,
            **self._claim(self._lease_s),
            "seconds": seconds,
            "files": list(wanted),
            "most": MOST_BYTES,
        }
        while time.monotonic() < end:
            reply, body = self._link.ask(Waited, "wait", (), REQUEST_SECONDS * 10, **request)
            if reply.state == "lost":
                why = f"the job was lost: {reply.reason}"
                raise DeviceError(why, where=self.name, hint="look at the board, then run it again")
            if reply.state == "done":
                return _Ended(reply.code, reply.ended, self._files(reply, body))
        raise DeviceError("the board does not end the job", where=self.name, hint="restart the board")

    def _files(self, reply: Waited, body: bytes) -> dict[str, bytes]:
        files, start = {}, 0
        for left in reply.files:
            data = body[start : start + left.size]
            if sha256_bytes(data) != left.sha256:
                raise DeviceError(
                    "a result came altered from the board", where=self.name, hint="run it again"
                )
            files[left.name] = data
            start += left.size
        return files

    def _outcome(self, ended: _Ended, timeout_s: float) -> Outcome:
        if ended.reason == "host":
            why = "the board ended the job: it had not heard of this machine for too long"
            raise DeviceError(why, where=self.name, hint="look at the connection, then run it again")
        if ended.reason == "busy":
            why = f"somebody else measured there for {timeout_s:g} s: another user, or another folder"
            raise DeviceError(why, where=self.name, hint="run it again when they are done")
        code = None if ended.reason else ended.code
        return Outcome(code, ended.files.get("log.json"), ended.files.get("output.txt", b""), timeout_s)

    def _keep_outputs(self, path: Path, data: bytes | None, log: RunLog) -> None:
        if data is None or sha256_bytes(data) != log.outputs_sha256:
            why = "the file of outputs is missing or is not the one that the kit wrote"
            raise DeviceError(why, where=self.name, hint="run it again")
        write_bytes(path, data)

    def _refuse_held(self, reply: Held) -> None:
        if reply.held_by is not None:
            raise DeviceError(
                f"it is measured by {reply.held_by}, for {reply.left_s:.0f} s more at most",
                where=self.name,
                hint="wait, or `edgekd devices unlock ADDRESS` if that session is gone",
            )

    def _kit_files(self) -> dict[str, Path]:
        """The kit's programs by their place on the board; board.py travels with each request."""
        return {f"kit/{path.relative_to(self._kit).as_posix()}": path for path in kit_programs(self._kit)}


def _as_there(job: Job, kit: Mapping[str, Path]) -> tuple[Job, dict[str, Path]]:
    """The job with paths in its folder on the board, and each file by its place there."""
    places = [f"graphs/{number}{Path(graph.path).suffix}" for number, graph in enumerate(job.graphs)]
    moved = [
        graph.model_copy(update={"path": place}) for graph, place in zip(job.graphs, places, strict=True)
    ]
    there = job.model_copy(
        update={
            "graphs": tuple(moved),
            "inputs": job.inputs and INPUTS,
            "outputs": job.outputs and OUTPUTS,
        }
    )
    graphs = {place: Path(graph.path) for place, graph in zip(places, job.graphs, strict=True)}
    inputs = {} if job.inputs is None else {INPUTS: Path(job.inputs)}
    return there, {**kit, **graphs, **inputs}


def _owner() -> str:
    """Who measures, for whoever finds the board's lock taken."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return f"{user} at {platform.node()}, process {os.getpid()}"


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    try:
        return {place: sha256_file(path) for place, path in files.items()}
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", where=error.filename) from error
