"""What a device is to the host: something that runs a job with the kit and hands back the run log."""

from __future__ import annotations

from typing import Protocol

from edgekd.documents.job import Job
from edgekd.documents.run_log import Facts, RunLog
from edgekd.documents.runtime import RuntimeName


class Device(Protocol):
    """Runs jobs, each in a fresh process.

    The paths of a job are the host's. The device takes graphs and inputs from there and leaves outputs there,
    whatever it must carry to and fro.
    """

    @property
    def name(self) -> str:
        """The address, for messages: `local`."""
        ...

    def run(self, job: Job, *, timeout_s: float) -> RunLog:
        """Do a job and return what the kit wrote.

        Raises:
            MissingError: the runtime is not installed on the device.
            MeasurementError: the kit reports that the job failed, the runtime crashed, or the time is up.
            DeviceError: the device could not be used, or its log is missing or cut short.
        """
        ...

    def facts(self, runtime: RuntimeName) -> Facts:
        """What the device is; `versions` has the runtime's only if it is installed there."""
        ...
