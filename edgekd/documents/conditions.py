"""The state of a device before, during and after a measurement, as the kit read it; it judges nothing."""

from __future__ import annotations

from edgekd.documents.base import Section


class Clock(Section):
    """Clocks that were seen once a second while it was timed."""

    min_mhz: float
    """The least."""
    median_mhz: float
    """The middle one."""
    max_mhz: float
    """The most."""


class Temperature(Section):
    """The temperature that stands for the processor."""

    zone: str
    """Name of the sensor, such as `x86_pkg_temp`."""
    before_c: float
    """Before the warm-up."""
    max_c: float | None = None
    """The most while it was timed."""
    after_c: float | None = None
    """After the timing."""


class PiBits(Section):
    """Raspberry Pi's throttle bits: 0-3 are of the moment, 16-19 stay set since boot."""

    before: int
    """Before the warm-up."""
    during: int | None = None
    """All that were set at some moment while it was timed."""
    after: int
    """After the timing."""


class JetsonConditions(Section):
    """What a Jetson says of its power."""

    power_mode_before: str | None = None
    """Name of the power mode before the warm-up."""
    power_mode_after: str | None = None
    """Name of the power mode after the timing."""
    gpu_clock: Clock | None = None
    """Clock of the GPU."""
    gpu_cap_mhz: float | None = None
    """Highest clock that was allowed to the GPU; where that changed, the least."""
    alarms: tuple[str, ...] = ()
    """Limits of current that were exceeded, such as `VDD_IN max`."""
    power_mean_w: float | None = None
    """Mean power of the module while it was timed."""


class GpuConditions(Section):
    """What NVIDIA's driver says of the GPU that the process computes on."""

    name: str
    """Its name."""
    event_reasons: int | None = None
    """Bits that say what held the clocks; all that were set at some moment while it was timed."""
    sm_clock: Clock | None = None
    """Clock of its multiprocessors."""
    temperature_max_c: float | None = None
    """The most while it was timed."""
    power_mean_w: float | None = None
    """Mean power while it was timed."""
    other_processes: int | None = None
    """Other processes that computed on it before or after."""


class Sample(Section):
    """One look at the device; what could not be read is null."""

    at_s: float
    """Seconds since the timing began; negative in the warm-up."""
    clock_mhz: float | None = None
    """Clock of the processor that the process last ran on."""
    temperature_c: float | None = None
    """Temperature of the processor."""
    power_w: float | None = None
    """Power of the module, the GPU or the processor packages: the first that can be read."""
    gpu_clock_mhz: float | None = None
    """Clock of the GPU."""
    gpu_temperature_c: float | None = None
    """Temperature of an NVIDIA GPU."""


class Conditions(Section):
    """The state of the device around a measurement; null where it could not be read."""

    load1: float | None
    """One-minute load average before."""
    steal_fraction: float | None
    """Share of the processor time that was wanted that the hypervisor gave to others."""
    throttled: bool | None = None
    """What older kits wrote in place of the bits: whether the device reported throttling."""
    seconds: float | None = None
    """Time between before and after: the warm-up and the timing."""
    cgroup_throttled: int | None = None
    """How often the control group's quota stopped the process."""
    cgroup_throttled_s: float | None = None
    """Seconds for which it was stopped, of all its processors together."""
    governor_before: str | None = None
    """Frequency governor before the warm-up."""
    governor_after: str | None = None
    """Frequency governor after the timing."""
    temperature: Temperature | None = None
    """Temperature of the processor."""
    clock: Clock | None = None
    """Clock of the processor that the process last ran on."""
    throttle_events: int | None = None
    """How often an x86 processor slowed down for heat meanwhile, by its own counters."""
    pi_bits: PiBits | None = None
    """Raspberry Pi's throttle bits."""
    jetson: JetsonConditions | None = None
    """What a Jetson says of its power; null on another device."""
    gpu: GpuConditions | None = None
    """The NVIDIA GPU; null where the process does not compute on one or the driver's library is missing."""
    involuntary_switches: int | None = None
    """How often another process took the processor from this one."""
    clock_jump_s: float | None = None
    """Seconds that the wall clock moved more than the time that passed."""
    watch_cpu_s: float | None = None
    """Processor time of the process that looked at the device meanwhile; null where none was started."""
    samples: tuple[Sample, ...] = ()
    """What it saw, once a second or, in long measurements, less often."""
