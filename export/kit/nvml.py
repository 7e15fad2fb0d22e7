"""NVIDIA's management library by ctypes: what a GPU's driver knows that the runtime does not say.

No package is needed; where the library, the GPU or a function is missing, the answer is None. Source: NVML's
reference, whose names and numbers these are. It creates no context on the GPU.
"""

import ctypes
import os

SUCCESS = 0
TOO_SMALL = 7
SM_CLOCK = 1
CORE_TEMPERATURE = 0
NOT_AVAILABLE = 2**64 - 1
PROCESSES = 64


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t of the functions ..._v2 and ..._v3."""

    _fields_ = [
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


def uses_cuda(maps):
    """Whether a process has CUDA's driver loaded, from its /proc/PID/maps."""
    return any(os.path.basename(line).startswith("libcuda.so") for line in (maps or "").splitlines())


def open_library():
    """The library, ready for use, or None."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        return library if library.nvmlInit_v2() == SUCCESS else None
    except (OSError, AttributeError):
        return None


def find_gpu(library, pid, visible):
    """The GPU that a process computes on: the one that lists it, else the first of CUDA_VISIBLE_DEVICES.

    In a container the library knows processes by the host's numbers, so that none may list it.
    """
    gpus = [Gpu(library, handle) for handle in _handles(library)]
    for gpu in gpus:
        if any(process == pid for process, _ in gpu.processes() or ()):
            return gpu
    first = (visible or "0").split(",")[0].strip()
    if first.startswith("GPU-"):
        handle = ctypes.c_void_p()
        asked = _call(library, "nvmlDeviceGetHandleByUUID", first.encode(), ctypes.byref(handle))
        return Gpu(library, handle) if asked else None
    return gpus[int(first)] if first.isdecimal() and int(first) < len(gpus) else None


def _handles(library):
    count = ctypes.c_uint()
    if not _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count)):
        return
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if _call(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)):
            yield handle


def _call(library, name, *arguments):
    """Whether a function is there and succeeded."""
    function = getattr(library, name, None)
    return function is not None and function(*arguments) == SUCCESS


class Gpu:
    """One GPU; each method is None where the driver or the GPU cannot tell."""

    def __init__(self, library, handle):
        self._library, self._handle = library, handle

    def name(self):
        """Its name, such as `NVIDIA L4`."""
        text = ctypes.create_string_buffer(96)
        asked = _call(self._library, "nvmlDeviceGetName", self._handle, text, ctypes.c_uint(len(text)))
        return text.value.decode(errors="replace") if asked else None

    def event_reasons(self):
        """Bits that say why the clocks are where they are; older drivers call them throttle reasons."""
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        found = (self._ask(name, ctypes.c_ulonglong) for name in names)
        return next((bits for bits in found if bits is not None), None)

    def sm_clock_mhz(self):
        """Clock of its multiprocessors."""
        return self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint, ctypes.c_uint(SM_CLOCK))

    def temperature_c(self):
        """Temperature of its core."""
        return self._ask("nvmlDeviceGetTemperature", ctypes.c_uint, ctypes.c_uint(CORE_TEMPERATURE))

    def power_w(self):
        """What it draws."""
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        return None if milliwatts is None else milliwatts / 1000

    def energy_j(self):
        """What it has drawn since the driver was loaded; GPUs before Volta do not count it."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if millijoules is None else millijoules / 1000

    def processes(self):
        """(process, bytes or None) of each process that computes on it."""
        for name in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
            function = getattr(self._library, name, None)
            found = None if function is None else self._processes(function)
            if found is not None:
                return found
        return None

    def _processes(self, function):
        count = ctypes.c_uint(PROCESSES)
        for _ in range(3):  # more may come in between two calls
            table = (_Process * count.value)()
            answer = function(self._handle, ctypes.byref(count), table)
            if answer == SUCCESS:
                return [
                    (one.pid, None if one.used == NOT_AVAILABLE else one.used) for one in table[: count.value]
                ]
            if answer != TOO_SMALL:
                return None
            count.value += 16
        return None

    def _ask(self, name, kind, *arguments):
        value = kind()
        asked = _call(self._library, name, self._handle, *arguments, ctypes.byref(value))
        return value.value if asked else None


def others(processes, pid):
    """How many other processes compute on the GPU of a process that uses it; None where that is not told."""
    if not processes:
        return None
    return sum(process != pid for process, _ in processes) if _lists(processes, pid) else len(processes) - 1


def own_bytes(library, pid):
    """GPU memory that a process holds, on all GPUs together; None where it is not told."""
    held = [
        taken
        for handle in _handles(library)
        for process, taken in Gpu(library, handle).processes() or ()
        if process == pid
    ]
    return sum(held) if held and None not in held else None


def _lists(processes, pid):
    return any(process == pid for process, _ in processes)
