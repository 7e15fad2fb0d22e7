"""Start a program of this package in a process of its own, for native code that reads somebody's graph.

A crash in it does not take edgekd along, and the memory that it holds goes back when it ends. It reads a job
as JSON from its standard input and writes its result as JSON to the file that the job names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def start(module: str, job: Mapping[str, object], *, timeout_s: float) -> list[str]:
    """Run a worker; what became of it, then the last lines that it wrote."""
    # -P keeps the current folder, which may be anybody's, off the path that modules are found on.
    command = [sys.executable, "-P", "-m", module]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job),
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"did not end within {timeout_s:.0f} s"]
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        return [f"crashed ({signal.Signals(-done.returncode).name})", *lines[-5:]]
    return [f"failed with exit code {done.returncode}", *lines[-1:]]
