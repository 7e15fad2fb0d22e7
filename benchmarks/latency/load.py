"""Other programs on the machine, while something is measured: none, steady ones, or ones that come and go.

quiet    none from here; what else runs on the machine does
loaded   one process a core, pinned to it, multiplies matrices without end
bursty   one process more than there are cores, each at work and asleep in turns of 1.5 s on average
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

CONDITIONS = ("quiet", "loaded", "bursty")
BURST_S = 1.5
SETTLE_S = 1.0


@contextlib.contextmanager
def other_programs(condition: str) -> Iterator[None]:
    """Start the other programs of a condition, and end them whatever happens."""
    cores = sorted(os.sched_getaffinity(0))
    count = {"quiet": 0, "loaded": len(cores), "bursty": len(cores) + 1}[condition]
    with contextlib.ExitStack() as stack:
        for number in range(count):
            core = cores[number] if condition == "loaded" else -1
            stack.enter_context(_program(core, number))
        if count:
            time.sleep(SETTLE_S)
        yield


@contextlib.contextmanager
def _program(core: int, seed: int) -> Iterator[None]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(core), str(seed), str(os.getpid())]
    # A session of its own: the kernel shares the processor by session, and so do programs of two users.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def work(core: int, seed: int, parent: int) -> None:
    """Be one of the other programs, until the parent is gone."""
    import numpy as np

    if core >= 0:
        os.sched_setaffinity(0, {core})
    chance, x = random.Random(seed), np.full((512, 512), 1 / 512)
    while os.getppid() == parent:
        until = time.monotonic() + (BURST_S if core >= 0 else chance.expovariate(1 / BURST_S))
        while time.monotonic() < until:
            x = x @ x
        if core < 0:
            time.sleep(chance.expovariate(1 / BURST_S))


if __name__ == "__main__":
    work(*map(int, sys.argv[1:]))
