"""Devices of the tests in place of real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgekd.pipeline.bench import run
from tests.pipeline.bench.fakes import FakeDevice


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeDevice]:
    """The devices by address; a test may add some before it benches."""
    found = {"local": FakeDevice()}

    @contextmanager
    def open_fake(address: str, *, on_event) -> Iterator[FakeDevice]:
        on_event(f"opened {address}")
        try:
            yield found[address]
        finally:
            found[address].close()

    monkeypatch.setattr(run, "open_device", open_fake)
    return found
