"""What the device's own state says against a measurement: invalid, or flagged, by rule.

The kit records, this judges. Invalid is a measurement of a device that was not itself: throttled for heat or
power, stopped by a quota, robbed of a fifth of its time, switched to another mode. Flagged is what makes a
figure less certain, or hard to repeat. What could not be read is no finding, but where nothing could, that is
one: such a measurement is unverified.

Sources of the bits: NVML's reference (clocks event reasons), Raspberry Pi's documentation (get_throttled).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekd.documents.conditions import Clock, Conditions, PiBits
from edgekd.documents.run_log import Facts
from edgekd.units import format_percent

MAX_STEAL = 0.005
INVALID_STEAL = 0.2
INVALID_QUOTA = 0.05
MAX_CLOCK_JUMP_S = 1.0
LEAST_OF_CAP = 0.95
PI_NOW, PI_STICKY = 0xF, 16
PI_MEANS = ("under-voltage", "a capped clock", "throttling", "the soft temperature limit")
GPU_INVALID = {
    0x8: "hardware slowdown",
    0x20: "thermal slowdown by software",
    0x40: "thermal slowdown by hardware",
    0x80: "the power brake",
}
GPU_POWER_CAP = 0x4
COOLING = "better cooling, a stronger power supply, a lower power mode"


@dataclass(frozen=True)
class Finding:
    """One thing that happened."""

    level: Literal["invalid", "flag"]
    """invalid: no verdict may rest on the measurement; flag: the reader should know."""
    text: str
    """What happened and what to try."""


def judge(
    facts: Facts,
    moments: Sequence[Conditions],
    *,
    cpu_cap_mhz: float | None = None,
    gpu_cap_mhz: float | None = None,
    steady: bool = True,
) -> tuple[Finding, ...]:
    """Every finding about a device and the times at which it was measured, one for each kind.

    The caps are those of the operating point that the device is meant to be at; without one, a Jetson's GPU
    is held against the cap that is set. Not `steady` is a measurement with pauses, in which clocks may fall.
    """
    found = [
        *_of_the_device(facts),
        *_of_other_programs(facts, moments),
        *_of_heat_and_power(moments),
        *_of_a_jetson(moments),
        *_of_a_gpu(moments),
        *(_of_clocks(moments, cpu_cap_mhz, gpu_cap_mhz) if steady else ()),
    ]
    if not any(map(_shows_something, moments)):
        what = "environment: unverified: no clock, temperature, throttling or stolen time could be read"
        found.append(_flag(what, "outside a container, or as a user who may read /sys"))
    return tuple(found)


def _flag(what: str, advice: str) -> Finding:
    return Finding("flag", f"{what}; try: {advice}")


def _invalid(what: str, advice: str) -> Finding:
    return Finding("invalid", f"{what}; try: {advice}")


def _of_the_device(facts: Facts) -> Iterator[Finding]:
    if facts.governor not in (None, "performance"):
        yield _flag(
            f"the frequency governor is {facts.governor}, so that clocks follow the load",
            "sudo cpupower frequency-set -g performance",
        )
    if facts.cgroup_cpus is not None and facts.cgroup_cpus < facts.cores:
        yield _flag(
            f"the container's quota allows {facts.cgroup_cpus:g} of {facts.cores} processors and stops the "
            "process when it is used up",
            "pin processors (cpuset) instead of a quota",
        )


def _of_other_programs(facts: Facts, moments: Sequence[Conditions]) -> Iterator[Finding]:
    steal = max((moment.steal_fraction or 0.0 for moment in moments), default=0.0)
    if steal > MAX_STEAL:
        yield Finding(
            "invalid" if steal > INVALID_STEAL else "flag",
            f"other virtual machines took up to {format_percent(steal)} of the processor time; "
            "try: a quieter or a dedicated host, or more processes",
        )
    # Only before the first process: later ones see the load that the measurement itself makes.
    load = moments[0].load1 if moments else None
    if load is not None and load > facts.cores:
        yield _flag(
            f"the load average was {load:.1f} on {facts.cores} processors before the start",
            "end other programs and measure again",
        )
    stopped = max(map(_stopped, moments), default=0.0)
    if stopped > 0:
        yield Finding(
            "invalid" if stopped > INVALID_QUOTA else "flag",
            f"the container's quota stopped the process for up to {format_percent(stopped)} of the time; "
            "try: a larger quota, fewer threads, or pinned processors (cpuset)",
        )
    jump = max((moment.clock_jump_s or 0.0 for moment in moments), key=abs, default=0.0)
    if abs(jump) > MAX_CLOCK_JUMP_S:
        yield _flag(
            f"the wall clock jumped by {jump:+.1f} s, or the device slept; latencies are of another clock",
            "set the clock first, and keep the device awake",
        )


def _stopped(moment: Conditions) -> float:
    """Share of the time for which the quota stopped the process; the kernel adds up its processors."""
    return min(1.0, (moment.cgroup_throttled_s or 0.0) / moment.seconds) if moment.seconds else 0.0


def _of_heat_and_power(moments: Sequence[Conditions]) -> Iterator[Finding]:
    events = sum(moment.throttle_events or 0 for moment in moments)
    if events:
        yield _invalid(f"the processor slowed down for heat {events} times", "better cooling, a pause before")
    bits = _union(_pi_bits(moment.pi_bits) for moment in moments)
    if bits:
        means = ", ".join(name for bit, name in enumerate(PI_MEANS) if bits >> bit & 1)
        supply = "a stronger power supply and a shorter cable" if bits & 1 else "better cooling"
        yield _invalid(f"the Raspberry Pi reported {means}", supply)
    if any(moment.throttled for moment in moments):
        yield _invalid("the device throttled itself", COOLING)
    governors = {(moment.governor_before, moment.governor_after) for moment in moments}
    names = sorted({name for pair in governors for name in pair if name is not None})
    if len(names) > 1:
        yield _flag(f"the frequency governor changed between {' and '.join(names)}", "keep it at performance")


def _pi_bits(bits: PiBits | None) -> int:
    """Bits 0-3: what was so at some moment, or is newly marked as having been so since boot."""
    if bits is None:
        return 0
    now = (bits.before | (bits.during or 0) | bits.after) & PI_NOW
    marked = ((bits.during or 0) | bits.after) & ~bits.before  # the kernel's driver may clear them meanwhile
    return now | marked >> PI_STICKY & PI_NOW


def _union(bits: Iterable[int]) -> int:
    found = 0
    for each in bits:
        found |= each
    return found


def _of_a_jetson(moments: Sequence[Conditions]) -> Iterator[Finding]:
    states = [moment.jetson for moment in moments if moment.jetson is not None]
    modes = [mode for state in states for mode in (state.power_mode_before, state.power_mode_after)]
    names = list(dict.fromkeys(mode for mode in modes if mode is not None))
    if len(names) > 1:
        yield _invalid(f"the power mode changed: {', '.join(names)}", "sudo nvpmodel -m MODE, once, before")
    alarms = sorted({alarm for state in states for alarm in state.alarms})
    if alarms:
        yield _invalid(f"current went over its limit: {', '.join(alarms)}", COOLING)


def _of_a_gpu(moments: Sequence[Conditions]) -> Iterator[Finding]:
    states = [moment.gpu for moment in moments if moment.gpu is not None]
    bits = _union(state.event_reasons or 0 for state in states)
    causes = [name for bit, name in GPU_INVALID.items() if bits & bit]
    if causes:
        yield _invalid(f"the GPU's clocks were held down by {', '.join(causes)}", "better cooling and power")
    if bits & GPU_POWER_CAP:
        yield _flag(
            "the GPU's clocks were held down by its power limit",
            "sudo nvidia-smi -lgc MHZ, at a clock that it can keep up",
        )
    others = max((state.other_processes or 0 for state in states), default=0)
    if others:
        yield _flag(f"{others} other processes computed on the GPU", "end them: nvidia-smi names them")


def _of_clocks(
    moments: Sequence[Conditions], cpu_cap_mhz: float | None, gpu_cap_mhz: float | None
) -> Iterator[Finding]:
    states = [moment.jetson for moment in moments if moment.jetson is not None]
    pairs = [(state.gpu_clock, gpu_cap_mhz or state.gpu_cap_mhz) for state in states]
    yield from _below("GPU", pairs, "sudo jetson_clocks")
    discrete = [(moment.gpu.sm_clock, gpu_cap_mhz) for moment in moments if moment.gpu is not None]
    yield from _below("GPU", [] if states else discrete, "sudo nvidia-smi -lgc MHZ")
    processors = [(moment.clock, cpu_cap_mhz) for moment in moments]
    yield from _below("processor", processors, "sudo cpupower frequency-set -g performance")


def _below(what: str, pairs: Sequence[tuple[Clock | None, float | None]], advice: str) -> Iterator[Finding]:
    """The measurement in which a clock fell furthest below its cap, if by more than a twentieth."""
    low = [(clock.min_mhz, cap) for clock, cap in pairs if clock is not None and cap]
    found, cap = min(low, key=lambda pair: pair[0] / pair[1], default=(1.0, 1.0))
    if found < LEAST_OF_CAP * cap:
        yield _flag(f"the {what}'s clock fell to {found:.0f} of {cap:.0f} MHz", advice)


def _shows_something(moment: Conditions) -> bool:
    """Whether anything was read that could have spoken against the measurement."""
    evidence = moment.model_dump(
        include={
            *("steal_fraction", "throttled", "cgroup_throttled", "governor_before", "temperature", "clock"),
            *("throttle_events", "pi_bits", "gpu"),
        }
    )
    jetson = moment.jetson
    return any(value is not None for value in evidence.values()) or bool(jetson and jetson.gpu_clock)
