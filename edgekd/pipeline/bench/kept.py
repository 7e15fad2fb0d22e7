"""A device whose jobs are counted, and whose finished jobs are kept in a folder to go on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from edgekd.devices.device import Device
from edgekd.devices.kit import kit_digest
from edgekd.documents.job import Job
from edgekd.documents.run_log import Facts, RunLog
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import DocumentError
from edgekd.files import sha256_file, sha256_json

LOGS = "logs"
"""Folder of the logs, in that of the bench."""
TIMED = ("latency", "sustained", "paced")


class KeptDevice:
    """Does the jobs of another device; one whose log lies in `folder`/logs is not done again.

    Equal jobs are told apart by their number, for a process is measured several times. A machine or a version
    that has changed since makes another job. Logs of outputs are not kept: their file of logits would have to
    be kept with them.
    """

    def __init__(self, device: Device, *, folder: Path | None, on_job: Callable[[], None]) -> None:
        self._device = device
        self._folder = folder
        self._on_job = on_job
        self._seen: Counter[str] = Counter()
        self._facts: dict[RuntimeName, Facts] = {}
        self.logs: list[RunLog] = []
        """What the jobs that were timed wrote, in their order."""
        self.files: list[str] = []
        """Names of the files of logs that were read or written, in the order of the jobs."""
        self.reused = 0
        """Jobs whose log was there already."""

    @property
    def name(self) -> str:
        """The address."""
        return self._device.name

    def close(self) -> None:
        """Nothing: who opened the device closes it."""

    def facts(self, runtime: RuntimeName) -> Facts:
        """What the device is; it is asked once."""
        if runtime not in self._facts:
            self._facts[runtime] = self._device.facts(runtime)
        return self._facts[runtime]

    def run(self, job: Job, *, timeout_s: float) -> RunLog:
        """Do a job, or read the log of the same job that was done before."""
        path = self._path(job)
        log = None if path is None else _read(path)
        if log is None:
            log = self._device.run(job, timeout_s=timeout_s)
            if path is not None:
                log.write(path)
        else:
            self.reused += 1
        if path is not None:
            self.files.append(f"{LOGS}/{path.name}")
        if job.mode in TIMED:
            self.logs.append(log)
        self._on_job()
        return log

    def _path(self, job: Job) -> Path | None:
        if self._folder is None or job.mode == "outputs":
            return None
        graphs = [(graph.name, sha256_file(Path(graph.path))) for graph in job.graphs]
        inputs = None if job.inputs is None else sha256_file(Path(job.inputs))
        settings = job.model_dump(mode="json", exclude={"graphs", "inputs", "cache"})
        facts = self.facts(job.runtime)
        machine = [facts.machine, facts.cpu, facts.board, facts.power_mode, facts.versions]
        key = sha256_json([self.name, machine, kit_digest(), graphs, inputs, settings])[:16]
        self._seen[key] += 1
        return self._folder / LOGS / f"{job.mode}-{key}-{self._seen[key]}.json"


def _read(path: Path) -> RunLog | None:
    """A log that was kept whole; what is no log any more is measured again."""
    if not path.is_file():
        return None
    try:
        return RunLog.read(path)
    except DocumentError:
        return None
