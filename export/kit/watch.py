"""A process beside the measurement that looks at the device once a second, at the lowest priority.

The kit starts it before the warm-up, marks the moment when the timing begins, and asks for the result after
it. It ends when its standard input does, so that it never outlives the kit; where there is nothing to look
at, it is not started. An INA3221 counts no energy, so that its power is read ten times a second.
"""

import json
import os
import select
import sys
import time

import energy
import looks

PERIOD_S = 1.0
POWER_PERIOD_S = 0.1
MAX_ROWS = 700
STOP_SECONDS = 10
ROW = ("at_s", "clock_mhz", "temperature_c", "power_w", "gpu_clock_mhz", "gpu_temperature_c")


class Watcher:
    """The kit's end: the process is started at once, if there is anything to look at."""

    def __init__(self, root="/", gpu=False):
        self._process = self._start(root, gpu) if looks.Looks(root, os.getpid(), gpu).any() else None

    def _start(self, root, gpu):
        import subprocess

        # Without site-packages, which it does not need, it is up in a few milliseconds.
        command = [sys.executable, "-B", "-E", "-s", "-S", os.path.abspath(__file__)]
        try:
            return subprocess.Popen(
                [*command, json.dumps([root, os.getpid(), gpu])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return None

    def mark(self):
        """From here on it is timed."""
        if self._process is not None:
            try:
                self._process.stdin.write(b".")
                self._process.stdin.flush()
            except OSError:
                pass  # it has ended, and `stop` will find no result

    def stop(self):
        """End it; what it saw since the mark, or None."""
        if self._process is None:
            return None
        import subprocess

        try:
            said = self._process.communicate(timeout=STOP_SECONDS)[0]
            return json.loads(said.decode())
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        except (OSError, ValueError):
            pass
        return None


class Summary:
    """What was seen since the mark: extremes of all looks, and a row each, thinned where there are many."""

    def __init__(self):
        self.low, self.high, self.bits = {}, {}, {}
        self.alarms, self.rows, self.power = set(), [], energy.MeanPower()
        self._step, self._count, self._sums = 1, 0, {}

    def add(self, at_s, seen):
        """One look."""
        for name, value in seen.items():
            if name == "alarms":
                self.alarms.update(value)
            elif name in ("pi_bits", "gpu_reasons"):
                self.bits[name] = self.bits.get(name, 0) | value
            else:
                self.low[name] = min(value, self.low.get(name, value))
                self.high[name] = max(value, self.high.get(name, value))
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)
        if self._count % self._step == 0:
            self._keep(dict({name: seen[name] for name in ROW if name in seen}, at_s=round(at_s, 3)))
        self._count += 1

    def _keep(self, row):
        self.rows.append(row)
        if len(self.rows) > MAX_ROWS:
            self.rows, self._step = self.rows[::2], 2 * self._step

    def result(self):
        """As a JSON object."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        if self.power.has_any():  # read often, or too seldom to be told
            means["power_w"] = self.power.watts()
        return {
            "low": self.low,
            "high": self.high,
            "mean": means,
            "bits": self.bits,
            "alarms": sorted(self.alarms),
            "rows": self.rows,
        }


class Loop:
    """The looks over time: those before the mark give rows alone."""

    def __init__(self, looks):
        self._looks, self._before, self._since = looks, Summary(), None
        self._begun = self._marked = self._next = time.monotonic()
        self._period = PERIOD_S if looks.fast() is None else POWER_PERIOD_S

    def wait_s(self):
        """Seconds until the next tick."""
        return self._period - (time.monotonic() - self._marked) % self._period

    def mark(self):
        """From here on it is timed."""
        self._since, self._marked = Summary(), time.monotonic()
        self._next = self._marked

    def tick(self):
        """Read the power, and look around if a second has passed."""
        now, summary = time.monotonic(), self._since or self._before
        power_w = self._looks.fast()
        if power_w is not None:
            summary.power.add(now, power_w)
        if now >= self._next:
            self._next = max(self._next + PERIOD_S, now)
            seen = self._looks.look()
            summary.add(now - self._marked, seen if power_w is None else dict(seen, power_w=power_w))

    def result(self):
        """What was seen since the mark, with the rows of all the time."""
        late = self._begun - self._marked
        rows = [dict(row, at_s=round(row["at_s"] + late, 3)) for row in self._before.rows]
        result = (self._since or Summary()).result()
        return dict(result, rows=rows + result["rows"], cpu_s=time.process_time())


def main(arguments):
    """Look until standard input ends; a byte on it is the mark. Prints the result."""
    root, pid, gpu = json.loads(arguments[0])
    seen = looks.Looks(root, pid, gpu)
    try:
        return run(Loop(seen), pid)
    finally:
        seen.close()


def run(loop, parent):
    """0 after the result is printed, 1 when the parent is gone."""
    loop.tick()
    os.nice(19)  # from here on: at this priority it would not be up in time on a device that is busy
    while os.getppid() == parent:
        if select.select([0], [], [], loop.wait_s())[0]:
            if not os.read(0, 1):
                print(json.dumps(loop.result()))
                return 0
            loop.mark()
        loop.tick()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
