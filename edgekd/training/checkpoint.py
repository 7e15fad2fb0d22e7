"""Checkpoints that are either whole or not there, each under a name that carries its digest.

    epoch-0003-1f0c9a62d4b7e855.pt     16 hex digits of the content's sha256

The last two are kept: when the newer one is damaged, the older one is taken. They hold tensors and plain
values and are read with weights_only=True, so that a file from elsewhere cannot run code.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from edgekd.files import sha256_bytes, write_bytes

_NAME = re.compile(r"^epoch-(\d+)-([0-9a-f]{16})\.pt$")
_KEPT = 2


class Checkpoints:
    """The checkpoints of one training in a folder of its own.

    `form` is a digest of what the training is; a checkpoint of another form is not taken up.
    """

    def __init__(self, folder: Path, *, form: str) -> None:
        self._folder = folder
        self._form = form

    def save(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Write the state after `epoch`, then drop all but the last two.

        Raises:
            StorageError: the disk is full or the folder is not writable.
        """
        buffer = io.BytesIO()
        torch.save({"form": self._form, **state}, buffer)
        content = buffer.getvalue()
        write_bytes(self._folder / f"epoch-{epoch:04d}-{sha256_bytes(content)[:16]}.pt", content)
        for path in self._paths()[_KEPT:]:
            path.unlink(missing_ok=True)

    def latest(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest sound state of this form; each file that had to be passed over is told to `warn`."""
        for path in self._paths():
            content = path.read_bytes()
            if not path.name.endswith(f"-{sha256_bytes(content)[:16]}.pt"):
                warn(f"{path.name} is damaged; trying the checkpoint before it")
                continue
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if state.pop("form") == self._form:
                return state
            warn(f"{path.name} belongs to another training; trying the checkpoint before it")
        return None

    def _paths(self) -> list[Path]:
        """Newest first."""
        found = [(match, path) for path in self._folder.glob("*.pt") if (match := _NAME.match(path.name))]
        return [path for match, path in sorted(found, key=lambda pair: int(pair[0][1]), reverse=True)]
