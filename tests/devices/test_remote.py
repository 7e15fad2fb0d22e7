"""A job on a board whose connection is cut, whose replies are damaged, and which is not what it should be."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.devices.channel import DroppedError, UnreachableError
from edgekd.devices.remote import RemoteDevice
from edgekd.errors import DeviceError
from tests.devices.boards import (
    NOTHING,
    Board,
    HereChannel,
    Wrapped,
    job_of,
    kept_on,
    nothing_happens,
    processes_of,
    pulled,
    text_of,
)

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not LINUX, reason="processes are looked up in /proc")

REQUESTS = ("start", "put", "start", "wait", "unlock")
"""What a device asks for its first job and at its close."""


def test_two_requests_a_job_and_what_is_there_is_not_sent_again(board):
    device = board.device()
    device.run(job_of(board.folder), timeout_s=20)
    assert board.asked() == ["start", "put", "start", "wait"]
    sent = board.channel.sent_bytes
    assert sent == sum(path.stat().st_size for path in [*board.kit.iterdir(), board.folder / "g.onnx"]) + len(
        "some inputs"
    )
    device.run(job_of(board.folder), timeout_s=20)
    device.close()
    assert board.asked() == [*REQUESTS[:4], "start", "wait", "unlock"]
    assert board.channel.sent_bytes == sent
    assert (board.count(), kept_on(board.place)) == (2, NOTHING)


def test_only_what_changed_is_sent(board):
    board.once(nothing_happens)
    job = job_of(board.folder)
    (board.folder / "g.onnx").write_bytes(b"another graph")
    device = board.device()
    device.run(job, timeout_s=20)
    device.close()
    assert board.channel.sent_bytes == len(b"another graph")


def test_a_file_that_was_damaged_on_the_board_is_sent_again(board):
    board.once(nothing_happens)
    (stored,) = [path for path in (board.place / "store").iterdir() if path.read_bytes() == b"a graph"]
    stored.write_bytes(b"b graph")
    board.once(nothing_happens)
    assert (board.channel.sent_bytes, stored.read_bytes()) == (len(b"a graph"), b"a graph")


def test_large_files_are_sent_one_by_one(board):
    job = job_of(board.folder)
    (board.folder / "g.onnx").write_bytes(b"g" * (2**20 + 1))
    (board.folder / "x.npy").write_bytes(b"x" * (2**20 + 2))
    device = board.device()
    device.run(job, timeout_s=20)
    device.close()
    assert board.asked() == ["start", "put", "put", "put", "start", "wait", "unlock"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, len(REQUESTS)))
def test_the_plug_is_pulled_at_any_request(board, at, when):
    log = board.once(pulled(at, when), mode="latency")
    assert (log.mode, log.graphs[0].latency_ns, board.count()) == ("latency", (3,), 1)
    expected = list(REQUESTS[:at]) + list(REQUESTS[at - 1 :])
    if (at, when) == (1, "before"):
        expected[1:2] = ["start"]
    assert board.asked() == expected
    assert board.events == ["ssh://here: the plug was pulled; it is tried again"]
    assert kept_on(board.place) == NOTHING


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(1, 4), share=st.floats(0, 1, exclude_max=True))
def test_a_reply_that_is_cut_off_anywhere_is_asked_for_again(tmp_path_factory, at, share):
    board = Board(tmp_path_factory.mktemp("cut"))

    def cut(number: int, reply: bytes | None) -> bytes | None:
        return reply[: int(share * len(reply))] if reply is not None and number == at else None

    log = board.once(cut)
    assert (log.graphs[0].name, board.count(), kept_on(board.place)) == ("student", 1, NOTHING)
    assert board.events == ["ssh://here: the reply was cut off; it is tried again"]


def test_what_a_login_shell_prints_before_the_reply_is_skipped(board):
    banner = b"\x1b[31mWelcome!\nedgekd-1234 77\n{}\n" + bytes(range(256)) * 1000
    board.once(lambda number, reply: None if reply is None else banner + reply + b"\nlogout\n")
    assert board.events == []


def test_a_login_shell_that_prints_without_end_is_refused(board):
    device = board.device(lambda number, reply: b"y\n" * 2**20 + (reply or b""), reconnect_s=0)
    assert text_of(DroppedError, device, job_of(board.folder)).startswith("ssh://here: the reply was cut off")
    device.close()


def test_a_board_that_was_never_reached_is_not_tried_again(board):
    def away(number: int, reply: bytes | None) -> None:
        raise UnreachableError("it refuses connections", where="ssh://here", hint="start sshd there")

    device = board.device(away)
    message = "ssh://here: it refuses connections\n  try: start sshd there"
    assert text_of(UnreachableError, device, job_of(board.folder)) == message
    device.close()
    assert (board.asked(), board.events) == (["start"], [])


def test_a_board_that_stays_away_is_given_up_after_a_while(board):
    def away(number: int, reply: bytes | None) -> None:
        if number > 2:
            raise UnreachableError("it does not answer", where="ssh://here", hint="ping here")

    device = board.device(away, reconnect_s=0.5)
    message = "ssh://here: it does not answer; it was tried again for 0.5 s\n  try: ping here"
    assert text_of(DroppedError, device, job_of(board.folder)) == message
    device.close()
    assert board.events == ["ssh://here: it does not answer; it is tried again"]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_interrupted_job_is_ended_on_the_board(tmp_path, at):
    board = Board(tmp_path, "time.sleep(60)")

    def interrupt(number: int, reply: bytes | None) -> None:
        if number == at and (reply is not None or at == 4):
            raise KeyboardInterrupt

    device = board.device(interrupt)
    with pytest.raises(KeyboardInterrupt):
        device.run(job_of(board.folder), timeout_s=60)
    device.close()
    assert kept_on(board.place) == NOTHING


def test_a_second_interrupt_still_ends_the_connection(board):
    def interrupt(number: int, reply: bytes | None) -> None:
        if number > 3:
            raise KeyboardInterrupt

    device = board.device(interrupt)
    with pytest.raises(KeyboardInterrupt):
        device.run(job_of(board.folder), timeout_s=20)
    with pytest.raises(KeyboardInterrupt):
        device.close()
    assert board.channel._channel.closed == 1
    board.device().unlock()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("started.json", "the board was started anew in the middle"),
        ("gone", "another session ended it, or its folder was removed"),
        ("killed", "its supervisor died: it said nothing"),
    ],
)
def test_a_job_that_is_lost(tmp_path, change, reason):
    board = Board(tmp_path, "time.sleep(60)")

    def lose(number: int, reply: bytes | None) -> None:
        if number != 4 or reply is not None:
            return
        (job,) = (board.place / "jobs").iterdir()
        if change == "started.json":
            (job / change).write_text('{"boot": "another"}')
        elif change == "gone":
            board.device().unlock()
        else:
            while not (job / "kit.json").exists():  # a stand-in that nobody knows would stay
                time.sleep(0.02)
            os.kill(json.loads((job / "supervisor.json").read_text())["pid"], signal.SIGKILL)

    channel = Wrapped(HereChannel(), lose)
    device = RemoteDevice(channel, kit=board.kit, folder=str(board.place))
    assert text_of(DeviceError, device, job_of(board.folder)) == (
        f"ssh://here: the job was lost: {reason}\n  try: look at the board, then run it again"
    )
    device.close()
    assert kept_on(board.place) == NOTHING


def test_the_board_ends_a_job_that_no_host_asks_for(tmp_path):
    board = Board(tmp_path, "time.sleep(60)")
    device = board.device(lease_s=0.3)
    device._link._channel = Wrapped(HereChannel(), lambda number, _: time.sleep(number == 5))
    assert text_of(DeviceError, device, job_of(board.folder)) == (
        "ssh://here: the board ended the job: it had not heard of this machine for too long\n"
        "  try: look at the connection, then run it again"
    )
    device.close()
    assert kept_on(board.place) == NOTHING


def test_a_job_longer_than_the_lease_goes_on_while_the_host_asks(tmp_path):
    board = Board(tmp_path, "time.sleep(3)\nwrite()")
    device = board.device(lease_s=1.5)
    device.run(job_of(board.folder), timeout_s=20)
    device.close()
    assert board.asked().count("wait") > 2


def test_a_board_that_is_taken(board):
    first, second = board.device(), board.device()
    first.run(job_of(board.folder), timeout_s=20)
    text = text_of(DeviceError, second, job_of(board.folder))
    second.close()
    assert re.fullmatch(
        r"ssh://here: it is measured by \S+ at \S+, process \d+, for (299|300) s more at most\n"
        r"  try: wait, or `edgekd devices unlock ADDRESS` if that session is gone",
        text,
    )
    first.run(job_of(board.folder), timeout_s=20)
    first.close()
    third = board.device()
    third.run(job_of(board.folder), timeout_s=20)
    third.close()


def test_unlock_and_clean(board):
    first, second = board.device(), board.device()
    assert second.unlock() is None
    first.run(job_of(board.folder), timeout_s=20)
    with pytest.raises(DeviceError, match=r"^ssh://here: it is measured by .*\n  try: wait, or"):
        second.clean()
    owner = second.unlock()
    assert owner is not None
    assert owner.endswith(f", process {os.getpid()}")
    (board.place / "my own file.txt").write_text("keep me")
    assert second.clean() == str(board.place)
    assert [path.name for path in board.place.iterdir()] == ["my own file.txt"]
    (board.place / "my own file.txt").unlink()
    second.clean()
    assert not board.place.exists()


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (
            "/no/such/python",
            "ssh://here: there is no program /no/such/python\n"
            "  try: name the Python there that has the runtime: ADDRESS?python=PATH",
        ),
        (
            "~/no such",
            "ssh://here: there is no program ~/no such\n"
            "  try: name the Python there that has the runtime: ADDRESS?python=PATH",
        ),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_a_wrong_python(board, python, message, known):
    if known:
        board.once(nothing_happens)
    device = board.device(python=python)
    assert text_of(DeviceError, device, job_of(board.folder)) == message
    device.close()
    assert kept_on(board.place) == NOTHING


def test_a_python_of_another_architecture(board):
    wrong = board.folder / "python"
    wrong.write_bytes(b"\x7fELF of another machine")
    wrong.chmod(0o755)
    device = board.device(python=str(wrong))
    assert text_of(DeviceError, device, job_of(board.folder)) == (
        "ssh://here: the job was lost: its supervisor died: "
        f"OSError: [Errno 8] Exec format error: '{wrong}'\n"
        "  try: look at the board, then run it again"
    )
    device.close()
    assert kept_on(board.place) == NOTHING


def test_a_python_below_the_home_folder(board, monkeypatch):
    monkeypatch.setenv("HOME", str(board.folder))
    (board.folder / "my env").mkdir()
    (board.folder / "my env" / "py").symlink_to(sys.executable)
    device = board.device(python="~/my env/py", folder="~/a folder")
    device.run(job_of(board.folder), timeout_s=20)
    device.close()
    assert kept_on(board.folder / "a folder") == NOTHING


def test_a_folder_that_cannot_be_written(board):
    (board.folder / "a file").write_text("")
    device = board.device(folder=str(board.folder / "a file" / "x"))
    assert text_of(DeviceError, device, job_of(board.folder)) == (
        f"ssh://here: no folder can be written: [Errno 20] Not a directory: '{board.folder}/a file/x'\n"
        "  try: name a folder that can be written there: ADDRESS?folder=PATH"
    )


def test_a_board_that_keeps_nothing(board):
    def forget(number: int, reply: bytes | None) -> None:
        for path in (board.place / "store").glob("*"):
            path.unlink()

    device = board.device(forget)
    assert text_of(DeviceError, device, job_of(board.folder)) == (
        "ssh://here: the board does not keep what it is sent\n  try: look at its disk"
    )
    device.close()
    assert board.asked() == ["start", "put", "start", "put", "start", "unlock"]


def test_many_jobs_leave_nothing(board):
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    device = board.device()
    for _ in range(10):
        device.run(job_of(board.folder), timeout_s=20)
    device.close()
    assert (board.count(), kept_on(board.place)) == (10, NOTHING)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    assert processes_of(str(board.folder)) == []
