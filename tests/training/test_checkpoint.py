"""Checkpoints: whole or passed over, of this training or passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.training.checkpoint import Checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    found = Checkpoints(tmp_path, form="a")
    for epoch in (1, 2, 3):
        found.save(epoch, {"epoch": epoch, "network": {"w": torch.full((2,), float(epoch))}})
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def epoch_of(state: dict[str, object] | None) -> object:
    return state and state["epoch"]


def test_the_newest_is_taken_and_two_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    warnings: list[str] = []
    state = checkpoints.latest(warnings.append)
    assert state is not None
    assert state["epoch"] == 3
    assert state["network"]["w"].tolist() == [3.0, 3.0]
    assert warnings == []
    assert [path.name[:10] for path in files(tmp_path)] == ["epoch-0002", "epoch-0003"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_one_is_passed_over(checkpoints: Checkpoints, tmp_path: Path, damage: str) -> None:
    newest = files(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": content[:100], "flip": content, "empty": b""}[damage])
    warnings: list[str] = []
    assert epoch_of(checkpoints.latest(warnings.append)) == 2
    assert warnings == [f"{newest.name} is damaged; trying the checkpoint before it"]


def test_all_damaged_is_none(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for path in files(tmp_path):
        path.write_bytes(b"x")
    warnings: list[str] = []
    assert checkpoints.latest(warnings.append) is None
    assert len(warnings) == 2


def test_another_training_is_not_taken_up(checkpoints: Checkpoints, tmp_path: Path) -> None:
    warnings: list[str] = []
    assert Checkpoints(tmp_path, form="b").latest(warnings.append) is None
    assert warnings[0].endswith("belongs to another training; trying the checkpoint before it")


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", form="a").latest(pytest.fail) is None


def test_leftovers_of_a_killed_writer_are_ignored(checkpoints: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / ".epoch-0004-0123456789abcdef.pt.x1.part").write_bytes(b"half")
    assert epoch_of(checkpoints.latest(pytest.fail)) == 3
