"""Modules of the kit, imported flat as its program does: the kit is a program, not a package."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgekd.shipped import shipped

sys.path.append(str(shipped("export", "kit")))  # last, so that none of its names hides another module
RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    """What a tool or a file of a real device said."""
    return (RECORDED / name).read_text()


def make_tree(root: Path, files: dict[str, str]) -> str:
    """Files below `root`, in place of the device's /proc, /sys and /etc."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def recorded_tree(root: Path, name: str) -> str:
    """The files of a recording whose lines are `path:contents`, as `grep -r .` prints them."""
    pairs = (
        line.split(":::", 1) for line in recorded(name).splitlines() if line and not line.startswith("#")
    )
    return make_tree(root, {path: text + "\n" for path, text in pairs})


def kit_module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def facts() -> ModuleType:
    return kit_module("facts")


@pytest.fixture(scope="session")
def timing() -> ModuleType:
    return kit_module("timing")


@pytest.fixture(scope="session")
def reading() -> ModuleType:
    return kit_module("reading")


@pytest.fixture(scope="session")
def sensors() -> ModuleType:
    return kit_module("sensors")


@pytest.fixture(scope="session")
def jetson() -> ModuleType:
    return kit_module("jetson")


@pytest.fixture(scope="session")
def nvml() -> ModuleType:
    return kit_module("nvml")


@pytest.fixture(scope="session")
def energy() -> ModuleType:
    return kit_module("energy")


@pytest.fixture(scope="session")
def memory() -> ModuleType:
    return kit_module("memory")


@pytest.fixture(scope="session")
def looks() -> ModuleType:
    return kit_module("looks")


@pytest.fixture(scope="session")
def watch() -> ModuleType:
    return kit_module("watch")


@pytest.fixture(scope="session")
def environment() -> ModuleType:
    return kit_module("environment")
