"""What `edgekd devices` prints: rows of tables, from profiles, facts and probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgekd.devices.isa import INT8_MEANING, int8_instruction
from edgekd.devices.matching import machine_name
from edgekd.devices.probe import Probe
from edgekd.devices.profiles import default_point
from edgekd.documents.profile import Figure, Npu, OperatingPoint, Profile
from edgekd.documents.run_log import Facts
from edgekd.units import format_bytes

LIST_COLUMNS = ("name", "kind", "int8", "SM", "memory", "peak int8", "runtimes")


def list_row(profile: Profile) -> tuple[str, ...]:
    """A profile in the table of all."""
    return (
        profile.id,
        profile.kind,
        "-" if profile.cpu is None else profile.cpu.int8,
        "-" if profile.gpu is None else str(profile.gpu.sm),
        "-" if profile.memory_bytes is None else format_bytes(int(profile.memory_bytes.value)),
        _peak(profile),
        ", ".join(one.runtime for one in profile.runtimes),
    )


def profile_facts(profile: Profile) -> list[tuple[str, str]]:
    """What a profile says that is no number."""
    cpu, gpu, detect = profile.cpu, profile.gpu, profile.detect
    facts = [
        ("kind", profile.kind),
        ("aliases", ", ".join(profile.aliases)),
        ("cpu", "" if cpu is None else f"{cpu.name}; int8 by {cpu.int8}"),
        ("gpu", "" if gpu is None else f"{gpu.name}; SM {gpu.sm}"),
        ("npu", "" if profile.npu is None else _npu(profile.npu)),
        ("operating points", ", ".join(map(_marked, profile.operating_points.items()))),
        *(("runtime", f"{one.runtime} {one.versions}".strip()) for one in profile.runtimes),
        ("machine", " or ".join(detect.machine)),
        ("must report", ", ".join(detect.isa)),
        ("must report one of", ", ".join(detect.isa_any)),
        ("must not report", ", ".join(detect.isa_absent)),
        ("board", " or ".join(detect.boards())),
        ("processor", " or ".join(detect.cpu)),
        ("gpu reported as", detect.gpu or ""),
        ("least memory", "" if detect.min_memory_bytes is None else format_bytes(detect.min_memory_bytes)),
    ]
    return [(key, value) for key, value in facts if value]


def profile_figures(profile: Profile, only: str | None) -> list[tuple[str, str, str, str]]:
    """Every number of a profile, or of one operating point, with its source."""
    parts: dict[str, Figure | None] = {}
    if only is None:
        parts["cpu.cores"] = None if profile.cpu is None else profile.cpu.cores
        parts["gpu.sm_count"] = None if profile.gpu is None else profile.gpu.sm_count
        parts["npu.int8_tops"] = None if profile.npu is None else profile.npu.int8_tops
        parts["memory_bytes"] = profile.memory_bytes
    for name, point in profile.operating_points.items():
        if only in (None, name):
            parts |= {f"{name}: {key}": figure for key, figure in _point_figures(point).items()}
    return [
        (key, _number(figure.value), figure.provenance, figure.source)
        for key, figure in parts.items()
        if figure is not None
    ]


def point_descriptions(profile: Profile, only: str | None) -> list[tuple[str, str]]:
    """Each operating point, or one, with what sets it."""
    return [
        (_marked((name, point)), point.description)
        for name, point in profile.operating_points.items()
        if only in (None, name)
    ]


def machine_rows(facts: Facts) -> Iterator[tuple[str, str]]:
    """What a machine says of itself, as far as profiles care."""
    yield "cpu", f"{facts.cpu or 'unknown'} ({facts.machine}), {facts.cores} processors"
    if facts.board:
        yield "board", facts.board
    yield "isa", ", ".join(facts.isa) or "none that matters here"
    yield "int8", INT8_MEANING[int8_instruction(facts.isa)]
    if facts.memory_bytes is not None:
        yield "memory", format_bytes(facts.memory_bytes)
    yield "gpu", ", ".join(facts.gpus) or "none"
    if facts.power_mode:
        yield "power mode", facts.power_mode
    if facts.cpu_max_mhz is not None:
        yield "highest clock", f"{facts.cpu_max_mhz:g} MHz"


def verdict(found: Probe) -> str:
    """What a machine is, in a line."""
    here = machine_name(found.facts)
    if found.profile is None:
        return f"{here} matches no profile; the profile 'local' takes it as it is"
    at = f"@{found.point}" if found.point else ""
    also = f"; also of {', '.join(one.id for one in found.also)}" if found.also else ""
    return f"{here} is the device of the profile {found.profile.id}{at}{also}"


def probe_data(found: Probe) -> Mapping[str, object]:
    """A probe as JSON."""
    return {
        "profile": None if found.profile is None else found.profile.id,
        "operating_point": found.point,
        "operating_point_mismatches": list(found.point_differences),
        "also": [one.id for one in found.also],
        "unknown_gpus": list(found.unknown_gpus),
        "nearest": [
            {"profile": one.profile.id, "mismatches": list(one.differences)} for one in found.nearest
        ],
        "facts": found.facts.model_dump(mode="json"),
    }


def _peak(profile: Profile) -> str:
    """The peak of the default operating point."""
    name = default_point(profile)
    point = None if name is None else profile.operating_points[name]
    if point is None or point.int8_tops is None:
        return "-"
    each = " a core and GHz" if point.unit else ""
    return f"{_number(point.int8_tops.value)} TOPS{each}"


def _npu(npu: Npu) -> str:
    reached = f"reached by {', '.join(npu.runtimes)}" if npu.runtimes else "no runtime of edgekd reaches it"
    return "; ".join(filter(None, (npu.name, reached, npu.note)))


def _marked(point: tuple[str, OperatingPoint]) -> str:
    return f"{point[0]} (default)" if point[1].default else point[0]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:g}"


def _point_figures(point: OperatingPoint) -> dict[str, Figure | None]:
    return {
        key: value for key in OperatingPoint.model_fields if isinstance(value := getattr(point, key), Figure)
    }
