"""Carry what one of several training processes has to say to the process that started them.

A queue with a thread that empties it: a value returned by the launcher would wait in a pipe that nobody reads
until the processes have ended, which a large one never would.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch.multiprocessing

from edgekd.training.progress import Progress
from edgekd.training.result import EpochRecord

_END = ("", ())


class Sender:
    """A Progress whose calls are made again at the other end of a queue; it can travel to another process."""

    def __init__(self, queue: SimpleQueue[Any]) -> None:
        self._queue = queue

    def on_start(self, epochs: int, done: int) -> None:
        """Send it on."""
        self._queue.put(("on_start", (epochs, done)))

    def on_step(self, step: int, steps: int) -> None:
        """Send it on."""
        self._queue.put(("on_step", (step, steps)))

    def on_epoch(self, record: EpochRecord) -> None:
        """Send it on."""
        self._queue.put(("on_epoch", (record,)))

    def on_warning(self, message: str) -> None:
        """Send it on."""
        self._queue.put(("on_warning", (message,)))

    def deliver(self, outcome: object) -> None:
        """Send what the work came to; no tensors, whose memory would end with this process."""
        self._queue.put(("deliver", (outcome,)))


class Relay:
    """The receiving end."""

    def __init__(self, progress: Progress) -> None:
        """Open a queue whose calls will reach `progress`."""
        self._progress = progress
        self._queue: SimpleQueue[Any] = torch.multiprocessing.get_context("spawn").SimpleQueue()
        self.sender = Sender(self._queue)
        self.delivered: list[Any] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Make the calls that arrive, in a thread, until the block ends."""
        thread = threading.Thread(target=self._receive, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._queue.put(_END)
            thread.join()
            self._queue.close()

    def _receive(self) -> None:
        while (call := self._queue.get()) != _END:
            name, arguments = call
            if name == "deliver":
                self.delivered += arguments
            else:
                getattr(self._progress, name)(*arguments)
