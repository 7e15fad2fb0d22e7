"""Requests to a board and their replies: the program that answers travels along, a lost link is renewed.

export/kit/board.py is that program and says what each request does. Every request may be sent twice.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgekd.devices.channel import Channel, DroppedError
from edgekd.devices.replies import Reply
from edgekd.errors import DeviceError, EdgekdError
from edgekd.shipped import shipped

RECONNECT_SECONDS = 120.0
"""How long a lost connection is tried again."""
FIRST_SECONDS = 10.0
"""The same before the first answer: a login shell that runs nothing looks like a lost connection."""
REQUEST_SECONDS = 60.0
"""Time for a request that moves no large file."""
MOST_PREAMBLE = 2**20
"""Of what a login shell may print before the reply."""

_HINTS = {
    "full": "free some space there: edgekd devices clean ADDRESS, or use another folder: ADDRESS?folder=PATH",
    "folder": "name a folder that can be written there: ADDRESS?folder=PATH",
    "python": "name the Python there that has the runtime: ADDRESS?python=PATH",
}
"""What to try, by the kind of a board's refusal."""
_CUT_OFF = "the reply was cut off"
_CUT_OFF_HINT = "look at the connection, and whether the login shell there runs what it is told"

Kind = TypeVar("Kind", bound=Reply)
Answer = tuple[dict[str, Any], bytes]
"""The JSON of an answer, and the bytes after it."""


class BoardLink:
    """Asks a board; a lost connection is made anew for `reconnect_s`, one that never was is not."""

    def __init__(
        self,
        channel: Channel,
        place: Mapping[str, str],
        reconnect_s: float,
        on_event: Callable[[str], None],
    ) -> None:
        self._channel = channel
        self._place = dict(place)
        self._reconnect_s = reconnect_s
        self._on_event = on_event
        self._program = (shipped("export", "kit") / "board.py").read_bytes()
        self._answered = False
        self.reached = False
        """Whether the board has got a request, as far as can be known: what it left there is to be tidied."""

    @property
    def name(self) -> str:
        """The address."""
        return self._channel.name

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def ask(
        self,
        kind: type[Kind],
        op: str,
        files: Sequence[Path] = (),
        timeout_s: float = REQUEST_SECONDS,
        /,
        **request: Any,
    ) -> tuple[Kind, bytes]:
        """Send a request, with files after it, until it is answered; the answer, and the bytes after it.

        Raises:
            DeviceError: the board cannot be reached, or refuses.
        """
        dropped_at, pause_s, told = None, 0.1, ""
        while True:
            try:
                head, body = self._once(op, request, files, timeout_s)
                return self._understood(kind, head), body
            except DroppedError as error:
                dropped_at = dropped_at or time.monotonic()
                self._refuse_late(error, time.monotonic() + pause_s - dropped_at)
                if error.message != told:
                    self._on_event(f"{self.name}: {error.message}; it is tried again")
                told = error.message
            time.sleep(pause_s)
            pause_s = min(5.0, 2 * pause_s)

    def tell(self, op: str, **request: Any) -> None:
        """Send a request once and hear no answer: for what is only tidied up."""
        with contextlib.suppress(EdgekdError):
            self._once(op, request, (), REQUEST_SECONDS)

    def _refuse_late(self, error: DroppedError, waited_s: float) -> None:
        """Raise where another attempt, after so long in all, would be one too many."""
        if not self.reached:
            raise error
        limit_s = self._reconnect_s if self._answered else min(FIRST_SECONDS, self._reconnect_s)
        if waited_s > limit_s:
            message = f"{error.message}; it was tried again for {limit_s:g} s"
            raise DroppedError(message, where=error.where, hint=error.hint) from error

    def _understood(self, kind: type[Kind], head: Mapping[str, Any]) -> Kind:
        try:
            return kind.model_validate(head)
        except ValidationError:
            why = "the board's answer is not one that edgekd knows"
            raise DeviceError(
                why, where=self.name, hint="see what its python3 is, and its shell's start-up"
            ) from None

    def _once(self, op: str, request: Mapping[str, Any], files: Sequence[Path], timeout_s: float) -> Answer:
        mark = f"edgekd-{uuid.uuid4().hex}"
        line = json.dumps({**self._place, **request, "op": op, "mark": mark}).encode()
        head = b"%d\n%s%s\n" % (len(self._program), self._program, line)
        answer = self._read(self._sent(head, files, timeout_s), mark)
        self._answered = True
        return answer

    def _sent(self, head: bytes, files: Sequence[Path], timeout_s: float) -> bytes:
        """What the board writes; notes whether it may have got the request."""
        before, self.reached = self.reached, True
        try:
            return self._channel.send(head, files, timeout_s=timeout_s)
        except EdgekdError as error:
            self.reached = before or type(error) is DroppedError
            raise

    def _read(self, output: bytes, mark: str) -> Answer:
        """The reply in what the board wrote; what a login shell printed before it is skipped."""
        _, found, reply = output.partition(f"\n{mark} ".encode())
        if not found or len(output) - len(reply) > MOST_PREAMBLE:
            raise DroppedError(_CUT_OFF, where=self.name, hint=_CUT_OFF_HINT)
        line, _, rest = reply.partition(b"\n")
        try:
            head = json.loads(rest[: int(line)])
            body = rest[int(line) :][: int(head["size"])]
            whole = len(body) == int(head["size"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            whole = False
        if not whole:
            raise DroppedError(_CUT_OFF, where=self.name, hint=_CUT_OFF_HINT)
        if "error" in head:
            raise self._refusal(head)
        return head, body

    def _refusal(self, head: Mapping[str, Any]) -> DeviceError:
        text, kind = f"{head['error']!s:.500}", str(head.get("kind"))
        if kind == "cut":
            return DroppedError(text, where=self.name)
        return DeviceError(text, where=self.name, hint=_HINTS.get(kind))
