"""Memory of this process: what it holds before a graph is loaded, the most since then, and on the GPU.

Sources: proc(5) on VmHWM, VmRSS and clear_refs (5 starts VmHWM anew); getrusage(2), whose ru_maxrss is in
KiB on Linux and in bytes on macOS.
"""

import os
import sys

import reading


def begin(root="/"):
    """Start the high-water mark anew where that is allowed; resident bytes now."""
    try:
        with open(os.path.join(root, "proc/self/clear_refs"), "w") as file:
            file.write("5")
    except OSError:
        pass  # then the mark is of the whole process, which is no smaller
    return parse_resident(reading.read_text(root, "proc/self/status"), "VmRSS") or _most_resident()


def end(start, root="/"):
    """The log's `memory`."""
    peak = parse_resident(reading.read_text(root, "proc/self/status"), "VmHWM") or _most_resident()
    return {"peak_rss_bytes": peak, "start_rss_bytes": start, "device_bytes": _device_bytes(root)}


def parse_resident(status, key):
    """Bytes of a `VmHWM:  12345 kB` line of /proc/PID/status."""
    words = (reading.values(status, key) or [""])[0].split()
    kib = reading.number(words[0]) if len(words) == 2 and words[1] == "kB" else None
    return kib * 1024 if kib and kib > 0 else None


def of_rusage(ru_maxrss, system):
    """Bytes of getrusage's figure on a system, as sys.platform names it."""
    return ru_maxrss if system == "darwin" else ru_maxrss * 1024


def _most_resident():
    try:
        import resource
    except ImportError:  # Windows
        return None
    return of_rusage(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.platform)


def _device_bytes(root):
    import nvml

    library = nvml.open_library() if nvml.uses_cuda(reading.read_text(root, "proc/self/maps")) else None
    return None if library is None else nvml.own_bytes(library, os.getpid())
