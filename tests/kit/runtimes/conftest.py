"""The kit's runtimes, imported as the program imports them: `runtimes` is a package beside run.py."""

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from edgekd.shipped import shipped


@pytest.fixture
def kit_module() -> Iterator[Callable[[str], ModuleType]]:
    """Imports `runtimes.NAME` of the kit; all of the kit's are forgotten again afterwards."""
    folder = str(shipped("export", "kit"))
    before = {name for name in sys.modules if name.split(".")[0] == "runtimes"}
    sys.path.insert(0, folder)
    try:
        yield lambda name: importlib.import_module(f"runtimes.{name}")
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split(".")[0] == "runtimes" and name not in before]:
            del sys.modules[name]
