"""`edgekd doctor`: what this machine can do, what is missing, and how to get it. No torch is imported."""

from __future__ import annotations

import dataclasses
import importlib
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated

import typer

from edgekd import __version__
from edgekd.cli import screen
from edgekd.devices.isa import INT8_MEANING, int8_instruction, int8_warning
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import best_match, list_profiles, local_profile
from edgekd.documents.run_log import Facts
from edgekd.errors import EdgekdError, MissingError
from edgekd.extras import install_line, is_installed
from edgekd.units import format_bytes

app = typer.Typer(rich_markup_mode=None, add_completion=False)

PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "lightning-fabric",
    "timm",
    "tensorrt",
    "tensorrt-rtx",
    "torch-tensorrt",
    "openvino",
)

EXTRAS = {
    "train": (
        ("torch", "lightning_fabric", "sklearn", "safetensors", "onnxscript", "matplotlib"),
        "compress, distill, quantize, compare",
    ),
    "timm": (("timm",), "networks of timm"),
    "tensorrt": (("tensorrt",), "TensorRT on this machine's GPU"),
    "tensorrt-rtx": (("tensorrt_rtx",), "engines built without a GPU"),
    "openvino": (("openvino",), "bench --runtime openvino"),
    "plot": (("matplotlib",), "the plots of bench --out"),
}
"""Extra -> the modules that it brings, and what they are for."""
PROGRAMS = ("ssh", "adb")
"""What reaches a board."""


@dataclass(frozen=True)
class Examination:
    """What was found; `problems` are what keeps bench, gate and audit from running."""

    versions: dict[str, str | None]
    providers: tuple[str, ...]
    reaches: tuple[str, ...]
    """Programs that reach a board."""
    cuda: str | None
    facts: Facts | None
    int8: str | None
    profile: str | None
    missing: dict[str, str]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine can do, and what is missing.

    Exit codes: 0 bench, gate and audit can run here; 3 they cannot.
    """
    found = examine()
    if as_json:
        facts = None if found.facts is None else found.facts.model_dump(mode="json")
        screen.show_json({**dataclasses.asdict(found), "facts": facts})
    else:
        _show(found)
    if found.problems:
        raise typer.Exit(MissingError.exit_code)


def examine() -> Examination:
    """Look at what is installed and at the machine."""
    providers, runtime_problem = _providers()
    facts, facts_problem = _facts()
    profiles = [one.profile for one in list_profiles() if one.profile is not None]
    match = None if facts is None else best_match(facts, profiles)
    return Examination(
        versions={
            "edgekd": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in PACKAGES},
        },
        providers=providers,
        reaches=tuple(name for name in PROGRAMS if shutil.which(name) is not None),
        cuda=_cuda(),
        facts=facts,
        int8=None if facts is None else INT8_MEANING[int8_instruction(facts.isa)],
        profile=None if match is None else match.id,
        missing=_missing(),
        warnings=() if facts is None else tuple(_warnings(facts)),
        problems=tuple(problem for problem in (runtime_problem, facts_problem) if problem),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> tuple[tuple[str, ...], str | None]:
    """Execution providers of ONNX Runtime, or why it cannot be loaded."""
    try:
        return tuple(importlib.import_module("onnxruntime").get_available_providers()), None
    except ImportError as error:
        return (), f"onnxruntime cannot be loaded: {error}; pip install onnxruntime"


def _facts() -> tuple[Facts | None, str | None]:
    """What the kit says of this machine, or why it does not."""
    try:
        return LocalDevice().facts("onnxruntime"), None
    except EdgekdError as error:
        return None, f"the kit cannot run here: {error}"


def _cuda() -> str | None:
    """The newest CUDA that the NVIDIA driver supports, from the banner of nvidia-smi; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"CUDA Version:\s*([\d.]+)", done.stdout)
    return found.group(1) if found else None


def _missing() -> dict[str, str]:
    """Extra -> what it is for and the line that installs it, where a module of it is not installed."""
    return {
        extra: f"{purpose}: {install_line(extra)}"
        for extra, (modules, purpose) in EXTRAS.items()
        if not all(is_installed(module) for module in modules)
    }


def _warnings(facts: Facts) -> Iterator[str]:
    """What makes latencies of this machine less certain, and why int8 may not pay on it."""
    if facts.governor not in (None, "performance"):
        yield f"the frequency governor is {facts.governor}: clocks move; performance holds them"
    if facts.cgroup_cpus is not None and facts.cgroup_cpus < facts.cores:
        yield f"a quota of {facts.cgroup_cpus:g} processors holds here: threads beyond it are paused"
    if facts.hypervisor:
        yield "the machine is virtual: other guests can take its time (steal)"
    if (line := int8_warning(local_profile(facts), "onnxruntime")) is not None:
        yield line


def _show(found: Examination) -> None:
    screen.show_table(("package", "version"), [(name, text or "-") for name, text in found.versions.items()])
    screen.show()
    screen.show_table(("machine", ""), list(_machine(found)))
    if found.missing:
        screen.show()
        screen.show_table(("missing extra", "for"), list(found.missing.items()))
    for line in found.warnings:
        screen.warning(line)
    for line in found.problems:
        screen.error(line)
    if not found.problems:
        screen.show("\nbench, gate and audit can run here")


def _machine(found: Examination) -> Iterator[tuple[str, str]]:
    if (facts := found.facts) is not None:
        yield "cpu", f"{facts.cpu or 'unknown'} ({facts.machine}), {facts.cores} processors"
        yield "isa", ", ".join(facts.isa) or "none that matters here"
        if facts.board:
            yield "board", facts.board
        if facts.memory_bytes is not None:
            yield "memory", format_bytes(facts.memory_bytes)
        yield "int8", str(found.int8)
        yield "profile", found.profile or 'none matches; profile = "local" takes the machine as it is'
        yield "gpu", ", ".join(facts.gpus) or "none"
    if found.cuda:
        yield "cuda", f"{found.cuda} by the driver"
    yield "providers", ", ".join(found.providers) or "none"
    yield "boards", f"by {', '.join(found.reaches)}" if found.reaches else "none: apt install openssh-client"
