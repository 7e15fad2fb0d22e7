"""Modules of the kit, loaded from their files: the kit is a program, not a package."""

import importlib.util
import sys
from types import ModuleType

import pytest

from edgekd.shipped import shipped


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"kit_{name}", shipped("export", "kit", f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(shipped("export", "kit")))  # as for the program run.py
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


@pytest.fixture(scope="session")
def facts() -> ModuleType:
    return _load("facts")


@pytest.fixture(scope="session")
def timing() -> ModuleType:
    return _load("timing")
