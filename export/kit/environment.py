"""The state of the device before, during and after a measurement; the host judges it.

The parse_* functions are pure. Sources: proc(5), the kernel's documents on cgroup-v1, cgroup-v2 and x86's
thermal_throttle counters, getrusage(2).
"""

import os
import statistics
import time

import energy
import facts
import jetson
import nvml
import reading
import sensors
import watch

PROCESSORS = "sys/devices/system/cpu"


class Observer:
    """Looks at the device before the warm-up, from the mark of the timing on, and after it."""

    def __init__(self, root="/"):
        self._root, self._gpu = root, _find_gpu(root)
        self._before = snapshot(root, self._gpu)
        self._meter = energy.Meter(root, self._gpu)
        self._watcher = watch.Watcher(root, self._gpu is not None)

    def timing_begins(self):
        """The warm-up is over."""
        self._watcher.mark()
        self._meter.begin()

    def end(self, graphs):
        """The log's `conditions` and `energy`; the energy is that of one graph, or of none."""
        self._meter.stop()
        watched = self._watcher.stop()  # at once: what follows is idle
        after = snapshot(self._root, self._gpu)
        power_w = watched["mean"].get("power_w") if watched else None
        together = "%d graphs took turns: energy is read where one runs alone" % graphs
        return {
            "conditions": conditions(self._before, after, watched),
            "energy": energy.unknown(together) if graphs > 1 else self._meter.result(power_w),
        }


def _find_gpu(root):
    """The NVIDIA GPU that this process computes on, or None."""
    if not nvml.uses_cuda(reading.read_text(root, "proc/self/maps")):
        return None
    library = nvml.open_library()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if library is None else nvml.find_gpu(library, os.getpid(), visible)


def snapshot(root="/", gpu=None):
    """The state of the device at one moment, for `conditions`."""
    usable, zone = reading.usable_processors(), sensors.find_zone(root)
    return {
        "wall_s": time.time(),
        "monotonic_s": time.monotonic(),
        "load1": parse_load(reading.read_text(root, "proc/loadavg")),
        "ticks": parse_ticks(reading.read_text(root, "proc/stat")),
        "groups": read_group_throttling(root),
        "governor": facts.read_governor(root, usable[0]),
        "zone": zone[0] if zone else "vcgencmd",
        "temperature_c": sensors.read_temperature(root, zone),
        "throttle_count": read_throttle_count(root, usable),
        "pi_bits": sensors.read_pi_bits(root),
        "switches": read_switches(),
        "jetson": jetson.is_jetson(root),
        "power_mode": facts.read_power_mode(),
        "alarms": jetson.read_alarms(root, jetson.find_rails(root)),
        "gpu_name": gpu and gpu.name(),
        "others": gpu and nvml.others(gpu.processes(), os.getpid()),
    }


def conditions(before, after, watched):
    """What two snapshots, and what the watcher saw since the mark, say of the time between them."""
    stopped = group_throttling(before["groups"], after["groups"])
    return {
        "load1": before["load1"],
        "steal_fraction": steal_fraction(before["ticks"], after["ticks"]),
        "seconds": after["monotonic_s"] - before["monotonic_s"],
        "cgroup_throttled": stopped and stopped[0],
        "cgroup_throttled_s": stopped and stopped[1],
        "governor_before": before["governor"],
        "governor_after": after["governor"],
        "temperature": _temperature(before, after, watched),
        "clock": _clock(watched, "clock_mhz"),
        "throttle_events": _rise(before["throttle_count"], after["throttle_count"]),
        "pi_bits": _pi_bits(before, after, watched),
        "jetson": _jetson(before, after, watched) if before["jetson"] else None,
        "gpu": _gpu(before, after, watched),
        "involuntary_switches": _rise(before["switches"], after["switches"]),
        "clock_jump_s": clock_jump(before, after),
        "watch_cpu_s": watched["cpu_s"] if watched else None,
        "samples": watched["rows"] if watched else [],
    }


def parse_load(loadavg):
    """The one-minute load average of /proc/loadavg."""
    words = (loadavg or "").split()
    return reading.decimal(words[0]) if words else None


def parse_ticks(stat):
    """(stolen, wanted) clock ticks of all processors since boot: an idle processor could be robbed of none.

    Guest time is part of user time.
    """
    words = (stat or "").split("\n", 1)[0].split()
    ticks = [reading.number(word) for word in words[1:9]]
    if len(ticks) < 8 or words[0] != "cpu" or None in ticks:
        return None
    idle = ticks[3] + ticks[4]
    return ticks[7], sum(ticks) - idle


