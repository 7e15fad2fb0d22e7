"""What adb says when there is no board to talk to, told by a stand-in that says it."""

from __future__ import annotations

import shlex
import sys

import pytest

from edgekd.devices.adb import AdbChannel
from edgekd.devices.address import parse_address
from edgekd.devices.channel import DroppedError, UnreachableError
from edgekd.errors import DeviceError, MissingError

REFUSED = "error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set"
NO_RULE = "error: insufficient permissions for device: user in plugdev group; are your udev rules wrong?"
STARTS = "* daemon not running; starting now at tcp:5037\n* daemon started successfully\n"


@pytest.mark.parametrize(
    ("code", "said", "kind", "message"),
    [
        (
            1,
            f"{STARTS}error: device 'board-7' not found",
            UnreachableError,
            "adb does not see it\n"
            "  try: adb devices -l shows what it sees; adb connect HOST:PORT for a network",
        ),
        (
            1,
            "error: device offline",
            UnreachableError,
            "it is offline\n  try: unplug it and plug it in again, or adb reconnect",
        ),
        (
            1,
            REFUSED,
            DeviceError,
            "it refuses this machine's key\n  try: accept the question that the board shows on its screen",
        ),
        (
            1,
            NO_RULE,
            DeviceError,
            "this user may not use its USB port\n  try: add a udev rule for it, or use adb tcpip",
        ),
        (
            1,
            "error: more than one device/emulator",
            DeviceError,
            "adb sees more than one device\n  try: name one: adb:SERIAL (adb devices -l)",
        ),
        (1, "error: closed", DroppedError, "the connection was lost: error: closed"),
        (
            127,
            "sh: python3: inaccessible or not found",
            DeviceError,
            "there is no python3 on the board: sh: python3: inaccessible or not found\n"
            "  try: edgekd needs a system with python3 behind adb; a plain Android has none",
        ),
        (
            1,
            "FileNotFoundError: x not found",
            DeviceError,
            "python3 on the board ended with exit code 1: FileNotFoundError: x not found\n"
            "  try: python3 of 3.8 or newer is needed there",
        ),
    ],
)
def test_what_adb_says(tmp_path, monkeypatch, code, said, kind, message):
    program = tmp_path / "adb.py"
    program.write_text(f"import sys\nprint({said!r}, file=sys.stderr)\nsys.exit({code})\n")
    monkeypatch.setenv("EDGEKD_ADB", shlex.join([sys.executable, str(program)]))
    with pytest.raises(DeviceError) as caught:
        AdbChannel(parse_address("adb:board-7")).send(b"", (), timeout_s=20)
    assert type(caught.value) is kind
    assert str(caught.value) == f"adb:board-7: {message}"


def test_no_adb_here(monkeypatch):
    monkeypatch.setenv("EDGEKD_ADB", "no-such-adb")
    with pytest.raises(MissingError) as caught:
        AdbChannel(parse_address("adb:board-7")).send(b"", (), timeout_s=20)
    assert str(caught.value) == "there is no program no-such-adb\n  try: install it: apt install no-such-adb"


def test_an_adb_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_ADB", shlex.join([sys.executable, "-c", "import time; time.sleep(60)"]))
    with pytest.raises(DroppedError) as caught:
        AdbChannel(parse_address("adb:board-7")).send(b"", (), timeout_s=0.6)
    assert str(caught.value) == "adb:board-7: no answer within 1 s\n  try: adb devices -l"
