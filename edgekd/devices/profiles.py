"""Device profiles: where they lie, which one is meant, and whether a machine is that device.

A user's folders come first (EDGEKD_PROFILES, then the configuration folder), then the profiles that edgekd
ships; the first file of a name wins. A profile says what a device is; the facts say what a machine reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices.isa import int8_instruction
from edgekd.devices.matching import best_match, matches, mismatches, point_here, point_mismatches, split_gpu
from edgekd.documents.base import nearest
from edgekd.documents.profile import Cpu, Detect, Figure, Gpu, Profile, ProfileRuntime
from edgekd.documents.run_log import Facts
from edgekd.errors import DocumentError, UsageError
from edgekd.shipped import shipped

__all__ = [
    "LOCAL",
    "FoundProfile",
    "best_match",
    "default_point",
    "list_profiles",
    "load_profile",
    "load_profile_at",
    "local_profile",
    "matches",
    "mismatches",
    "own_folder",
    "point_here",
    "point_mismatches",
    "profile_folders",
    "profile_path",
    "profile_paths",
    "target_sm",
]

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
    return (*own, own_folder(), shipped("profiles"))


def own_folder() -> Path:
    """The folder of the user's own profiles; it need not exist."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return config / "edgekd" / "profiles"


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
    """The profile that `NAME` or `NAME@OPERATING_POINT` means; an alias of a profile is a name of it too.

    Raises:
        UsageError: no profile, or no operating point of it, has that name, or several have that alias.
        DocumentError: its file is not a profile.
    """
    return load_profile_at(reference)[0]


def load_profile_at(reference: str) -> tuple[Profile, str | None]:
    """The profile that `NAME[@OPERATING_POINT]` means, and the name of its operating point.

    The point is the default one when none is named, and None when the profile has none.

    Raises:
        UsageError: no profile, or no operating point of it, has that name, or several have that alias.
        DocumentError: its file is not a profile.
    """
    name, at, point = reference.partition("@")
    path = profile_path(name)
    name = path.stem
    profile = _read(name, path)
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
    """The file of a profile, by its name or by one of its aliases.

    Raises:
        UsageError: no file of the search path has that name, or several have that alias.
    """
    if name == LOCAL:
        raise UsageError("the profile 'local' has no file: it is the machine at hand, probed when it is used")
    paths = profile_paths()
    return paths[name] if name in paths else paths[_named_by(name, tuple(paths))]


def _named_by(alias: str, names: tuple[str, ...]) -> str:
    """The name of the profile that has an alias, whose case does not matter."""
    owners = dict.fromkeys(owner for one, owner in _aliases() if one.casefold() == alias.casefold())
    if len(owners) > 1:
        raise UsageError(
            f"'{alias}' is an alias of several profiles: {', '.join(owners)}", hint="name one of them"
        )
    if not owners:
        known = (LOCAL, *names, *(one for one, _ in _aliases()))
        raise UsageError(
            f"there is no profile '{alias}'{nearest(alias, known)}",
            hint="edgekd devices list shows every profile, edgekd devices where the folders searched",
        )
    return next(iter(owners))


def _aliases() -> Iterator[tuple[str, str]]:
    """Each alias with the name of its profile; files that are no profile have none."""
    for found in list_profiles():
        for alias in () if found.profile is None else found.profile.aliases:
            yield alias, found.name


def default_point(profile: Profile) -> str | None:
    """Name of the operating point that the device is delivered in."""
    return next((name for name, point in profile.operating_points.items() if point.default), None)


def target_sm(profile: Profile) -> int | None:
    """Compute capability of the profile's GPU without the point, such as 87; None without a GPU."""
    return None if profile.gpu is None else profile.gpu.sm


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


def _probed(value: float) -> Figure:
    return Figure(value=value, provenance="measured", source="edgekd doctor")


def _first_gpu(facts: Facts) -> Gpu | None:
    for text in facts.gpus:
        name, sm = split_gpu(text)
        if sm is not None:
            return Gpu(name=name, sm=sm)
    return None


def _runtimes(facts: Facts) -> Iterator[ProfileRuntime]:
    for runtime in ("onnxruntime", "tensorrt"):
        if runtime in facts.versions:
            yield ProfileRuntime(runtime=runtime, versions=facts.versions[runtime])
