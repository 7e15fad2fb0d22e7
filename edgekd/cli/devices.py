"""`edgekd devices`: the device profiles, which of them a machine is, and a profile of a new one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.boards import clean, unlock
from edgekd.cli.calibrate import calibrate
from edgekd.cli.devices_text import (
    LIST_COLUMNS,
    list_row,
    machine_rows,
    point_descriptions,
    probe_data,
    profile_facts,
    profile_figures,
    verdict,
)
from edgekd.cli.options import AsJson
from edgekd.devices.isa import int8_warning
from edgekd.devices.open_device import open_device
from edgekd.devices.probe import Probe
from edgekd.devices.probe import probe as recognize
from edgekd.devices.probe_new import write_new_profile
from edgekd.devices.profiles import (
    LOCAL,
    best_match,
    list_profiles,
    load_profile_at,
    local_profile,
    mismatches,
    point_mismatches,
    profile_folders,
    profile_path,
)
from edgekd.documents.base import nearest
from edgekd.documents.profile import Profile
from edgekd.documents.run_log import Facts
from edgekd.errors import UsageError
from edgekd.files import write_text

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

DIFFERS = 1
"""Exit code of `check` when the machine is not the device."""

Name = Annotated[str, typer.Argument(help="A profile, or NAME@OPERATING_POINT; `local` is this machine.")]
At = Annotated[
    str, typer.Option("--device", help="The machine: `local`, ssh://[USER@]HOST[:PORT] or adb:SERIAL.")
]


@app.callback()
def devices() -> None:
    """List, show and check device profiles, and make new ones."""


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Option(help="Only this kind, such as jetson, x86, arm-board, nvidia-gpu.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every profile, with the peak of its default operating point."""
    listed = list_profiles()
    kinds = sorted({one.profile.kind for one in listed if one.profile is not None})
    if kind is not None and kind not in kinds:
        raise UsageError(
            f"there is no kind '{kind}'{nearest(kind, kinds)}", hint=f"one of {', '.join(kinds)}"
        )
    found = [one for one in listed if kind is None or one.profile is None or one.profile.kind == kind]
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
    rows = [list_row(one.profile) for one in found if one.profile is not None]
    screen.show_table(LIST_COLUMNS, rows, right=("SM", "memory"))
    for one in found:
        if one.problem is not None:
            screen.warning(f"{one.path}: {one.problem}")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what a profile says, each number with its source, and warn where int8 may not pay."""
    profile, point = _load(name)
    only = point if "@" in name else None
    if as_json:
        screen.show_json(_data(profile))
        return
    screen.show(f"{profile.id}: {profile.description}\n")
    screen.show_table(("fact", "value"), profile_facts(profile))
    if points := point_descriptions(profile, only):
        screen.show()
        screen.show_table(("operating point", "what sets it"), points)
    if figures := profile_figures(profile, only):
        screen.show()
        screen.show_table(("number", "value", "provenance", "source"), figures, right=("value",))
    if profile.notes:
        screen.show("\n" + "\n".join(f"- {line}" for line in profile.notes))
    if (line := int8_warning(profile, "onnxruntime")) is not None:
        screen.warning(line)


@app.command()
def check(
    name: Annotated[
        str | None,
        typer.Argument(help="A profile, or NAME@OPERATING_POINT; without it, the one that matches best."),
    ] = None,
    device: At = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Say whether a machine is the device of a profile, and at the operating point that is named.

    Exit codes: 0 it is, 1 it is not.
    """
    facts = _facts_of(device)
    profile, differences = _checked(name, facts)
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
            f"the machine ({_machine(facts)}) matches no profile; the profile 'local' takes it as it is"
        )
    elif matches:
        screen.show(f"the machine ({_machine(facts)}) is the device of the profile {name or profile.id}")
    else:
        head = f"the machine is not the device of the profile {name or profile.id}:"
        screen.show("\n".join((head, *differences)))
    raise typer.Exit(0 if matches else DIFFERS)


@app.command()
def probe(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the machine's facts to this JSON file.")
    ] = None,
    device: At = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Recognize a machine: its profile, or what was found and the nearest profiles."""
    facts = _facts_of(device)
    found = recognize(facts, [one.profile for one in list_profiles() if one.profile is not None])
    if output is not None:
        write_text(output, json.dumps(facts.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")
        screen.note(f"wrote {output}")
    if as_json:
        screen.show_json(probe_data(found))
    else:
        _show_probe(found)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Id of the profile: small letters, digits and hyphens.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file, NAME.toml; else it goes to the user's own profiles."),
    ] = None,
    device: At = LOCAL,
) -> None:
    """Make a profile of a machine; no file is overwritten."""
    path = write_new_profile(name, _facts_of(device), output)
    screen.show(f"{path}\nthe machine is the device of the profile {name}")
    if path.resolve().parent not in [folder.resolve() for folder in profile_folders()]:
        screen.note(f"to use it, name its folder: EDGEKD_PROFILES={path.resolve().parent}")


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


app.command()(calibrate)
app.command()(unlock)
app.command()(clean)


def _facts_of(address: str) -> Facts:
    """What a machine says of itself; the one place of this file that asks it."""
    with open_device(address, on_event=screen.note) as device:
        return device.facts("onnxruntime")


def _load(name: str) -> tuple[Profile, str | None]:
    if name == LOCAL:
        return local_profile(_facts_of(LOCAL)), None
    return load_profile_at(name)


def _checked(name: str | None, facts: Facts) -> tuple[Profile | None, tuple[str, ...]]:
    """The profile that is meant, and what differs from it; of its operating points only a named one."""
    if name is None:
        return best_match(facts, [one.profile for one in list_profiles() if one.profile is not None]), ()
    if name == LOCAL:
        raise UsageError(
            "this machine is always the device of the profile 'local'", hint="edgekd devices show local"
        )
    profile, point = load_profile_at(name)
    differences = mismatches(profile, facts)
    return profile, (*differences, *(point_mismatches(profile, point, facts) if "@" in name else ()))


def _show_probe(found: Probe) -> None:
    screen.show(f"{verdict(found)}\n")
    screen.show_table(("machine", ""), list(machine_rows(found.facts)))
    if found.nearest:
        screen.show()
        rows = [(one.profile.id, line) for one in found.nearest for line in one.differences]
        screen.show_table(("nearest profile", "what differs"), rows)
    if found.nearest or found.unknown_gpus:
        screen.show("\nedgekd devices new NAME makes a profile of this machine")
    for line in (*map(_no_such_gpu, found.unknown_gpus), *found.point_differences):
        screen.warning(line)


def _no_such_gpu(gpu: str) -> str:
    return f"no profile is that of the GPU {gpu}"


def _data(profile: Profile) -> dict[str, object]:
    return profile.model_dump(mode="json", by_alias=True)


def _machine(facts: Facts) -> str:
    return facts.board or facts.cpu or facts.machine
