"""`edgekd devices unlock` and `clean`: what a board keeps of edgekd, and who measures on it."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.devices.open_device import open_board

Address = Annotated[str, typer.Argument(help="ssh://[USER@]HOST[:PORT] or adb:SERIAL.")]


def unlock(address: Address) -> None:
    """End the session that holds a board's lock, and what it left running there."""
    with open_board(address) as board:
        owner = board.unlock()
    screen.show(f"{address}: nobody held it" if owner is None else f"{address}: taken from {owner}")


def clean(address: Address) -> None:
    """Remove all that edgekd keeps on a board: graphs, engines, jobs. Not while somebody measures there."""
    with open_board(address) as board:
        root = board.clean()
    screen.show(f"{address}: {root} is gone")
