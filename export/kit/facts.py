"""What the device says of itself. Unreadable is None, never a guess.

The parse_* functions are pure: text in, value out. Sources: proc(5), the kernel's documents on cgroup-v1,
cgroup-v2, cpufreq and intel_pstate, and Arm's MIDR part numbers.
"""

import platform
import re
import sys

import reading
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
PROCESSORS = "sys/devices/system/cpu"
CONTAINER_MARKS = (".dockerenv", "run/.containerenv", "run/systemd/container")
CONTAINER_GROUPS = ("docker", "kubepods", "containerd", "libpod", "lxc")


def read_facts(runtime, root="/"):
    """The facts as a JSON object; `root` is where /proc, /sys and /etc are looked for."""
    cpuinfo = reading.read_text(root, "proc/cpuinfo")
    usable = reading.usable_processors()
    return {
        "machine": platform.machine(),
        "system": _system(reading.read_text(root, "etc/os-release")),
        "cpu": parse_cpu_name(cpuinfo),
        "board": _board(root),
        "isa": parse_isa(cpuinfo),
        "cores": len(usable),
        "memory_bytes": parse_memory(reading.read_text(root, "proc/meminfo")),
        "governor": read_governor(root, usable[0]),
        "cpu_max_mhz": read_cpu_max_mhz(root, usable),
        "turbo": read_turbo(root),
        "smt": {"1": True, "0": False}.get(reading.read_line(root, PROCESSORS + "/smt/active")),
        "power_mode": read_power_mode(),
        "gpus": read_gpus(),
        "hypervisor": parse_hypervisor(cpuinfo),
        "container": read_container(root),
        "cgroup_cpus": read_cgroup_cpus(root),
        "versions": dict(_versions(runtime), **_drivers(root)),
    }


def parse_cpu_name(cpuinfo):
    """x86 names its model; Arm gives implementer and part, which are looked up or told as they are."""
    parts = zip(reading.values(cpuinfo, "CPU implementer"), reading.values(cpuinfo, "CPU part"))
    names = [_arm_name(implementer, part) for implementer, part in parts]
    names = names or reading.values(cpuinfo, "model name")
    return " + ".join(sorted(set(names), key=names.index)) or None


def _arm_name(implementer, part):
    known = ARM_PARTS.get(part) if implementer == "0x41" else None
    return known or "Arm implementer %s part %s" % (implementer, part)


def parse_isa(cpuinfo):
    """Those features that matter to int8 kernels and that every processor has."""
    lines = reading.values(cpuinfo, "flags") + reading.values(cpuinfo, "Features")
    everywhere = set.intersection(*[set(line.split()) for line in lines]) if lines else set()
    return [feature for feature in ISA if feature in everywhere]


def parse_hypervisor(cpuinfo):
    """Whether the machine is virtual; only x86 says so in its flags."""
    lines = reading.values(cpuinfo, "flags")
    return any("hypervisor" in line.split() for line in lines) if lines else None


def parse_memory(meminfo):
    """Bytes of physical memory."""
    words = (reading.values(meminfo, "MemTotal") or [""])[0].split()
    kib = reading.number(words[0]) if len(words) == 2 and words[1] == "kB" else None
    return None if kib is None else kib * 1024


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
    quota_us, period_us = reading.number(quota), reading.number(period)
    return quota_us / period_us if quota_us and period_us and quota_us > 0 and period_us > 0 else None


def parse_power_mode(text):
    """The mode's name in the output of `nvpmodel -q`: `NV Power Mode: 25W`, then its number."""
    return (reading.values(text, "NV Power Mode") or [None])[0]


def parse_driver(text):
    """The version in /proc/driver/nvidia/version, which names the module and its version in one line."""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text or "")
    return found.group(1) if found else None


def parse_l4t(text):
    """`36.4.3` from the line `# R36 (release), REVISION: 4.3, GCID: ...` of a Jetson's nv_tegra_release."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text or "")
    return ".".join(found.groups()) if found else None


def read_governor(root, processor):
    """The processor's frequency governor."""
    return reading.read_line(root, "%s/cpu%d/cpufreq/scaling_governor" % (PROCESSORS, processor))


def read_cpu_max_mhz(root, processors):
    """Highest clock that the fastest of some processors may run at: a power mode caps the hardware's."""
    paths = ["%s/cpu%d/cpufreq/scaling_max_freq" % (PROCESSORS, processor) for processor in processors]
    khz = [reading.read_number(root, path) for path in paths]
    return max((value / 1000 for value in khz if value and value > 0), default=None)


def read_turbo(root):
    """Whether clocks above the nominal one are allowed: Intel's driver tells the opposite."""
    barred = reading.read_line(root, PROCESSORS + "/intel_pstate/no_turbo")
    allowed = reading.read_line(root, PROCESSORS + "/cpufreq/boost")
    return {"0": True, "1": False}.get(barred, {"1": True, "0": False}.get(allowed))


def read_power_mode():
    """Power mode of a Jetson."""
    return parse_power_mode(reading.run_tool(["nvpmodel", "-q"]))


def read_container(root):
    """True where something marks a container, False where the first process is an init; else unknown."""
    if any(reading.read_text(root, mark) is not None for mark in CONTAINER_MARKS):
        return True
    if any(name in (reading.read_text(root, "proc/self/cgroup") or "") for name in CONTAINER_GROUPS):
        return True
    return False if reading.read_line(root, "proc/1/comm") in ("systemd", "init") else None


def read_gpus():
    """NVIDIA GPUs; older drivers do not know the field compute_cap and are asked for the name alone."""
    query = ["nvidia-smi", "--format=csv,noheader"]
    table = reading.run_tool([*query, "--query-gpu=name,compute_cap"])
    return parse_gpus(reading.run_tool([*query, "--query-gpu=name"]) if table is None else table)


def read_cgroup_cpus(root):
    """Smallest quota of the process's control group and the groups around it."""
    quotas = []
    for folder in cpu_groups(root):
        quotas.append(parse_cpu_max(reading.read_text(root, folder + "/cpu.max")))
        limits = [
            reading.read_text(root, "%s/cpu.cfs_%s_us" % (folder, name)) for name in ("quota", "period")
        ]
        quotas.append(parse_cfs(*limits))
    return min((quota for quota in quotas if quota is not None), default=None)


def cpu_groups(root):
    """Folders of the process's control group for processor time and of the groups around it, v1 or v2."""
    for line in (reading.read_text(root, "proc/self/cgroup") or "").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = [name for name in path.split("/") if name and name != ".."]
        for count in range(len(names), -1, -1):
            yield "/".join(["sys/fs/cgroup", controllers, *names[:count]])


def _system(os_release):
    kernel = "%s %s" % (platform.system(), platform.release())
    for line in (os_release or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return "%s, %s" % (line.partition("=")[2].strip().strip("\"'"), kernel)
    return kernel


def _board(root):
    paths = ("proc/device-tree/model", "sys/firmware/devicetree/base/model")
    return next((found for found in (reading.read_line(root, path) for path in paths) if found), None)


def _drivers(root):
    """Versions of NVIDIA's driver and of a Jetson's Linux, where there are any."""
    found = {
        "nvidia-driver": parse_driver(reading.read_text(root, "proc/driver/nvidia/version")),
        "l4t": parse_l4t(reading.read_text(root, "etc/nv_tegra_release")),
    }
    return {name: version for name, version in found.items() if version}


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
