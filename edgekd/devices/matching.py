"""Whether a machine is the device of a profile, and whether it runs at the operating point that is meant.

Pure functions of a profile and of the facts that the kit read on the machine. What a machine does not report
of its state (power mode, clock) is no difference; what it does not report of its identity is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgekd.documents.profile import Detect, OperatingPoint, Profile
from edgekd.documents.run_log import Facts
from edgekd.units import format_bytes

CLOCK_TOLERANCE = 0.05
"""Share by which a highest clock may differ: tables of frequencies are off their round names."""


def mismatches(profile: Profile, facts: Facts) -> tuple[str, ...]:
    """Every difference between what a profile wants and what a machine reports; none if it is that device."""
    return tuple(_differences(profile, facts, machine_name(facts)))


def best_match(facts: Facts, profiles: Iterable[Profile]) -> Profile | None:
    """The most specific profile that a machine matches: one that names its board, GPU or processor wins."""
    return next(iter(matches(facts, profiles)), None)


def matches(facts: Facts, profiles: Iterable[Profile]) -> tuple[Profile, ...]:
    """Every profile that a machine matches, the most specific one first."""
    matching = [profile for profile in profiles if not mismatches(profile, facts)]
    return tuple(sorted(matching, key=lambda profile: _specificity(profile.detect), reverse=True))


def point_mismatches(profile: Profile, point: str | None, facts: Facts) -> tuple[str, ...]:
    """What tells that a machine is not at an operating point: another power mode, another highest clock.

    Args:
        profile: the device that the machine is.
        point: one of its operating points; None for a profile without any.
        facts: what the machine reports; a power mode or a clock that it does not report is not compared.
    """
    if point is None:
        return ()
    return tuple(_point_differences(f"{profile.id}@{point}", profile.operating_points[point], facts))


def point_here(profile: Profile, facts: Facts) -> str | None:
    """The first operating point that power mode and highest clock of a machine fit; None if none is told."""
    points = profile.operating_points.items()
    told = (name for name, point in points if _is_told(point, facts))
    return next((name for name in told if not point_mismatches(profile, name, facts)), None)


def machine_name(facts: Facts) -> str:
    """A machine as messages name it: `the machine (AMD EPYC)`."""
    return f"the machine ({facts.cpu or facts.machine})"


def split_gpu(text: str) -> tuple[str, int | None]:
    """`NVIDIA L4 (8.9)` -> ("NVIDIA L4", 89)."""
    name, opening, capability = text.rpartition(" (")
    digits = capability.rstrip(")").replace(".", "")
    return (name, int(digits)) if opening and digits.isdecimal() else (text, None)


def _differences(profile: Profile, facts: Facts, here: str) -> Iterator[str]:
    wants = profile.detect
    if wants.machine and facts.machine not in wants.machine:
        yield f"the profile wants {' or '.join(wants.machine)}; {here} is {facts.machine}"
    else:
        yield from _isa_differences(wants, facts, here)
    yield from _name_differences(wants, facts, here)
    yield from _gpu_differences(profile, facts, here)
    if wants.min_memory_bytes is not None and (facts.memory_bytes or 0) < wants.min_memory_bytes:
        found = "no size" if facts.memory_bytes is None else format_bytes(facts.memory_bytes)
        yield f"the profile wants {format_bytes(wants.min_memory_bytes)} of memory; {here} reports {found}"


def _isa_differences(wants: Detect, facts: Facts, here: str) -> Iterator[str]:
    for feature in wants.isa:
        if feature not in facts.isa:
            yield f"the profile wants {feature}; {here} does not report it"
    if wants.isa_any and not set(wants.isa_any) & set(facts.isa):
        yield f"the profile wants {' or '.join(wants.isa_any)}; {here} reports none of them"
    for feature in wants.isa_absent:
        if feature in facts.isa:
            yield f"the profile is for machines without {feature}; {here} reports it"


def _name_differences(wants: Detect, facts: Facts, here: str) -> Iterator[str]:
    boards = wants.boards()
    if boards and not (facts.board or "").startswith(boards):
        yield f"the profile wants the board {' or '.join(boards)}; {here} reports {facts.board or 'no board'}"
    if wants.cpu and not any(part in (facts.cpu or "") for part in wants.cpu):
        found = facts.cpu or "no processor"
        yield f"the profile wants the processor {' or '.join(wants.cpu)}; {here} reports {found}"


def _gpu_differences(profile: Profile, facts: Facts, here: str) -> Iterator[str]:
    wanted = profile.detect.gpu
    if wanted is None:
        return
    gpus = [split_gpu(text) for text in facts.gpus]
    sms = [sm for name, sm in gpus if name.casefold() == wanted.casefold()]
    if not sms:
        found = ", ".join(name for name, _ in gpus) or "no NVIDIA GPU"
        yield f"the profile wants the GPU {wanted}; {here} reports {found}"
    elif profile.gpu is not None and profile.gpu.sm not in (*sms, None) and None not in sms:
        yield f"the profile wants SM {profile.gpu.sm}; the {wanted} of {here} reports {sms[0]}"


def _point_differences(name: str, point: OperatingPoint, facts: Facts) -> Iterator[str]:
    here, mode = machine_name(facts), facts.power_mode
    if point.nvpmodel is not None and mode is not None and _mode(mode) != _mode(point.nvpmodel):
        yield f"{name} is the power mode {point.nvpmodel}; {here} is in {mode}"
    if _has_clock(point, facts) and not _clock_fits(point, facts):
        wanted = f"{point.cpu_mhz.value:g} MHz" if point.cpu_mhz else ""
        yield f"{name} has a highest processor clock of {wanted}; {here} reports {facts.cpu_max_mhz:g} MHz"


def _is_told(point: OperatingPoint, facts: Facts) -> bool:
    """Whether the facts say something of what makes a point."""
    return (point.nvpmodel is not None and facts.power_mode is not None) or _has_clock(point, facts)


def _has_clock(point: OperatingPoint, facts: Facts) -> bool:
    return point.cpu_mhz is not None and facts.cpu_max_mhz is not None and not point.unit


def _clock_fits(point: OperatingPoint, facts: Facts) -> bool:
    wanted, found = point.cpu_mhz, facts.cpu_max_mhz
    return wanted is None or found is None or abs(found / wanted.value - 1) <= CLOCK_TOLERANCE


def _mode(name: str) -> str:
    """The name of a mode without what differs from module to module: `MODE_30W` is `30w`."""
    return name.strip().casefold().removeprefix("mode_")


def _specificity(detect: Detect) -> tuple[bool, bool, bool, int]:
    named = (bool(detect.boards()), detect.gpu is not None, bool(detect.cpu))
    return (*named, len(detect.isa) + len(detect.isa_absent))
