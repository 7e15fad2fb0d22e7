"""Stopping in time: at the end of an epoch or before a stage, and never before anything was done."""

import threading
from types import SimpleNamespace

import pytest

from edgekd.errors import StoppedError
from edgekd.pipeline.compare.clock import TimedListener


class Clock:
    """Says what time it is, and moves when told."""

    time = 100.0

    def __call__(self):
        return self.time


class Heard:
    """Remembers every call."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            return Heard() if name == "training" else None

        return call


@pytest.fixture
def clock():
    return Clock()


def timed(clock, seconds):
    return TimedListener(Heard(), seconds, now=clock)


def epoch(number):
    return SimpleNamespace(epoch=number)


def test_in_time_everything_goes_on(clock):
    listener = timed(clock, 10)
    progress = listener.training("a")
    progress.on_start(3, 0)
    clock.time += 9.9
    progress.on_epoch(epoch(1))
    listener.stage_started("b", "made")


def test_late_it_stops_at_the_end_of_the_epoch(clock):
    progress = timed(clock, 10).training("a")
    progress.on_start(3, 0)
    progress.on_epoch(epoch(1))
    clock.time += 10
    progress.on_step(1, 5)
    with pytest.raises(StoppedError):
        progress.on_epoch(epoch(2))


def test_the_last_epoch_ends_its_stage_and_the_next_stage_does_not_begin(clock):
    listener = timed(clock, 10)
    progress = listener.training("a")
    progress.on_start(2, 1)
    clock.time += 10
    progress.on_epoch(epoch(2))
    listener.stage_finished("a", SimpleNamespace(reused=False))
    with pytest.raises(StoppedError):
        listener.stage_started("b", "made")


def test_something_is_done_however_little_the_time(clock):
    listener = timed(clock, 10)
    clock.time += 1000
    listener.stage_finished("found", SimpleNamespace(reused=True))
    listener.stage_started("a", "made")
    progress = listener.training("a")
    progress.on_start(5, 2)
    with pytest.raises(StoppedError):
        progress.on_epoch(epoch(3))


def test_without_a_limit_it_never_stops(clock):
    listener = timed(clock, None)
    progress = listener.training("a")
    progress.on_start(3, 0)
    clock.time += 1e9
    progress.on_epoch(epoch(1))
    listener.stage_started("b", "made")


def test_a_training_in_other_processes_is_heard_in_another_thread_and_not_stopped_there(clock):
    progress = timed(clock, 10).training("a")
    progress.on_start(3, 0)
    clock.time += 10
    raised = []

    def hear():
        try:
            progress.on_epoch(epoch(1))
        except StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=hear)
    thread.start()
    thread.join()
    assert raised == []


def test_everything_is_passed_on(clock):
    heard = Heard()
    listener = TimedListener(heard, 10, now=clock)
    listener.note("n")
    listener.stage_started("a", "what")
    progress = listener.training("a")
    inner = progress._progress
    progress.on_start(3, 0)
    progress.on_step(1, 2)
    progress.on_epoch(epoch(1))
    progress.on_warning("w")
    assert heard.calls == [("note", "n"), ("stage_started", "a", "what"), ("training", "a")]
    assert inner.calls == [
        ("on_start", 3, 0),
        ("on_step", 1, 2),
        ("on_epoch", epoch(1)),
        ("on_warning", "w"),
    ]
