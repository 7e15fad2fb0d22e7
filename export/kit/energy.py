"""Energy between two moments, from what counts or measures it: INA3221 rails, the GPU's counter, RAPL.

The first that is there is taken, as they do not cover the same: the rails are the whole module, NVML the GPU
alone, RAPL the processor packages alone. What cannot be read is None with the reason in words, never 0.
Sources: the kernel's documents on powercap; since Linux 5.10 root alone may read RAPL (CVE-2020-8694).
"""

import os
import re
import time

import jetson
import reading

POWERCAP = "sys/class/powercap"
LEAST_READINGS = 5


def find_packages(root):
    """(name, folder) of each processor package: not its parts, not the platform, not the second interface."""
    found = []
    for entry in reading.entries(root, POWERCAP):
        folder = "%s/%s" % (POWERCAP, entry)
        name = reading.read_line(root, folder + "/name") or ""
        if re.match(r"intel-rapl:\d+$", entry) and name.startswith("package"):
            found.append((name, folder))
    return found


def read_packages(root, packages):
    """(counter, where it starts anew) in microjoules of each package, or None where one cannot be read."""
    found = []
    for _, folder in packages:
        counter = reading.read_number(root, folder + "/energy_uj")
        span = reading.read_number(root, folder + "/max_energy_range_uj")
        if counter is None or span is None or not 0 <= counter <= span or span == 0:
            return None
        found.append((counter, span))
    return found or None


def counted(before, after, about=0.0):
    """Joules between two readings of the packages, when it was `about` so many.

    A counter starts anew at its end, on a large server every few minutes; `about` tells how often the
    packages of a machine, whose counters end at the same figure, did so beyond the once that can be seen.
    """
    total = sum((late - early) % span for (early, span), (late, _) in zip(before, after))
    span = before[0][1]
    return (total + span * max(0, round((about * 1e6 - total) / span))) / 1e6


class MeanPower:
    """Mean watts over time, each interval by the mean of the readings at its ends."""

    def __init__(self):
        self._joules, self._count, self._first, self._last = 0.0, 0, None, None

    def add(self, at_s, watts):
        """One reading; the moments rise."""
        if self._last is not None:
            self._joules += (at_s - self._last[0]) * (watts + self._last[1]) / 2
        self._first = at_s if self._first is None else self._first
        self._last = (at_s, watts)
        self._count += 1

    def has_any(self):
        """Whether there was a reading at all."""
        return self._count > 0

    def watts(self):
        """The mean, or None for too few readings."""
        if self._count < LEAST_READINGS or self._last[0] <= self._first:
            return None
        return self._joules / (self._last[0] - self._first)


class Meter:
    """Energy from `begin` to `stop`, from the best source of the device."""

    def __init__(self, root, gpu):
        self._root, self._gpu = root, gpu
        self._rails = jetson.total_rails(jetson.find_rails(root))
        self._packages = find_packages(root)
        self._begun = self._ended = (0.0, None)

    def begin(self):
        """Note the counter and the time."""
        self._begun = (time.monotonic(), self._read())

    def stop(self):
        """Note them again."""
        self._ended = (time.monotonic(), self._read())

    def result(self, power_w):
        """The log's `energy`; `power_w` is the mean that the watcher took meanwhile, or None."""
        seconds = self._ended[0] - self._begun[0]
        first, last = self._begun[1], self._ended[1]
        if self._rails:
            return self._of_rails(power_w, seconds)
        if first is None or last is None:
            return unknown(self._why_not())
        if self._gpu is not None:
            return _known(last - first, seconds, "NVML, the GPU alone")
        joules = counted(first, last, 0.0 if power_w is None else power_w * seconds)
        return _known(joules, seconds, "RAPL " + " + ".join(name for name, _ in self._packages))

    def _read(self):
        if self._rails:
            return None
        if self._gpu is not None:
            return self._gpu.energy_j()
        return read_packages(self._root, self._packages)

    def _of_rails(self, power_w, seconds):
        if power_w is None:
            return unknown("the INA3221 was read too rarely in %.1f s" % seconds)
        return _known(power_w * seconds, seconds, "INA3221 " + " + ".join(rail[0] for rail in self._rails))

    def _why_not(self):
        if self._gpu is not None:
            return "NVML counts no energy on this GPU"
        if not self._packages:
            return "no energy counter"
        file = "/%s/energy_uj" % self._packages[0][1]
        if os.access(os.path.join(self._root, file[1:]), os.R_OK):
            return "RAPL gives no figure"
        return "RAPL is readable by root alone: sudo chmod a+r %s" % file


def _known(joules, seconds, source):
    if joules <= 0:
        return unknown("%s did not move in %.1f s" % (source.partition(",")[0], seconds))
    return {"joules": joules, "seconds": seconds, "source": source}


def unknown(reason):
    """The log's `energy` where there is no figure."""
    return {"joules": None, "reason": reason}
