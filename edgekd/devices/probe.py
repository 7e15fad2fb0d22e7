"""What a machine is: its profile and operating point, or the profiles that are nearest and what differs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgekd.devices.matching import matches, mismatches, point_here, point_mismatches, split_gpu
from edgekd.devices.profiles import default_point
from edgekd.documents.profile import Profile
from edgekd.documents.run_log import Facts

NEAREST = 3
"""Number of profiles that are named where none matches."""


@dataclass(frozen=True)
class Candidate:
    """A profile that a machine is not, and every difference."""

    profile: Profile
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """What a machine was found to be."""

    facts: Facts
    """What it says of itself."""
    profile: Profile | None
    """The most specific profile that it matches."""
    also: tuple[Profile, ...]
    """Other profiles that it matches, such as that of the processor beside a known GPU."""
    point: str | None
    """The operating point that it is at; None where power mode and clock tell none."""
    point_differences: tuple[str, ...]
    """Where it is at no known point: what tells that it is not at the default one."""
    unknown_gpus: tuple[str, ...]
    """GPUs that no profile names, on a machine whose profile is that of its processor."""
    nearest: tuple[Candidate, ...]
    """Where it matches no profile: those with the fewest differences."""


def probe(facts: Facts, profiles: Iterable[Profile]) -> Probe:
    """Recognize the machine that gave these facts among some profiles."""
    known = tuple(profiles)
    matching = matches(facts, known)
    if not matching:
        return Probe(facts, None, (), None, (), (), nearest_profiles(facts, known))
    best, *also = matching
    point = point_here(best, facts)
    elsewhere = point_mismatches(best, default_point(best), facts) if point is None else ()
    unknown = facts.gpus if best.gpu is None else ()
    return Probe(facts, best, tuple(also), point, elsewhere, unknown, ())


def nearest_profiles(
    facts: Facts, profiles: Iterable[Profile], count: int = NEAREST
) -> tuple[Candidate, ...]:
    """The profiles that a machine is nearest to: same architecture and GPU first, then fewest differences."""
    candidates = [Candidate(profile, mismatches(profile, facts)) for profile in profiles]
    return tuple(sorted(candidates, key=lambda one: _distance(one, facts))[:count])


def _distance(candidate: Candidate, facts: Facts) -> tuple[bool, bool, int]:
    """Nearer is less: a profile of another architecture or GPU has few lines of difference, and is far."""
    detect, gpu = candidate.profile.detect, candidate.profile.gpu
    sms = {sm for _, sm in map(split_gpu, facts.gpus)}
    other_machine = bool(detect.machine) and facts.machine not in detect.machine
    other_gpu = detect.gpu is not None and (gpu is None or gpu.sm not in sms)
    return other_machine, other_gpu, len(candidate.differences)
