"""Nothing that a board sends is trusted: answers of another form, logs cut short, outputs tampered with."""

from __future__ import annotations

import json
import sys

import pytest

from edgekd.devices.channel import DroppedError
from edgekd.errors import DeviceError
from tests.devices.boards import Board, job_of, text_of

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not LINUX, reason="processes are looked up in /proc")


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
        "write(json.dumps(log)[:35])",
        "is not valid JSON: Unterminated string starting at: line 1 column 31 (char 30)",
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
