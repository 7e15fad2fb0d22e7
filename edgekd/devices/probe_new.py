"""A profile of the machine at hand, made of its facts: every number of it was read there, none is a peak."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgekd.devices.matching import mismatches
from edgekd.devices.probe_toml import profile_text
from edgekd.devices.profiles import LOCAL, local_profile, own_folder, profile_paths
from edgekd.documents.profile import Cpu, Detect, Figure, Gpu, OperatingPoint, Profile, ProfileId
from edgekd.documents.run_log import Facts
from edgekd.errors import StorageError, UsageError
from edgekd.files import write_text

COMMAND = "edgekd devices new"
"""Source of every number of a new profile."""

POINT = "as-found"
"""Name of its one operating point."""

MEMORY_SHARE = 0.9
"""Share of the memory that the profile wants: another kernel keeps a little more for itself."""

_NO_PEAKS = (
    "Made of what the machine says of itself: peaks are not given. edgekd devices calibrate measures them."
)

_X86, _ARM = ("x86_64", "amd64", "i386", "i686"), ("aarch64", "arm64", "armv7l")


def write_new_profile(name: str, facts: Facts, output: Path | None = None) -> Path:
    """Write the profile of the machine that gave these facts, and make sure that it matches that machine.

    Args:
        name: the profile's id.
        facts: what the machine says of itself.
        output: the file, `NAME.toml`; the folder of the user's profiles when it is None.

    Raises:
        UsageError: the name is taken or cannot be one, or the file is there.
        StorageError: the file cannot be written, or is not what was written.
    """
    path = output or own_folder() / f"{name}.toml"
    for problem, hint in _problems(name, path):
        raise UsageError(problem, where=path, hint=hint)
    write_text(path, profile_text(profile_of(name, facts)))
    if differences := mismatches(Profile.read(path), facts):
        raise StorageError(f"the new profile is not this machine's: {'; '.join(differences)}", where=path)
    return path


def profile_of(name: str, facts: Facts) -> Profile:
    """A machine as a profile with an id of its own."""
    here = local_profile(facts)
    return here.model_copy(
        update={
            "id": name,
            "description": f"{facts.board or facts.cpu or facts.machine}, as found",
            "kind": _kind(facts, here.gpu),
            "notes": (_NO_PEAKS,),
            "detect": _detect(facts, here.gpu),
            "cpu": _cpu(here.cpu, facts),
            "memory_bytes": _memory(facts, here.gpu),
            "operating_points": {POINT: _point(facts)},
        }
    )


def _problems(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Why a profile of this name cannot be written there, each with what to do."""
    try:
        TypeAdapter(ProfileId).validate_python(name)
    except ValidationError:
        yield f"'{name}' is no name of a profile", "small letters, digits and hyphens, such as my-board"
        return
    if name == LOCAL:
        yield "'local' is the machine at hand", "choose another name"
    if path.name != f"{name}.toml":
        yield "the file of a profile has its name", f"call it {name}.toml"
    if path.exists():
        yield "there is a file already; nothing is overwritten", "choose another name, or remove it first"
    if (taken := profile_paths().get(name)) is not None:
        yield f"there is a profile '{name}' already: {taken}", "choose another name"


def _kind(facts: Facts, gpu: Gpu | None) -> str:
    machine = facts.machine.casefold()
    if (facts.board or "").startswith("NVIDIA"):
        return "jetson"
    if gpu is not None:
        return "nvidia-gpu"
    return "x86" if machine in _X86 else "arm-board" if machine in _ARM else "other"


def _memory(facts: Facts, gpu: Gpu | None) -> Figure | None:
    """The machine's memory, unless its networks run in the memory of a card, which the facts do not tell."""
    if facts.memory_bytes is None or _kind(facts, gpu) == "nvidia-gpu":
        return None
    return _read(facts.memory_bytes)


def _detect(facts: Facts, gpu: Gpu | None) -> Detect:
    least = None if facts.memory_bytes is None else int(MEMORY_SHARE * facts.memory_bytes)
    return Detect(
        machine=(facts.machine,),
        isa=facts.isa,
        board=facts.board,
        cpu=() if facts.cpu is None else (facts.cpu,),
        gpu=None if gpu is None else gpu.name,
        min_memory_bytes=least or None,
    )


def _cpu(cpu: Cpu | None, facts: Facts) -> Cpu | None:
    return None if cpu is None else cpu.model_copy(update={"cores": _read(facts.cores)})


def _point(facts: Facts) -> OperatingPoint:
    state = (
        f"governor {facts.governor}" if facts.governor else "",
        f"power mode {facts.power_mode}" if facts.power_mode else "",
    )
    return OperatingPoint(
        default=True,
        description=", ".join(("As found", *filter(None, state))),
        nvpmodel=facts.power_mode,
        cpu_mhz=None if facts.cpu_max_mhz is None else _read(facts.cpu_max_mhz),
    )


def _read(value: float) -> Figure:
    return Figure(value=value, provenance="measured", source=COMMAND)
