"""What a board answers, request by request. A board is a stranger: what has another form is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=2000)]
Size = Annotated[int, Field(ge=0)]


class Reply(BaseModel):
    """What every answer has; further keys are of a later board's program, and are not read."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Held(Reply):
    """An answer that may be that somebody else holds the lock."""

    held_by: Text | None = None
    """The other session's owner; None when the lock is ours or free."""
    left_s: float = 0.0
    """How long its lock lasts, unless it is made to last longer."""


class Started(Held):
    """A job was started, if nothing is missing."""

    missing: tuple[Text, ...] = ()
    """Digests of files that the board lacks."""


class Left(Reply):
    """A file that a job has left; its bytes follow."""

    name: Text
    size: Size
    sha256: Text


class Waited(Reply):
    """What a job does."""

    state: Literal["running", "lost", "done"]
    reason: Text = ""
    """Why it was lost."""
    code: int | None = None
    """Exit code of the kit, negative for a signal."""
    ended: Literal["time", "host", "busy"] | None = None
    """Why the supervisor ended it: its time was up, no host asked for it, or somebody else measured all the
    while; None: by itself."""
    files: tuple[Left, ...] = ()


class Unlocked(Reply):
    """The lock was given back."""

    owner: Text | None = None
    """Who held it."""


class Cleaned(Held):
    """All was removed."""

    root: Text = ""
    """The folder that is gone."""
