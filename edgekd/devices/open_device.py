"""From an address to the device that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import assert_never

from edgekd.devices.adb import AdbChannel
from edgekd.devices.address import Address, parse_address
from edgekd.devices.channel import Channel
from edgekd.devices.device import Device
from edgekd.devices.local import LocalDevice
from edgekd.devices.remote import RemoteDevice
from edgekd.devices.ssh import SshChannel
from edgekd.errors import UsageError


@contextmanager
def open_device(address: str, *, on_event: Callable[[str], None] = lambda line: None) -> Iterator[Device]:
    """The device at an address, closed at the end of the block.

    `on_event` hears of connections that are made anew.

    Raises:
        UsageError: the address is none.
    """
    device = _device(parse_address(address), on_event)
    try:
        yield device
    finally:
        device.close()


@contextmanager
def open_board(address: str) -> Iterator[RemoteDevice]:
    """The board at an address, for what is asked of boards alone; closed at the end of the block.

    Raises:
        UsageError: the address is none, or is `local`.
    """
    place = parse_address(address)
    if place.kind == "local":
        raise UsageError(
            "`local` keeps nothing and has no lock", hint="name a board: ssh://HOST or adb:SERIAL"
        )
    board = RemoteDevice(_channel(place), python=place.python, folder=place.folder)
    try:
        yield board
    finally:
        board.close()


def _device(address: Address, on_event: Callable[[str], None]) -> Device:
    if address.kind == "local":
        return LocalDevice()
    return RemoteDevice(_channel(address), python=address.python, folder=address.folder, on_event=on_event)


def _channel(address: Address) -> Channel:
    match address.kind:
        case "ssh":
            return SshChannel(address)
        case "adb":
            return AdbChannel(address)
        case "local":
            raise AssertionError("the machine at hand needs no channel")
        case _:
            assert_never(address.kind)