def parse_cpu_stat(text):
    """(times, seconds) stopped of a control group's cpu.stat: v2 tells microseconds, v1 nanoseconds."""
    pairs = dict(line.split(None, 1) for line in (text or "").splitlines() if len(line.split()) == 2)
    times = reading.number(pairs.get("nr_throttled"))
    v2, v1 = reading.number(pairs.get("throttled_usec")), reading.number(pairs.get("throttled_time"))
    if times is None or (v2 is None and v1 is None):
        return None
    return times, v1 / 1e9 if v2 is None else v2 / 1e6


def steal_fraction(before, after):
    """Share of the time that was wanted that went to other virtual machines between two readings."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return min(1.0, max(0, after[0] - before[0]) / (after[1] - before[1]))


def read_group_throttling(root):
    """What cpu.stat of the process's control group, and of each group around it, counts, by folder."""
    found = (
        (path, parse_cpu_stat(reading.read_text(root, path + "/cpu.stat"))) for path in facts.cpu_groups(root)
    )
    return {path: counts for path, counts in found if counts is not None}


def group_throttling(before, after):
    """(times, seconds) that the quota of the group that lost most stopped the process; None for no group."""
    lost = [
        (max(0, after[path][0] - before[path][0]), max(0.0, after[path][1] - before[path][1]))
        for path in before
        if path in after
    ]
    return max(lost, key=lambda one: one[1], default=None)


def read_throttle_count(root, processors):
    """How often x86 processors slowed down for heat since boot, cores and the hottest package together."""
    folder = PROCESSORS + "/cpu%d/thermal_throttle/%s_throttle_count"
    cores, packages = (
        [reading.read_number(root, folder % (processor, part)) for processor in processors]
        for part in ("core", "package")
    )
    known = [count for count in cores if count is not None]
    hottest = [count for count in packages if count is not None]
    return sum(known) + max(hottest, default=0) if known or hottest else None


def read_switches():
    """How often another process took the processor from this one's threads."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def clock_jump(before, after):
    """Seconds that the wall clock moved more than the time that passed; a suspension is one too."""
    return after["wall_s"] - before["wall_s"] - (after["monotonic_s"] - before["monotonic_s"])


def _rise(before, after):
    return None if before is None or after is None else max(0, after - before)


def _temperature(before, after, watched):
    if before["temperature_c"] is None:
        return None
    return {
        "zone": before["zone"],
        "before_c": before["temperature_c"],
        "max_c": watched["high"].get("temperature_c") if watched else None,
        "after_c": after["temperature_c"],
    }


def _clock(watched, name):
    """Least, median and most MHz since the mark, or None."""
    if not watched or name not in watched["low"]:
        return None
    taken = [row[name] for row in watched["rows"] if row["at_s"] >= 0 and name in row]
    low, high = watched["low"][name], watched["high"][name]
    return {"min_mhz": low, "median_mhz": statistics.median(taken or [low, high]), "max_mhz": high}


def _pi_bits(before, after, watched):
    if before["pi_bits"] is None or after["pi_bits"] is None:
        return None
    during = watched["bits"].get("pi_bits") if watched else None
    return {"before": before["pi_bits"], "during": during, "after": after["pi_bits"]}


def _jetson(before, after, watched):
    seen = watched or {"low": {}, "mean": {}, "alarms": []}
    return {
        "power_mode_before": before["power_mode"],
        "power_mode_after": after["power_mode"],
        "gpu_clock": _clock(watched, "gpu_clock_mhz"),
        "gpu_cap_mhz": seen["low"].get("gpu_cap_mhz"),
        "alarms": sorted(set(seen["alarms"]) | set(after["alarms"])),
        "power_mean_w": seen["mean"].get("power_w"),
    }


def _gpu(before, after, watched):
    if before["gpu_name"] is None:
        return None
    seen = watched or {"low": {}, "high": {}, "mean": {}, "bits": {}}
    counts = [count for count in (before["others"], after["others"]) if count is not None]
    return {
        "name": before["gpu_name"],
        "event_reasons": seen["bits"].get("gpu_reasons"),
        "sm_clock": _clock(watched, "gpu_clock_mhz"),
        "temperature_max_c": seen["high"].get("gpu_temperature_c"),
        "power_mean_w": seen["mean"].get("power_w"),
        "other_processes": max(counts, default=None),
    }
