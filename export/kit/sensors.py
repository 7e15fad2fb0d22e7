"""Temperatures, processor clocks and throttle bits: what changes while a measurement runs.

A find_* function looks for files once; a read_* function is cheap to call again; the parse_* functions are
pure. Sources: the kernel's documents on thermal, hwmon, cpufreq and proc(5); `vcgencmd` as Raspberry Pi
documents it, and the file get_throttled of its kernel, which holds the same bits and costs no process.
"""

import re

import reading

ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal", "package-thermal", "tj-thermal")
"""Thermal zones that mean the processor, best first; then any with `cpu`, `soc` or `core` in its name."""
CHIPS = {"coretemp": "Package id 0", "k10temp": "Tctl", "zenpower": "Tdie", "cpu_thermal": None}
"""hwmon drivers of processors, with the label of the value that stands for all of it."""
THERMAL = "sys/class/thermal"
HWMON = "sys/class/hwmon"
PROCESSORS = "sys/devices/system/cpu"
PI_BITS = "sys/devices/platform/soc/soc:firmware/get_throttled"


def find_zone(root):
    """(name, file) of the temperature that stands for the processor, or None."""
    zones = []
    for entry in reading.entries(root, THERMAL):
        name = reading.read_line(root, "%s/%s/type" % (THERMAL, entry))
        path = "%s/%s/temp" % (THERMAL, entry)
        if entry.startswith("thermal_zone") and name and read_celsius(root, path) is not None:
            zones.append((name, path))
    rank = {name: place for place, name in enumerate(ZONES)}
    known = [zone for zone in zones if zone[0] in rank or re.search("cpu|soc|core", zone[0].lower())]
    best = min(known, key=lambda zone: rank.get(zone[0], len(rank)), default=None)
    return best or _find_chip(root) or (zones[0] if zones else None)


def _find_chip(root):
    """`coretemp Package id 0` of hwmon, where no thermal zone tells of the processor."""
    for entry in reading.entries(root, HWMON):
        folder = "%s/%s" % (HWMON, entry)
        chip = reading.read_line(root, folder + "/name")
        for file in reading.entries(root, folder) if chip in CHIPS else []:
            label = reading.read_line(root, "%s/%s" % (folder, file.replace("_input", "_label")))
            if re.match(r"temp\d+_input$", file) and CHIPS[chip] in (None, label):
                return " ".join(part for part in (chip, label) if part), "%s/%s" % (folder, file)
    return None


def read_celsius(root, path):
    """The temperature of a file in millidegrees; one that no working device has is None."""
    milli = reading.read_number(root, path)
    return milli / 1000 if milli is not None and -40_000 < milli < 200_000 else None


def parse_measure_temp(text):
    """Degrees of vcgencmd's `temp=48.3'C`."""
    key, _, value = (text or "").strip().partition("=")
    return reading.decimal(value.replace("'C", "")) if key == "temp" else None


def parse_measure_clock(text):
    """MHz of vcgencmd's `frequency(48)=1500345728`; the number in brackets differs from board to board."""
    found = re.match(r"frequency\(\d+\)=([0-9]{1,15})$", (text or "").strip())
    return int(found.group(1)) / 1e6 if found else None


def parse_throttled(text):
    """The bits of vcgencmd's `throttled=0x50000`."""
    key, _, value = (text or "").strip().partition("=")
    return reading.number(value, 16) if key == "throttled" and value.startswith("0x") else None


def parse_processor(stat):
    """The processor that a process last ran on, from its /proc/PID/stat: number 39, after the name's `)`."""
    words = (stat or "").rpartition(")")[2].split()
    return reading.number(words[36]) if len(words) > 36 else None


def parse_cpuinfo_mhz(cpuinfo, processor):
    """The clock of one processor in /proc/cpuinfo; None in a virtual machine, which shows a fixed figure."""
    if any("hypervisor" in line.split() for line in reading.values(cpuinfo, "flags")):
        return None
    pairs = zip(reading.values(cpuinfo, "processor"), reading.values(cpuinfo, "cpu MHz"))
    return next((reading.decimal(mhz) for name, mhz in pairs if name == str(processor)), None)


def read_processor_mhz(root, processor):
    """The clock that a processor runs at."""
    khz = reading.read_number(root, "%s/cpu%d/cpufreq/scaling_cur_freq" % (PROCESSORS, processor))
    if khz is None:
        return parse_cpuinfo_mhz(reading.read_text(root, "proc/cpuinfo"), processor)
    return khz / 1000 if khz > 0 else None


def read_pi_bits(root):
    """Raspberry Pi's throttle bits, from the kernel's file or the tool."""
    bits = reading.number((reading.read_text(root, PI_BITS) or "").strip(), 16)
    return parse_throttled(reading.run_tool(["vcgencmd", "get_throttled"])) if bits is None else bits


def read_temperature(root, zone):
    """Degrees of the zone that was found; without one, those of Raspberry Pi's tool."""
    if zone is not None:
        return read_celsius(root, zone[1])
    return parse_measure_temp(reading.run_tool(["vcgencmd", "measure_temp"]))
