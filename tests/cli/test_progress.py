"""How a run is told: plain lines where standard error is no terminal, a moving bar where it is one."""

import os
import pty
import subprocess
import sys

from edgekd.cli.progress import ScreenListener
from edgekd.training.result import EpochRecord


def record(epoch):
    return EpochRecord(epoch, 0.1, 0.5 / epoch, {}, 0.1, 0.9, 1.0)


def test_plain_lines_every_tenth_of_the_way(capsys):
    with ScreenListener() as listener:
        training = listener.training("teacher")
        training.on_start(20, 0)
        for epoch in range(1, 21):
            training.on_epoch(record(epoch))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "teacher: epoch 2 of 20, loss 0.250, validation top-1 90.00 %"
    assert lines[-1] == "teacher: epoch 20 of 20, loss 0.025, validation top-1 90.00 %"


def test_a_head_is_told_by_its_loss(capsys):
    with ScreenListener() as listener:
        training = listener.training("heads-sskd")
        training.on_start(1, 0)
        training.on_epoch(EpochRecord(1, 0.1, 0.5, {}, 0.25, None, 1.0))
    assert capsys.readouterr().err == "heads-sskd: epoch 1 of 1, loss 0.500, validation loss 0.250\n"


def test_a_resumed_training_says_so(capsys):
    with ScreenListener() as listener:
        listener.training("student").on_start(30, 12)
    assert capsys.readouterr().err == "student: goes on after epoch 12 of 30\n"


def test_quiet_says_nothing_but_warnings(capsys):
    with ScreenListener(quiet=True) as listener:
        listener.stage_started("teacher", "train")
        listener.note("a note")
        listener.training("teacher").on_warning("a damaged checkpoint")
    assert capsys.readouterr().err == "warning: teacher: a damaged checkpoint\n"


BAR = """
from edgekd.cli.progress import ScreenListener
from tests.cli.test_progress import record
with ScreenListener() as listener:
    training = listener.training("teacher")
    training.on_start(3, 0)
    for epoch in (1, 2, 3):
        training.on_epoch(record(epoch))
"""


def test_a_bar_on_a_terminal_and_one_line_at_the_end():
    host, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", BAR], stderr=terminal, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(host, 4096):
            shown += piece
    except OSError:
        pass  # the terminal's other end was closed: the program is done
    finally:
        os.close(host)
    assert child.wait() == 0
    assert b"\x1b[" in shown  # escape codes move the bar
    assert b"teacher: epoch 3 of 3, loss 0.167, validation top-1 90.00 %" in shown
    assert b"teacher: epoch 1 of 3" not in shown
