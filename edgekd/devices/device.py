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
            MeasurementError: the kit reports that the job failed.
            DeviceError: the device could not be used, the runtime crashed, the time is up, or the log is
                missing, cut short or of another job.
        """
        ...

    def facts(self, runtime: RuntimeName) -> Facts:
        """What the device is; `versions` has the runtime's only if it is installed there."""
        ...

    def close(self) -> None:
        """Leave nothing behind on the device; a later run would begin anew."""
        ...


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that hold the numeric libraries of a kit to a number of threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))
