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
from typing import NoReturn

from edgekd.documents.job import Job
from edgekd.documents.run_log import Facts, RunLog
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import DeviceError, DocumentError, MeasurementError, MissingError, StorageError
from edgekd.shipped import shipped

KEPT_VARIABLES = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT"),
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES"),
)
"""What the kit needs to find Python, numpy, the runtime and the GPU; nothing else reaches it."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FACTS_SECONDS = 60.0
TAIL_BYTES = 2000


class LocalDevice:
    """The machine at hand, with the Python that runs edgekd, so that numpy and the runtime are the same."""

    name = "local"

    def __init__(self, kit: Path | None = None) -> None:
        self._program = (kit or shipped("export", "kit")) / "run.py"

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
        if code is None:
            _time_is_up(job, timeout_s)
        if code < 0:
            _crashed(job, code, _tail(said))
        return _read_log(written, job, code, _tail(said))

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
    pinned = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**kept, **pinned, "EDGEKD_KIT_PARENT": str(os.getpid())}


def _absolute(job: Job) -> Job:
    """The job with absolute paths: the kit works in a folder of its own."""
    graphs = tuple(graph.model_copy(update={"path": os.path.abspath(graph.path)}) for graph in job.graphs)
    inputs, outputs = (path and os.path.abspath(path) for path in (job.inputs, job.outputs))
    return job.model_copy(update={"graphs": graphs, "inputs": inputs, "outputs": outputs})


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


def _time_is_up(job: Job, timeout_s: float) -> NoReturn:
    raise MeasurementError(
        f"no result after {timeout_s:g} s; the kit was stopped",
        where=_what(job),
        hint="look for a graph that never ends or is far slower than expected",
    )


def _crashed(job: Job, code: int, tail: str) -> NoReturn:
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    killed = name == "SIGKILL"
    raise MeasurementError(
        (f"the kit was killed ({name})" if killed else f"the runtime crashed ({name})") + tail,
        where=_what(job),
        hint="look for a lack of memory: dmesg names what the kernel killed"
        if killed
        else "edgekd audit on the graph, and another version of the runtime",
    )


def _read_log(path: Path, job: Job, code: int, tail: str) -> RunLog:
    if not path.exists():
        raise DeviceError(f"the kit ended with exit code {code} and left no log{tail}", where=_what(job))
    try:
        log = RunLog.read(path)
    except DocumentError as error:
        problems = "; ".join(error.problems)
        raise DeviceError(
            f"the result is truncated or no run log: {problems}{tail}", where=_what(job)
        ) from None
    if code == 3:
        raise MissingError(
            log.error or f"{job.runtime} is not installed", where=_what(job), hint="edgekd doctor"
        )
    if code != 0 or log.error is not None:
        raise MeasurementError(log.error or f"the kit ended with exit code {code}{tail}", where=_what(job))
    return log


def _what(job: Job) -> str:
    """`local: latency of student fp32, student QAD int8`."""
    graphs = ", ".join(graph.name for graph in job.graphs)
    return f"local: {job.mode} of {graphs}" if graphs else f"local: {job.mode}"


def _tail(said: Path) -> str:
    """The last lines that the kit and its runtime printed, to end a message with."""
    data = said.read_bytes()[-TAIL_BYTES:]
    text = data.decode(errors="replace").strip()
    return f"; its last words:\n{text}" if text else ""
