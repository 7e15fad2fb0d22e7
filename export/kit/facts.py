"""What the device says of itself, and its state around a measurement. Unreadable is None, never a guess.

The parse_* functions are pure: text in, value out. Sources: proc(5), the kernel's documents on cgroup-v1,
cgroup-v2 and cpufreq, `vcgencmd get_throttled` as Raspberry Pi documents it, and Arm's MIDR part numbers.
"""

import os
import platform
import shutil
import subprocess
import sys

import runtimes

ISA = (
    *("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx_vnni_int8"),
    *("avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "asimdhp", "sve", "bf16"),
)
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
TOOL_SECONDS = 10


def read_facts(runtime, root="/"):
    """The facts as a JSON object; `root` is where /proc, /sys and /etc are looked for."""
    cpuinfo = _read(root, "proc/cpuinfo")
    usable = _usable_processors()
    return {
        "machine": platform.machine(),
        "system": _system(_read(root, "etc/os-release")),
        "cpu": parse_cpu_name(cpuinfo),
        "board": _board(root),
        "isa": parse_isa(cpuinfo),
        "cores": len(usable),
        "memory_bytes": parse_memory(_read(root, "proc/meminfo")),
        "governor": _governor(root, usable[0]),
        "gpus": read_gpus(),
        "hypervisor": parse_hypervisor(cpuinfo),
        "cgroup_cpus": read_cgroup_cpus(root),
        "versions": _versions(runtime),
    }


def snapshot(root="/"):
    """The state of the device at one moment, for `conditions`."""
    load = _read(root, "proc/loadavg")
    return {
        "load1": float(load.split()[0]) if load else None,
        "ticks": parse_ticks(_read(root, "proc/stat")),
        "throttled": parse_throttled(run_tool(["vcgencmd", "get_throttled"])),
    }


def conditions(before, after):
    """What two snapshots say of the time between them."""
    return {
        "load1": before["load1"],
        "steal_fraction": steal_fraction(before["ticks"], after["ticks"]),
        "throttled": was_throttled(before["throttled"], after["throttled"]),
    }


def parse_cpu_name(cpuinfo):
    """x86 names its model; Arm gives implementer and part, which are looked up or told as they are."""
    if cpuinfo is None:
        return None
    parts = zip(_values(cpuinfo, "CPU implementer"), _values(cpuinfo, "CPU part"))
    names = [_arm_name(implementer, part) for implementer, part in parts] or _values(cpuinfo, "model name")
    return " + ".join(sorted(set(names), key=names.index)) or None


def _arm_name(implementer, part):
    known = ARM_PARTS.get(part) if implementer == "0x41" else None
    return known or "Arm implementer %s part %s" % (implementer, part)


def parse_isa(cpuinfo):
    """Those features that matter to int8 kernels and that every processor has."""
    lines = _values(cpuinfo or "", "flags") + _values(cpuinfo or "", "Features")
    everywhere = set.intersection(*[set(line.split()) for line in lines]) if lines else set()
    return [feature for feature in ISA if feature in everywhere]


def parse_hypervisor(cpuinfo):
    """Whether the machine is virtual; only x86 says so in its flags."""
    lines = _values(cpuinfo or "", "flags")
    return any("hypervisor" in line.split() for line in lines) if lines else None


def parse_memory(meminfo):
    """Bytes of physical memory."""
    found = _values(meminfo or "", "MemTotal")
    words = found[0].split() if found else []
    return int(words[0]) * 1024 if len(words) == 2 and words[0].isdigit() and words[1] == "kB" else None


def parse_gpus(table):
    """`name, compute capability` lines of nvidia-smi as `NVIDIA L4 (8.9)`, or the name alone."""
    gpus = []
    for line in (table or "").splitlines():
        name, _, capability = (part.strip() for part in line.partition(","))
        if name and not name.startswith("No devices"):
            gpus.append("%s (%s)" % (name, capability) if capability.replace(".", "").isdigit() else name)
    return gpus


def parse_cpu_max(text):
    """Processors that a v2 group's cpu.max (`QUOTA PERIOD` or `max PERIOD`) allows."""
    words = (text or "").split()
    return parse_cfs(*words) if len(words) == 2 else None


def parse_cfs(quota, period):
    """Processors that a quota and a period in microseconds allow; None for no quota."""
    quota, period = (quota or "").strip(), (period or "").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def parse_ticks(stat):
    """(stolen, all) clock ticks of all processors since boot; guest time is part of user time."""
    words = (stat or "").split("\n", 1)[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    ticks = [int(word) for word in words[1:9]]
    return ticks[7], sum(ticks)


def parse_throttled(text):
    """The bits of vcgencmd's `throttled=0x50000`."""
    key, _, value = (text or "").strip().partition("=")
    return int(value, 16) if key == "throttled" and value.startswith("0x") else None


def steal_fraction(before, after):
    """Share of processor time that went to other virtual machines between two readings."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return max(0, after[0] - before[0]) / (after[1] - before[1])


def was_throttled(before, after):
    """Bits 0-3 mean now; bits 16-19 stay set since boot, so that only newly set ones count."""
    if before is None or after is None:
        return None
    return bool((before | after) & 0xF or after & ~before & 0xF0000)


def read_gpus():
    """NVIDIA GPUs; older drivers do not know the field compute_cap and are asked for the name alone."""
    query = ["nvidia-smi", "--format=csv,noheader"]
    table = run_tool([*query, "--query-gpu=name,compute_cap"])
    return parse_gpus(run_tool([*query, "--query-gpu=name"]) if table is None else table)


def read_cgroup_cpus(root):
    """Smallest quota of the process's control group and the groups around it."""
    quotas = []
    for line in (_read(root, "proc/self/cgroup") or "").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        for group in _and_around(path):
            folder = "/".join(["sys/fs/cgroup", controllers, group])
            quotas.append(parse_cpu_max(_read(root, folder + "/cpu.max")))
            limits = [_read(root, "%s/cpu.cfs_%s_us" % (folder, name)) for name in ("quota", "period")]
            quotas.append(parse_cfs(*limits))
    return min((quota for quota in quotas if quota is not None), default=None)


def _and_around(path):
    names = [name for name in path.split("/") if name and name != ".."]
    return ["/".join(names[:count]) for count in range(len(names), -1, -1)]


def run_tool(command):
    """Standard output of a program, or None when it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TOOL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _read(root, path):
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return None


def _values(text, key):
    """Values of the `key : value` lines of a text."""
    pairs = (line.partition(":") for line in text.splitlines())
    return [value.strip() for found, _, value in pairs if found.strip() == key and value.strip()]


def _usable_processors():
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _system(os_release):
    kernel = "%s %s" % (platform.system(), platform.release())
    for line in (os_release or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return "%s, %s" % (line.partition("=")[2].strip().strip("\"'"), kernel)
    return kernel


def _board(root):
    model = _read(root, "proc/device-tree/model") or _read(root, "sys/firmware/devicetree/base/model")
    return (model or "").strip("\0 \n") or None


def _governor(root, processor):
    path = "sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor" % processor
    return (_read(root, path) or "").strip() or None


def _versions(runtime):
    """python, numpy and the runtime, without importing them; what is not installed is left out."""
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for name, distributions in (("numpy", ("numpy",)), (runtime, _distributions(runtime))):
        found = getattr(sys.modules.get(name), "__version__", None)
        for distribution in distributions:
            try:
                found = found or metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
        if found:
            versions[name] = found
    return versions


def _distributions(runtime):
    return runtimes.by_name(runtimes.DISTRIBUTIONS, runtime) or ()
