"""tegrastats: lines of two releases, and the tool as a process of the watcher."""

import os
import subprocess
import time

import pytest

from tests.kit.conftest import kit_module, make_tree, recorded


@pytest.fixture(scope="module")
def tegrastats():
    return kit_module("tegrastats")


@pytest.mark.parametrize(
    ("name", "power_w", "gpu_clock_mhz", "temperature_c"),
    [("orin-nano-busy", 10.702, 612.0, 57.125), ("jetson-nano-l4t-32", 3.41, 921.0, 43.5)],
)
def test_lines(tegrastats, name, power_w, gpu_clock_mhz, temperature_c):
    assert tegrastats.parse_line(recorded(f"{name}.tegrastats")) == {
        "power_w": power_w,
        "gpu_clock_mhz": gpu_clock_mhz,
        "temperature_c": temperature_c,
    }


@pytest.mark.parametrize("line", [None, "", "GR3D_FREQ 0% CPU@C VDD_IN mW/", "VDD_INX 5/5"])
def test_lines_that_say_nothing(tegrastats, line):
    assert tegrastats.parse_line(line) == {}


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A tegrastats that prints half a line after a whole one; the file of its process id."""
    line = recorded("orin-nano-busy.tegrastats").strip()
    noted = tmp_path / "pid"
    script = tmp_path / "bin" / "tegrastats"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho '{line}'\nprintf 'VDD_IN 99'\necho $$ > {noted}\nexec sleep 30\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return noted


def test_the_watcher_reads_it_where_the_kernel_shows_no_rails(watch, tool, tmp_path):
    root = make_tree(tmp_path / "root", {"proc/device-tree/compatible": "nvidia,p3450\0nvidia,tegra210\0"})
    watcher = watch.Watcher(root)
    end = time.monotonic() + 20
    while not tool.exists() or not tool.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    watcher.mark()
    time.sleep(0.2)
    said = watcher.stop()
    assert said["mean"]["power_w"] == 10.702
    assert said["low"] == {"gpu_clock_mhz": 612.0, "power_w": 10.702, "temperature_c": 57.125}
    assert not os.path.exists(f"/proc/{tool.read_text().strip()}")  # it was ended, and waited for


def test_it_cannot_be_started(tegrastats, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", fail)
    stats = tegrastats.Tegrastats()
    assert stats.look() == {}
    stats.stop()


def test_another_device_does_not_start_it(looks, tool, tmp_path):
    assert not looks.Looks(str(tmp_path / "root"), os.getpid(), False).any()
    assert not tool.exists()
