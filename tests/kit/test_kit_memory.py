"""Memory of a process, from /proc and from getrusage."""

import subprocess
import sys

import pytest

from edgekd.shipped import shipped
from tests.kit.conftest import make_tree, recorded

MIB = 1 << 20


def test_status(memory):
    text = recorded("process.status")
    assert memory.parse_resident(text, "VmHWM") == 61248 * 1024
    assert memory.parse_resident(text, "VmRSS") == 48156 * 1024
    for broken in (None, "", "VmHWM: many kB\n", "VmHWM: 5 MB\n", "VmHWM: 0 kB\n"):
        assert memory.parse_resident(broken, "VmHWM") is None


def test_units_of_getrusage(memory):
    assert memory.of_rusage(2048, "linux") == 2 * MIB
    assert memory.of_rusage(2 * MIB, "darwin") == 2 * MIB


def test_a_tree(memory, tmp_path):
    root = make_tree(tmp_path, {"proc/self/status": recorded("process.status"), "proc/self/clear_refs": ""})
    assert memory.begin(root) == 48156 * 1024
    assert (tmp_path / "proc/self/clear_refs").read_text() == "5"
    assert memory.end(48156 * 1024, root) == {
        "peak_rss_bytes": 61248 * 1024,
        "start_rss_bytes": 48156 * 1024,
        "device_bytes": None,
    }


def test_without_proc_it_is_that_of_getrusage(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_most_resident", lambda: 77 * MIB)
    assert memory.begin(str(tmp_path)) == 77 * MIB
    assert memory.end(1, str(tmp_path))["peak_rss_bytes"] == 77 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark of Linux")
def test_what_was_freed_before_does_not_count():
    """64 MiB held and freed before `begin`, 32 MiB held and freed after it."""
    code = (
        "import memory\n"
        "first = bytearray(64 << 20); del first\n"
        "start = memory.begin()\n"
        "second = bytearray(32 << 20); del second\n"
        "print(start, memory.end(start)['peak_rss_bytes'])"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env={"PYTHONPATH": str(shipped("export", "kit"))},
        capture_output=True,
        text=True,
        check=True,
    )
    start, peak = map(int, done.stdout.split())
    assert 31 * MIB < peak - start < 34 * MIB
