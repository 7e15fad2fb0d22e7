"""The machine at hand: the kit as a subprocess, in a process group of its own, with a limit on its time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgekd.devices.device import thread_variables
from edgekd.devices.outcome import TAIL_BYTES, Outcome, log_of
from edgekd.documents.job import Job
from edgekd.documents.run_log import Facts, RunLog
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import DeviceError, StorageError
from edgekd.shipped import shipped

KEPT_VARIABLES = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT"),
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES"),
)
"""What the kit needs to find Python, numpy, the runtime and the GPU; nothing else reaches it."""

FACTS_SECONDS = 60.0
LOCAL_ADDRESS = "local"
"""The address of the machine at hand."""


class LocalDevice:
    """The machine at hand, with the Python that runs edgekd, so that numpy and the runtime are the same."""

    name = LOCAL_ADDRESS

    def __init__(self, kit: Path | None = None) -> None:
        self._program = (kit or shipped("export", "kit")) / "run.py"

    def close(self) -> None:
        """Nothing: a job leaves nothing behind."""

    def facts(self, runtime: RuntimeName) -> Facts:
        """What this machine is."""
        return self.run(Job(mode="facts", runtime=runtime), timeout_s=FACTS_SECONDS).facts

    def run(self, job: Job, *, timeout_s: float) -> RunLog:
        """Do a job in a fresh process; see Device.run for what is raised."""
        try:
            with tempfile.TemporaryDirectory(prefix="edgekd-job-") as name:
                return self._run_in(Path(name), _absolute(job), timeout_s)
        except OSError as error:
            raise StorageError(
                f"cannot keep the job's files: {error.strerror or error}",
                where=error.filename or tempfile.gettempdir(),
                hint="free some space, or set TMPDIR to another folder",
            ) from error

    def _run_in(self, folder: Path, job: Job, timeout_s: float) -> RunLog:
        given, written, said = folder / "job.json", folder / "log.json", folder / "output.txt"
        job.write(given)
        command = [sys.executable, "-B", str(self._program), str(given), str(written)]
        with said.open("wb") as output:
            code = _wait(self._start(command, folder, job, output.fileno()), timeout_s)
        log = written.read_bytes() if written.exists() else None
        return log_of(Outcome(code, log, _end_of(said), timeout_s), job, where=self.name)

    def _start(self, command: list[str], folder: Path, job: Job, output: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=environment(job.threads, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(
                f"the kit cannot be started: {error.strerror or error}", where=self.name, hint="edgekd doctor"
            ) from error


def environment(threads: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """The kit's environment: what it needs to find things, and the number of threads.

    EDGEKD_KIT_PARENT ties the kit to this process, so that a killed host leaves no measurement running.
    """
    kept = {name: inherited[name] for name in KEPT_VARIABLES if name in inherited}
    return {**kept, **thread_variables(threads), "EDGEKD_KIT_PARENT": str(os.getpid())}


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read()


def _absolute(job: Job) -> Job:
    """The job with absolute paths: the kit works in a folder of its own."""
    graphs = tuple(graph.model_copy(update={"path": os.path.abspath(graph.path)}) for graph in job.graphs)
    inputs, outputs = (path and os.path.abspath(path) for path in (job.inputs, job.outputs))
    there = {"graphs": graphs, "inputs": inputs, "outputs": outputs, "cache": str(engine_cache())}
    return job.model_copy(update=there)


def engine_cache() -> Path:
    """Where engines that were built on this machine are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "edgekd" / "engines"


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit code, or None when the time is up. Whatever happens, no process of the group is left."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # No such group: all have ended. No permission: what macOS says of a group that is about to end.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
