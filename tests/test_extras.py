"""What is not installed is named, with the line that installs it."""

from __future__ import annotations

import sys

import pytest

from edgekd.errors import MissingError
from edgekd.extras import install_line, is_installed, require


def test_what_is_installed_is_found_without_an_import() -> None:
    assert is_installed("turtledemo")
    assert "turtledemo" not in sys.modules
    require("turtledemo", extra="train", for_what="drawing")


def test_what_is_missing_is_named_with_its_line() -> None:
    with pytest.raises(MissingError) as caught:
        require("no_such_module", extra="train", for_what="training")
    assert str(caught.value) == (
        "training needs no_such_module, which is not installed\n  try: pip install 'edgekd[train]'"
    )
    assert caught.value.exit_code == 3


def test_install_line() -> None:
    assert install_line("tensorrt-rtx") == "pip install 'edgekd[tensorrt-rtx]'"
