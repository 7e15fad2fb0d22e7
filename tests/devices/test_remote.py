"""A job on a board whose connection is cut, whose replies are damaged, and which is not what it should be."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.devices.channel import DroppedError, UnreachableError
from edgekd.devices.remote import RemoteDevice
from edgekd.documents.job import Job
from edgekd.documents.run_log import RunLog
from edgekd.errors import DeviceError
from tests.devices.boards import (
    NOTHING,
    HereChannel,
    Wrapped,
    job_of,
    kept_on,
    kit_that,
    processes_of,
    pulled,
)

REQUESTS = ("start", "put", "start", "wait", "unlock")
"""What a device asks for its first job and at its close."""


def nothing_happens(number: int, reply: bytes | None) -> None:
    """Every request is answered."""


class Board:
    """A board in a folder, whose kit counts how often it runs."""

    def __init__(self, folder: Path, does: str = "write()") -> None:
        self.folder, self.place, self.runs = folder, folder / "board", folder / "runs.txt"
        self.kit = kit_that(folder, f"open({str(self.runs)!r}, 'a').write('x')\n{does}")
        self.events: list[str] = []
        self.channel = Wrapped(HereChannel(), nothing_happens)

    def device(
        self, happens: Callable[[int, bytes | None], bytes | None] = nothing_happens, **changes: object
    ) -> RemoteDevice:
        self.channel = Wrapped(HereChannel(), happens)
        whole = {"kit": self.kit, "folder": str(self.place), "reconnect_s": 5, **changes}
        return RemoteDevice(self.channel, on_event=self.events.append, **whole)

    def once(self, happens: Callable[[int, bytes | None], bytes | None], **changes: object) -> RunLog:
        """One job of a device that is closed after it."""
        device = self.device(happens)
        try:
            return device.run(job_of(self.folder, **changes), timeout_s=20)
        finally:
            device.close()

    def count(self) -> int:
        return len(self.runs.read_text())

    def asked(self) -> list[str]:
        return [json.loads(line)["op"] for line in self.channel.requests]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def text_of(error: type[Exception], device: RemoteDevice, job: Job, timeout_s: float = 20) -> str:
    with pytest.raises(error) as caught:
        device.run(job, timeout_s=timeout_s)
    assert type(caught.value) is error
    return str(caught.value)


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


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        r"ssh://here: it is measured by \S+ at \S+, process \d+, for 3(19|20) s more at most\n"
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
        f"ssh://here: the job was lost: its supervisor died: OSError: [Errno 8] Exec format error: '{wrong}'\n"
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


def replace_head(reply: bytes, head: object) -> bytes:
    """A reply of the same mark with another head and no bytes after it."""
    mark = reply.split()[0]
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return b"\n%s %d\n%s" % (mark, len(text), text)


ALIEN = (
    "ssh://here: the board's answer is not one that edgekd knows\n  try: see what its python3 is, and its "
)
CUT = "ssh://here: the reply was cut off; it was tried again for 0 s\n  try: look at the connection, and "


@pytest.mark.parametrize(
    ("head", "kind", "start"),
    [
        ({"size": 0, "missing": 5}, DeviceError, ALIEN),
        ({"size": 0, "missing": ["x" * 3000]}, DeviceError, ALIEN),
        ({"size": 0, "held_by": "x", "left_s": "soon"}, DeviceError, ALIEN),
        ({"size": 7}, DroppedError, CUT),
        ({"size": -1}, DroppedError, CUT),
        ({"size": "a"}, DroppedError, CUT),
        ({}, DroppedError, CUT),
        ([], DroppedError, CUT),
        (5, DroppedError, CUT),
        (b'{"size": Infinity}', DroppedError, CUT),
        (b'{"size": NaN}', DroppedError, CUT),
        (b"[" * 10**6, DroppedError, CUT),
        (b"\xff", DroppedError, CUT),
        ({"size": 0, "error": "no", "kind": "other"}, DeviceError, "ssh://here: no"),
        ({"size": 0, "error": ["n" * 9999], "kind": 3}, DeviceError, "ssh://here: ['nnn"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_answers_of_another_form(board, head, kind, start):
    device = board.device(
        lambda number, reply: None if reply is None else replace_head(reply, head), reconnect_s=0
    )
    text = text_of(kind, device, job_of(board.folder))
    assert text.startswith(start)
    assert len(text) < 700


BAD_LOGS = [
    ('write("")', "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
    (
        "write(json.dumps(log)[:40])",
        "is not valid JSON: Unterminated string starting at: line 1 column 32 (char 31)",
    ),
    (
        "open(LOG, 'wb').write(b'{\\xff}')",
        "is not valid JSON: 'utf-8' codec can't decode byte 0xff in position 1",
    ),
    ('write("[1]")', "a table is expected at the top"),
    ("log['schema'] = 2; write()", "schema: found 2; this edgekd reads schema = 1"),
    ("del log['facts']; write()", "facts: is missing"),
    ("log['graphs'][0]['load_ns'] = float('nan'); write()", "graphs[0].load_ns: "),
    ("log['graphs'][0]['load_ns'] = -1; write()", "graphs[0].load_ns: "),
    ("log['more'] = 1; write()", "more: "),
    ("write('{\"a\":' * 10**6)", "is not valid JSON: maximum recursion depth exceeded"),
    ("write('[' * 10**6)", "is not valid JSON: maximum recursion depth exceeded"),
    ("write('{\"schema\": ' + '1' * 10**5 + '}')", "is not valid JSON: Exceeds the limit (4300 digits)"),
]


@pytest.mark.parametrize(("does", "message"), BAD_LOGS, ids=[does[:30] for does, _ in BAD_LOGS])
def test_a_result_that_is_truncated_or_no_log(tmp_path, does, message):
    device = Board(tmp_path, does).device()
    text = text_of(DeviceError, device, job_of(tmp_path))
    device.close()
    assert text.startswith(f"ssh://here: cold of student: the result is truncated or no run log: {message}")
    assert DeviceError.exit_code == 3


@pytest.mark.parametrize(
    "does",
    [
        "log['mode'] = 'latency'",
        "log['runtime'] = 'null'",
        "log['graphs'][0]['name'] = 'x'",
        "log['graphs'] = []",
    ],
)
def test_a_log_of_another_job(tmp_path, does):
    device = Board(tmp_path, f"{does}; write()").device()
    assert text_of(DeviceError, device, job_of(tmp_path)) == (
        "ssh://here: cold of student: the result is the log of another job\n  try: run it again"
    )
    device.close()


@pytest.mark.parametrize(
    "does",
    [
        "open(job['outputs'], 'w').write('tampered'); log['outputs_sha256'] = '0' * 64; write()",
        "log['outputs_sha256'] = '0' * 64; write()",
        "open(job['outputs'], 'w').write('no digest'); write()",
    ],
)
def test_outputs_that_are_not_what_the_kit_wrote(tmp_path, does):
    device = Board(tmp_path, does).device()
    job = job_of(tmp_path, mode="outputs", outputs=str(tmp_path / "y.npy"))
    assert text_of(DeviceError, device, job) == (
        "ssh://here: the file of outputs is missing or is not the one that the kit wrote\n  try: run it again"
    )
    device.close()
    assert not (tmp_path / "y.npy").exists()


def test_a_result_that_is_altered_on_its_way(board):
    def alter(number: int, reply: bytes | None) -> bytes | None:
        return reply.replace(b'"load_ns": 1', b'"load_ns": 9') if reply and number == 4 else None

    device = board.device(alter)
    assert text_of(DeviceError, device, job_of(board.folder)) == (
        "ssh://here: a result came altered from the board\n  try: run it again"
    )
    device.close()


def test_many_jobs_leave_nothing(board):
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    device = board.device()
    for _ in range(10):
        device.run(job_of(board.folder), timeout_s=20)
    device.close()
    assert (board.count(), kept_on(board.place)) == (10, NOTHING)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    assert processes_of(str(board.folder)) == []
