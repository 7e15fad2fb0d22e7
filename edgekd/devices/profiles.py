"""Device profiles: where they lie, which one is meant, and whether a machine is that device.

A user's folders come first (EDGEKD_PROFILES, then the configuration folder), then the profiles that edgekd
ships; the first file of a name wins. A profile says what a device is; the facts say what a machine reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices.isa import int8_instruction
from edgekd.documents.base import nearest
from edgekd.documents.profile import Cpu, Detect, Figure, Gpu, Profile, ProfileRuntime
from edgekd.documents.run_log import Facts
from edgekd.errors import DocumentError, UsageError
from edgekd.shipped import shipped
from edgekd.units import format_bytes

LOCAL = "local"
"""Name of the profile of the machine at hand, which has no file."""


@dataclass(frozen=True)
class FoundProfile:
    """A file of the search path: its profile, or what is wrong with it."""

    name: str
    path: Path
    profile: Profile | None
    problem: str | None


def profile_folders() -> tuple[Path, ...]:
    """The folders that are searched, first to last; they need not exist."""
    own = [
        Path(entry).expanduser() for entry in os.environ.get("EDGEKD_PROFILES", "").split(os.pathsep) if entry
    ]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return (*own, config / "edgekd" / "profiles", shipped("profiles"))


def profile_paths() -> dict[str, Path]:
    """Profile name to its file, the first one of the search path for each name, in order of name."""
    paths: dict[str, Path] = {}
    for folder in profile_folders():
        for path in sorted(folder.glob("*.toml")):
            paths.setdefault(path.stem, path)
    return dict(sorted(paths.items()))


def list_profiles() -> tuple[FoundProfile, ...]:
    """Every profile of the search path; a file that cannot be read is listed with its problem."""
    return tuple(_found(name, path) for name, path in profile_paths().items())


def load_profile(reference: str) -> Profile:
    """The profile that `NAME` or `NAME@OPERATING_POINT` means.

    Raises:
        UsageError: no profile, or no operating point of it, has that name.
        DocumentError: its file is not a profile.
    """
    return load_profile_at(reference)[0]


def load_profile_at(reference: str) -> tuple[Profile, str | None]:
    """The profile that `NAME[@OPERATING_POINT]` means, and the name of its operating point.

    The point is the default one when none is named, and None when the profile has none.

    Raises:
        UsageError: no profile, or no operating point of it, has that name.
        DocumentError: its file is not a profile.
    """
    name, at, point = reference.partition("@")
    profile = _read(name, profile_path(name))
    if not at:
        return profile, default_point(profile)
    points = tuple(profile.operating_points)
    if point not in points:
        hint = (
            f"{name} has {', '.join(points)}" if points else f"{name} has no operating points; name it alone"
        )
        raise UsageError(
            f"the profile {name} has no operating point '{point}'{nearest(point, points)}", hint=hint
        )
    return profile, point


def profile_path(name: str) -> Path:
    """The file of a profile.

    Raises:
        UsageError: no file of the search path has that name.
    """
    if name == LOCAL:
        raise UsageError("the profile 'local' has no file: it is the machine at hand, probed when it is used")
    paths = profile_paths()
    if name not in paths:
        raise UsageError(
            f"there is no profile '{name}'{nearest(name, (LOCAL, *paths))}",
            hint="edgekd devices list shows every profile, edgekd devices where the folders searched",
        )
    return paths[name]


def default_point(profile: Profile) -> str | None:
    """Name of the operating point that the device is delivered in."""
    return next((name for name, point in profile.operating_points.items() if point.default), None)


def target_sm(profile: Profile) -> int | None:
    """Compute capability of the profile's GPU without the point, such as 87; None without a GPU."""
    return None if profile.gpu is None else profile.gpu.sm


def mismatches(profile: Profile, facts: Facts) -> tuple[str, ...]:
    """Every difference between what a profile wants and what a machine reports; none if it is that device."""
    here = f"this machine ({facts.cpu or facts.machine})"
    return tuple(_differences(profile, facts, here))


