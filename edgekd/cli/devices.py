"""`edgekd devices`: the device profiles, and whether this machine is one of them."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.devices.isa import int8_warning
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import (
    LOCAL,
    best_match,
    list_profiles,
    load_profile,
    load_profile_at,
    local_profile,
    mismatches,
    profile_folders,
    profile_path,
)
from edgekd.documents.profile import Figure, OperatingPoint, Profile
from edgekd.documents.run_log import Facts
from edgekd.errors import UsageError
from edgekd.units import format_bytes

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

DIFFERS = 1
"""Exit code of `check` when the machine is not the device."""

Name = Annotated[str, typer.Argument(help="A profile, or NAME@OPERATING_POINT; `local` is this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def devices() -> None:
    """List, show and check device profiles."""


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List every profile."""
    found = list_profiles()
    if as_json:
        screen.show_json(
            [
                {
                    "name": one.name,
                    "path": str(one.path),
                    "problem": one.problem,
                    "profile": None if one.profile is None else _data(one.profile),
                }
                for one in found
            ]
        )
        return
    profiles = [one.profile for one in found if one.profile is not None]
    screen.show_table(("name", "kind", "int8", "memory", "runtimes"), [_row(profile) for profile in profiles])
    for one in found:
        if one.problem is not None:
            screen.warning(f"{one.path}: {one.problem}")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what a profile says, each number with its source, and warn where int8 may not pay."""
    profile, point = _load(name)
    if as_json:
        screen.show_json(_data(profile))
        return
    screen.show(f"{profile.id}: {profile.description}\n")
    screen.show_table(("fact", "value"), _facts(profile))
    figures = _figures(profile, point if "@" in name else None)
    if figures:
        screen.show()
        screen.show_table(("number", "value", "provenance", "source"), figures, right=("value",))
    if profile.notes:
        screen.show("\n" + "\n".join(f"- {line}" for line in profile.notes))
    if (line := int8_warning(profile, "onnxruntime")) is not None:
        screen.warning(line)


@app.command()
def check(
    name: Annotated[
        str | None, typer.Argument(help="A profile; without it, the one that matches best.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether this machine is the device of a profile.

    Exit codes: 0 it is, 1 it is not.
    """
    facts = LocalDevice().facts("onnxruntime")
    profile = _checked(name, facts)
    differences = () if profile is None else mismatches(profile, facts)
    matches = profile is not None and not differences
    if as_json:
        screen.show_json(
            {
                "profile": None if profile is None else profile.id,
                "matches": matches,
                "mismatches": list(differences),
                "facts": facts.model_dump(mode="json"),
            }
        )
    elif profile is None:
        screen.show(
            f"this machine ({_machine(facts)}) matches no profile; the profile 'local' takes it as it is"
        )
    elif matches:
        screen.show(f"this machine ({_machine(facts)}) is the device of the profile {profile.id}")
    else:
        screen.show("\n".join((f"this machine is not the device of the profile {profile.id}:", *differences)))
    raise typer.Exit(0 if matches else DIFFERS)


@app.command()
def where(
    name: Annotated[
        str | None, typer.Argument(help="A profile; without it, the folders that are searched.")
    ] = None,
) -> None:
    """Print the file of a profile, or the folders that are searched."""
    if name is not None:
        screen.show(str(profile_path(name)))
        return
    for folder in profile_folders():
        screen.show(f"{folder}" if folder.is_dir() else f"{folder} (no such folder)")


def _load(name: str) -> tuple[Profile, str | None]:
    if name == LOCAL:
        return local_profile(LocalDevice().facts("onnxruntime")), None
    return load_profile_at(name)


def _checked(name: str | None, facts: Facts) -> Profile | None:
    if name is None:
        return best_match(facts, [one.profile for one in list_profiles() if one.profile is not None])
    if name == LOCAL:
        raise UsageError(
            "this machine is always the device of the profile 'local'", hint="edgekd devices show local"
        )
    return load_profile(name)


def _data(profile: Profile) -> dict[str, object]:
    return profile.model_dump(mode="json", by_alias=True)


def _machine(facts: Facts) -> str:
    return facts.board or facts.cpu or facts.machine


def _row(profile: Profile) -> tuple[str, ...]:
    return (
        profile.id,
        profile.kind,
        "-" if profile.cpu is None else profile.cpu.int8,
        "-" if profile.memory_bytes is None else format_bytes(int(profile.memory_bytes.value)),
        ", ".join(one.runtime for one in profile.runtimes),
    )


def _facts(profile: Profile) -> list[tuple[str, str]]:
    """What a profile says that is no number."""
    cpu, gpu, detect = profile.cpu, profile.gpu, profile.detect
    facts = [
        ("kind", profile.kind),
        ("aliases", ", ".join(profile.aliases)),
        ("cpu", "" if cpu is None else f"{cpu.name}; int8 by {cpu.int8}"),
        ("gpu", "" if gpu is None else f"{gpu.name}; SM {gpu.sm}"),
        ("operating points", ", ".join(map(_marked, profile.operating_points.items()))),
        *(("runtime", f"{one.runtime} {one.versions}".strip()) for one in profile.runtimes),
        ("machine", " or ".join(detect.machine)),
        ("must report", ", ".join(detect.isa)),
        ("must report one of", ", ".join(detect.isa_any)),
        ("must not report", ", ".join(detect.isa_absent)),
        ("board", detect.board or ""),
        ("gpu reported as", detect.gpu or ""),
        ("least memory", "" if detect.min_memory_bytes is None else format_bytes(detect.min_memory_bytes)),
    ]
    return [(key, value) for key, value in facts if value]


def _marked(point: tuple[str, OperatingPoint]) -> str:
    return f"{point[0]} (default)" if point[1].default else point[0]


def _figures(profile: Profile, only: str | None) -> list[tuple[str, str, str, str]]:
    """Every number of a profile, or of one operating point, with its source."""
    parts: dict[str, Figure | None] = {}
    if only is None:
        parts["cpu.cores"] = None if profile.cpu is None else profile.cpu.cores
        parts["gpu.sm_count"] = None if profile.gpu is None else profile.gpu.sm_count
        parts["memory_bytes"] = profile.memory_bytes
    for name, point in profile.operating_points.items():
        if only in (None, name):
            parts |= {f"{name}: {key}": figure for key, figure in _point_figures(point).items()}
    return [
        (key, _number(figure.value), figure.provenance, figure.source)
        for key, figure in parts.items()
        if figure is not None
    ]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:g}"


def _point_figures(point: OperatingPoint) -> dict[str, Figure | None]:
    return {
        key: value for key in OperatingPoint.model_fields if isinstance(value := getattr(point, key), Figure)
    }
