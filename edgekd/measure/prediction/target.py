"""What a prediction is for: a device's profile with its operating point, or the machine at hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices.profiles import LOCAL, best_match, default_point, load_profile_at
from edgekd.documents.calibration import Calibration
from edgekd.documents.profile import Profile
from edgekd.documents.run_log import Facts
from edgekd.documents.runtime import TargetRuntime
from edgekd.errors import UsageError
from edgekd.measure.prediction.calibration import calibration_of, speeds_of
from edgekd.measure.prediction.generic import Scale, generic_speeds
from edgekd.measure.prediction.roofline import Speeds


@dataclass(frozen=True)
class Target:
    """A device to predict for.

    Attributes:
        profile: its name, `local` for the machine at hand.
        point: its operating point.
        runtime: that is taken to run the graph.
        threads: of the runtime.
        speeds: what it does in a second.
        calibration: what the speeds rest on; None for generic ones.
        notes: what a reader should know, a line each.
    """

    profile: str
    point: str | None
    runtime: TargetRuntime
    threads: int
    speeds: Speeds
    calibration: str | None = None
    notes: tuple[str, ...] = ()


def profile_target(reference: str, threads: int) -> Target:
    """The device that `NAME[@OPERATING_POINT]` means: by a calibration of such a machine, else by peaks.

    Raises:
        UsageError: there is no such profile, or it has no peaks.
    """
    profile, point = load_profile_at(reference)
    named = point if "@" in reference else None
    if profile.gpu is None and (found := calibration_of(profile, named, threads)) is not None:
        name = _called(found)
        return Target(profile.id, point, "onnxruntime", threads, speeds_of(found), name, found.warnings)
    speeds, notes = generic_speeds(profile, point, threads)
    return Target(profile.id, point, _runtime_of(profile), threads, speeds, notes=notes)


def machine_target(
    facts: Facts,
    threads: int,
    *,
    calibration: Calibration | None,
    profiles: Iterable[Profile],
    clock_mhz: float | None,
) -> Target:
    """The machine that gave these facts: by its calibration, else by the profile that is nearest.

    Args:
        facts: of the machine.
        threads: of the runtime.
        calibration: of this machine, version and number of threads.
        profiles: to choose from without it; those of GPUs are not for ONNX Runtime on a processor.
        clock_mhz: of its cores where the facts do not tell, to scale a unit profile by.

    Raises:
        UsageError: there is no calibration, and no profile that comes near has peaks.
    """
    if calibration is not None:
        name = _called(calibration)
        return Target(LOCAL, None, "onnxruntime", threads, speeds_of(calibration), name, calibration.warnings)
    profile, notes = _nearest(facts, [one for one in profiles if one.gpu is None])
    point = default_point(profile)
    scale = None
    if point is not None and profile.operating_points[point].unit:
        clock_mhz = facts.cpu_max_mhz or clock_mhz
        if clock_mhz is None:
            raise UsageError(
                f"its clock cannot be read, and {profile.id} has to be scaled by it",
                where=LOCAL,
                hint="edgekd devices calibrate measures what is needed",
            )
        scale = Scale(min(threads, facts.cores), clock_mhz / 1000)
        notes += (f"{profile.id} times {scale.cores} core(s) at {scale.ghz:.2f} GHz",)
    speeds, more = generic_speeds(profile, point, threads, unit=scale)
    advice = "nobody measured this machine: edgekd devices calibrate narrows the interval"
    return Target(LOCAL, None, "onnxruntime", threads, speeds, notes=(*notes, *more, advice))


def _called(calibration: Calibration) -> str:
    """A calibration in a few words."""
    key = calibration.key
    return f"{key.processor}, {key.runtime} {key.runtime_version}, {key.threads} thread(s)"


def _runtime_of(profile: Profile) -> TargetRuntime:
    """What the peaks of a profile are for: a GPU's are TensorRT's, a processor's ONNX Runtime's."""
    return "onnxruntime" if profile.gpu is None else "tensorrt"


def _nearest(facts: Facts, profiles: Iterable[Profile]) -> tuple[Profile, tuple[str, ...]]:
    """The profile that a machine matches, else one that lacks nothing but what the machine has on top."""
    candidates = tuple(profiles)
    exact = best_match(facts, candidates)
    if exact is not None:
        return exact, ()
    lenient = {one.id: one for one in candidates}
    relaxed = (
        one.model_copy(update={"detect": one.detect.model_copy(update={"isa_absent": ()})})
        for one in candidates
    )
    near = best_match(facts, relaxed)
    if near is None:
        raise UsageError(
            f"no profile comes near this machine ({facts.cpu or facts.machine})",
            where=LOCAL,
            hint="edgekd devices calibrate measures it, edgekd devices list shows every profile",
        )
    profile = lenient[near.id]
    more = sorted(set(profile.detect.isa_absent) & set(facts.isa))
    return profile, (
        f"no profile matches this machine; {profile.id} is nearest and leaves out {', '.join(more)}",
    )


def read_clock_mhz(root: Path = Path("/")) -> float | None:
    """Highest of the clocks that the kernel tells of the cores at the moment; None where it does not."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return None
    found = [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([0-9.]+)", text, re.MULTILINE)]
    return max(found, default=None)
