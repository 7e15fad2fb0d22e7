"""A real sshd for the tests of a whole process, and a board without a connection between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.boards import Board
from tests.devices.sshd import WHY_NOT, Sshd, is_installed


@pytest.fixture(autouse=True)
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boards of tests that run side by side are machines of their own."""
    monkeypatch.setenv("EDGEKD_BUSY", str(tmp_path / "busy"))


@pytest.fixture(scope="session")
def shared_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd that nobody cuts."""
    if not is_installed():
        pytest.skip(WHY_NOT)
    sshd = Sshd(tmp_path_factory.mktemp("an sshd"))
    sshd.start()
    yield sshd
    sshd.stop()


@pytest.fixture
def sshd(shared_sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """The same, as the one that edgekd's ssh reaches."""
    monkeypatch.setenv("EDGEKD_SSH", shared_sshd.command)
    return shared_sshd


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board in a folder, whose kit writes a log at once."""
    return Board(tmp_path)
