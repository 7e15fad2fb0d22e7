"""NVIDIA's library, played by an object with its functions: no GPU is needed."""

import ctypes
from typing import ClassVar

import pytest


class Library:
    """Two GPUs; functions that it does not have are those of a driver that is too old."""

    values: ClassVar[dict] = {
        "nvmlDeviceGetCurrentClocksEventReasons": 0x24,
        "nvmlDeviceGetPowerUsage": 71_480,
        "nvmlDeviceGetTotalEnergyConsumption": 5_000_250,
    }

    def __init__(self, processes=((), ()), **changes):
        self._processes = processes
        self._values = {**self.values, **changes}

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        handle._obj.value = 100 + index.value
        return 0

    def nvmlDeviceGetHandleByUUID(self, name, handle):
        handle._obj.value = 101
        return 0 if name == b"GPU-1234" else 6

    def nvmlDeviceGetName(self, handle, text, size):
        text.value = b"NVIDIA L4"
        return 0

    def nvmlDeviceGetClockInfo(self, handle, kind, value):
        value._obj.value = {1: 2040}[kind.value]
        return 0

    def nvmlDeviceGetTemperature(self, handle, sensor, value):
        value._obj.value = {0: 63}[sensor.value]
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle, count, table):
        processes = self._processes[handle.value - 100]
        room, count._obj.value = count._obj.value, len(processes)
        if len(processes) > room:
            return 7
        for place, (pid, used) in enumerate(processes):
            table[place].pid, table[place].used = pid, used
        return 0

    def __getattr__(self, name):
        if name not in self._values:
            raise AttributeError(name)

        def ask(handle, value):
            if self._values[name] is None:
                return 3  # not supported
            value._obj.value = self._values[name]
            return 0

        return ask


def first(nvml, library):
    return nvml.Gpu(library, ctypes.c_void_p(100))


def test_what_a_gpu_says(nvml):
    gpu = first(nvml, Library())
    assert gpu.name() == "NVIDIA L4"
    assert gpu.event_reasons() == 0x24
    assert (gpu.sm_clock_mhz(), gpu.temperature_c()) == (2040, 63)
    assert (gpu.power_w(), gpu.energy_j()) == (71.48, 5000.25)


def test_what_a_gpu_does_not_say_is_none(nvml):
    gpu = first(nvml, Library(nvmlDeviceGetTotalEnergyConsumption=None, nvmlDeviceGetPowerUsage=None))
    assert (gpu.energy_j(), gpu.power_w()) == (None, None)
    gpu = first(nvml, object())
    assert (gpu.name(), gpu.event_reasons(), gpu.temperature_c(), gpu.processes()) == (None,) * 4


def test_an_older_driver_calls_them_throttle_reasons(nvml):
    class Older(Library):
        values: ClassVar[dict] = {"nvmlDeviceGetCurrentClocksThrottleReasons": 0x8}

    assert first(nvml, Older()).event_reasons() == 0x8


def test_processes(nvml):
    unknown = 2**64 - 1
    many = tuple((pid, pid * 1000) for pid in range(1, 100))  # more than the first table holds
    assert first(nvml, Library((many, ()))).processes() == list(many)
    assert first(nvml, Library((((7, unknown),), ()))).processes() == [(7, None)]


def test_a_driver_without_the_third_version(nvml):
    class Older(Library):
        nvmlDeviceGetComputeRunningProcesses_v2 = Library.nvmlDeviceGetComputeRunningProcesses_v3
        nvmlDeviceGetComputeRunningProcesses_v3 = None

    assert first(nvml, Older((((7, 9),), ()))).processes() == [(7, 9)]


@pytest.mark.parametrize(
    ("processes", "visible", "handle"),
    [
        (((), ((42, 1),)), "0", 101),  # the GPU that lists the process, whatever is visible
        (((), ()), None, 100),
        (((), ()), "1,0", 101),
        (((), ()), "GPU-1234", 101),
        (((), ()), "GPU-none", None),
        (((), ()), "MIG-1234", None),
        (((), ()), "5", None),
    ],
)
def test_the_gpu_of_the_process(nvml, processes, visible, handle):
    gpu = nvml.find_gpu(Library(processes), 42, visible)
    assert (None if gpu is None else gpu._handle.value) == handle


@pytest.mark.parametrize(
    ("processes", "count"),
    [
        ([(42, 1)], 0),
        ([(42, 1), (43, 1)], 1),
        ([(4242, 1), (43, 1)], 1),  # in a container, one of the foreign numbers is this process
        ([(4242, 1)], 0),
        ([], None),  # the process computes on it and yet is not told
        (None, None),
    ],
)
def test_others_on_the_gpu(nvml, processes, count):
    assert nvml.others(processes, 42) == count


def test_own_memory_on_all_gpus(nvml):
    assert nvml.own_bytes(Library((((42, 10), (7, 99)), ((42, 5),))), 42) == 15
    assert nvml.own_bytes(Library((((42, 2**64 - 1),), ())), 42) is None
    assert nvml.own_bytes(Library((((7, 99),), ())), 42) is None


def test_the_library_is_missing_or_refuses(nvml, monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvml.open_library() is None
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert nvml.open_library() is library
    library.nvmlInit_v2 = lambda: 9  # the driver is not loaded
    assert nvml.open_library() is None


def test_cuda_is_seen_in_the_map_of_the_process(nvml):
    line = "7f2a-7f2b r-xp 0000 fe:00 123    /usr/lib/x86_64-linux-gnu/{}\n"
    assert nvml.uses_cuda(line.format("libm.so.6") + line.format("libcuda.so.550.54.15"))
    assert not nvml.uses_cuda(line.format("libcudart.so.12"))  # the runtime alone computes nothing
    assert not nvml.uses_cuda(None)