def best_match(facts: Facts, profiles: Iterable[Profile]) -> Profile | None:
    """The most specific profile that a machine matches: one that names its board or its GPU comes first."""
    matching = [profile for profile in profiles if not mismatches(profile, facts)]
    return max(matching, key=lambda profile: _specificity(profile.detect), default=None)


def local_profile(facts: Facts) -> Profile:
    """The machine that gave these facts, as a profile with the id `local`."""
    return Profile(
        id="local",
        description=f"the machine at hand: {facts.cpu or facts.machine}",
        kind="local",
        detect=Detect(machine=(facts.machine,), isa=facts.isa, board=facts.board),
        cpu=Cpu(
            name=facts.cpu or facts.machine,
            cores=_probed(facts.cores),
            int8=int8_instruction(facts.isa),
        ),
        gpu=_first_gpu(facts),
        memory_bytes=None if facts.memory_bytes is None else _probed(facts.memory_bytes),
        runtimes=tuple(_runtimes(facts)),
    )


def _found(name: str, path: Path) -> FoundProfile:
    try:
        return FoundProfile(name, path, _read(name, path), None)
    except DocumentError as error:
        return FoundProfile(name, path, None, "; ".join(error.problems))


def _read(name: str, path: Path) -> Profile:
    profile = Profile.read(path)
    problems = tuple(_name_problems(name, profile))
    if problems:
        raise DocumentError(path, problems, hint=f"call the file {profile.id}.toml, or write id = '{name}'")
    return profile


def _name_problems(name: str, profile: Profile) -> Iterator[str]:
    if profile.id != name:
        yield f"id: found '{profile.id}'; it is the file's name without .toml, '{name}'"
    for key in ("id", "kind"):
        if getattr(profile, key) == LOCAL:
            yield f"{key}: '{LOCAL}' is the machine at hand; another {key} is expected"


def _differences(profile: Profile, facts: Facts, here: str) -> Iterator[str]:
    wants = profile.detect
    if wants.machine and facts.machine not in wants.machine:
        yield f"the profile wants {' or '.join(wants.machine)}; {here} is {facts.machine}"
    else:
        yield from _isa_differences(wants, facts, here)
    if wants.board is not None and not (facts.board or "").startswith(wants.board):
        yield f"the profile wants the board {wants.board}; {here} reports {facts.board or 'no board'}"
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


def _gpu_differences(profile: Profile, facts: Facts, here: str) -> Iterator[str]:
    wanted = profile.detect.gpu
    if wanted is None:
        return
    gpus = [_split_gpu(text) for text in facts.gpus]
    sms = [sm for name, sm in gpus if name.casefold() == wanted.casefold()]
    if not sms:
        found = ", ".join(name for name, _ in gpus) or "no NVIDIA GPU"
        yield f"the profile wants the GPU {wanted}; {here} reports {found}"
    elif profile.gpu is not None and profile.gpu.sm not in (*sms, None) and None not in sms:
        yield f"the profile wants SM {profile.gpu.sm}; the {wanted} of {here} reports {sms[0]}"


def _split_gpu(text: str) -> tuple[str, int | None]:
    """`NVIDIA L4 (8.9)` -> ("NVIDIA L4", 89)."""
    name, opening, capability = text.rpartition(" (")
    digits = capability.rstrip(")").replace(".", "")
    return (name, int(digits)) if opening and digits.isdecimal() else (text, None)


def _specificity(detect: Detect) -> tuple[bool, bool, int]:
    return detect.board is not None, detect.gpu is not None, len(detect.isa) + len(detect.isa_absent)


def _probed(value: float) -> Figure:
    return Figure(value=value, provenance="measured", source="edgekd doctor")


def _first_gpu(facts: Facts) -> Gpu | None:
    for text in facts.gpus:
        name, sm = _split_gpu(text)
        if sm is not None:
            return Gpu(name=name, sm=sm)
    return None


def _runtimes(facts: Facts) -> Iterator[ProfileRuntime]:
    for runtime in ("onnxruntime", "tensorrt"):
        if runtime in facts.versions:
            yield ProfileRuntime(runtime=runtime, versions=facts.versions[runtime])
