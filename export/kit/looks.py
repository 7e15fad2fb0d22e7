"""What there is to look at on a device, and one look at it: what can be read, by the names of the log."""

import os
import time

import energy
import jetson
import reading
import sensors
import tegrastats

SLOW_LOOKS = 5  # tools, which cost a process each, are asked at every fifth look


class Looks:
    """What there is to look at."""

    def __init__(self, root, pid, gpu):
        self._root, self._pid, self._number, self._last = root, pid, 0, None
        self._zone = sensors.find_zone(root)
        self._pi = sensors.read_pi_bits(root) is not None
        self._tool = self._pi and reading.has_tool("vcgencmd")
        self._clock = self._tool or self._processor_mhz() is not None
        self._devfreq = jetson.find_gpu(root)
        self._rails = jetson.find_rails(root)
        self._total = jetson.total_rails(self._rails)
        self._told = not self._rails and jetson.is_jetson(root) and tegrastats.is_there()
        self._teller = None
        self._packages = energy.find_packages(root)
        self._packages = self._packages if energy.read_packages(root, self._packages) else []
        self._gpu = _open_gpu(pid) if gpu else None

    def any(self):
        """Whether there is anything."""
        parts = (self._zone, self._pi, self._clock, self._devfreq, self._rails, self._told)
        return any(parts) or bool(self._packages or self._gpu)

    def fast(self):
        """Watts of an INA3221, which are read more often, or None."""
        return jetson.read_power(self._root, self._total) if self._total else None

    def look(self):
        """What can be read now, by name."""
        slow = self._number % SLOW_LOOKS == 0
        self._number += 1
        seen = dict(self._tell(), clock_mhz=self._clock_mhz(slow))
        if self._zone is not None or (self._tool and slow):
            seen["temperature_c"] = sensors.read_temperature(self._root, self._zone)
        if self._pi and slow:
            seen["pi_bits"] = sensors.read_pi_bits(self._root)
        if self._devfreq is not None:
            seen["gpu_clock_mhz"], seen["gpu_cap_mhz"] = jetson.read_gpu_mhz(self._root, self._devfreq)
        if self._rails:
            seen["alarms"] = jetson.read_alarms(self._root, self._rails)
        if self._packages:
            seen["power_w"] = self._package_power()
        if self._gpu is not None:
            seen.update(_of_gpu(self._gpu))
        return {name: value for name, value in seen.items() if value is not None}

    def close(self):
        """End what it started."""
        if self._teller is not None:
            self._teller.stop()

    def _tell(self):
        if self._told and self._teller is None:
            self._teller = tegrastats.Tegrastats()
        return self._teller.look() if self._teller else {}

    def _clock_mhz(self, slow):
        if self._tool:  # what cpufreq tells there is what it asked for, not what the firmware gave
            text = reading.run_tool(["vcgencmd", "measure_clock", "arm"]) if slow else None
            return sensors.parse_measure_clock(text)
        return self._processor_mhz() if self._clock else None

    def _processor_mhz(self):
        """Clock of the processor that the kit's main thread last ran on."""
        stat = reading.read_text(self._root, "proc/%d/stat" % self._pid)
        processor = sensors.parse_processor(stat)
        return None if processor is None else sensors.read_processor_mhz(self._root, processor)

    def _package_power(self):
        now, counters = time.monotonic(), energy.read_packages(self._root, self._packages)
        last, self._last = self._last, (now, counters)
        if last is None or last[1] is None or counters is None or now <= last[0]:
            return None
        return energy.counted(last[1], counters) / (now - last[0])


def _open_gpu(pid):
    import nvml

    library = nvml.open_library()
    return None if library is None else nvml.find_gpu(library, pid, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _of_gpu(gpu):
    """What the driver tells; on a Jetson that is little, and must not hide what the kernel told."""
    seen = {
        "gpu_reasons": gpu.event_reasons(),
        "gpu_clock_mhz": gpu.sm_clock_mhz(),
        "gpu_temperature_c": gpu.temperature_c(),
        "power_w": gpu.power_w(),
    }
    return {name: value for name, value in seen.items() if value is not None}
