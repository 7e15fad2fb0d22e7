"""A Jetson's tegrastats, for boards whose rails the kernel shows nobody: one line a second.

Lines differ from release to release: `VDD_IN 5251mW/8535mW` or `POM_5V_IN 3410/3410` (now, then the mean
since its start), `GR3D_FREQ 99%@[612]` or `99%@921` or no clock at all, `cpu@57.125C` or `CPU@43C`.
"""

import os
import re

import reading

POWER = re.compile(r"\b(?:VDD_IN|POM_5V_IN) ([0-9]{1,9})(?:mW)?/")
GPU_CLOCK = re.compile(r"\bGR3D_FREQ [0-9]{1,3}%@\[?([0-9]{1,6})")
TEMPERATURE = re.compile(r"\b(?:cpu|CPU)@(-?[0-9]{1,3}(?:\.[0-9]{1,6})?)C")


def parse_line(line):
    """What a line says, by the names of the watcher."""
    found = {}
    for name, pattern, unit in (
        ("power_w", POWER, 1000),
        ("gpu_clock_mhz", GPU_CLOCK, 1),
        ("temperature_c", TEMPERATURE, 1),
    ):
        match = pattern.search(line or "")
        if match:
            found[name] = float(match.group(1)) / unit
    return found


def is_there():
    """Whether the tool is installed."""
    return reading.has_tool("tegrastats")


class Tegrastats:
    """The running tool; it ends at its next line after this process has ended, for lack of a reader."""

    def __init__(self):
        import subprocess

        command = ["nice", "-n", "19", "tegrastats", "--interval", "1000"]
        nowhere = subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(command, stdin=nowhere, stdout=subprocess.PIPE, stderr=nowhere)
        except OSError:
            self._process = None
            return
        os.set_blocking(self._process.stdout.fileno(), False)
        self._text = ""

    def look(self):
        """What its last whole line says; {} until there is one."""
        if self._process is None:
            return {}
        data = self._process.stdout.read() or b""
        self._text = (self._text + data.decode(errors="replace"))[-4096:]
        lines = self._text.split("\n")[:-1]
        return parse_line(lines[-1]) if lines else {}

    def stop(self):
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
