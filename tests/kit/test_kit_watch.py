"""The process beside the measurement: what it sees, how it ends, and what it costs."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from edgekd.shipped import shipped
from tests.kit.conftest import make_tree, recorded, recorded_tree

PROGRAM = shipped("export", "kit", "watch.py")


def with_process(root: str) -> str:
    """The tree, with this process last seen on processor 1."""
    return make_tree(Path(root), {f"proc/{os.getpid()}/stat": recorded("process.stat")})


def until(happens, seconds=20.0):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_looks_at_a_notebook(looks, tmp_path):
    device = looks.Looks(with_process(recorded_tree(tmp_path, "laptop-x86.tree")), os.getpid(), False)
    assert device.any()
    assert device.look() == {"clock_mhz": 1596.303, "temperature_c": 54.0}
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.write_text(f"{35421679203 + 10**9}\n")
    assert device.look()["power_w"] > 0
    assert device.fast() is None


def test_looks_at_a_jetson(looks, tmp_path):
    device = looks.Looks(recorded_tree(tmp_path, "orin-nano.tree"), os.getpid(), False)
    seen = device.look()
    assert seen == {"temperature_c": 57.125, "gpu_clock_mhz": 612.0, "gpu_cap_mhz": 612.0, "alarms": []}
    assert device.fast() == pytest.approx(4.992 * 2.144)


def test_looks_at_a_raspberry_pi_ask_its_tool_at_every_fifth_look(looks, reading, tmp_path, monkeypatch):
    asked = []

    def tool(command):
        asked.append(" ".join(command))
        return recorded("raspberry-pi-5.measure_clock")

    monkeypatch.setattr(reading, "has_tool", lambda name: name == "vcgencmd")
    monkeypatch.setattr(reading, "run_tool", tool)
    device = looks.Looks(recorded_tree(tmp_path, "raspberry-pi-5.tree"), os.getpid(), False)
    seen = [device.look() for _ in range(6)]
    assert seen[0] == {"clock_mhz": 2400.027392, "temperature_c": 48.85, "pi_bits": 0x50000}
    assert seen[1:5] == [{"temperature_c": 48.85}] * 4
    assert seen[5] == seen[0]
    assert asked == ["vcgencmd measure_clock arm"] * 2


def test_looks_at_a_gpu(looks, tmp_path, monkeypatch):
    class Gpu:
        def event_reasons(self):
            return 0x4

        def sm_clock_mhz(self):
            return 2040

        def temperature_c(self):
            return None

        def power_w(self):
            return 71.5

    monkeypatch.setattr(looks, "_open_gpu", lambda pid: Gpu())
    device = looks.Looks(str(tmp_path), os.getpid(), True)
    assert device.any()
    assert device.look() == {"gpu_reasons": 0x4, "gpu_clock_mhz": 2040, "power_w": 71.5}


def test_a_driver_that_tells_nothing_hides_nothing(looks, nvml, tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "_open_gpu", lambda pid: nvml.Gpu(object(), None))
    device = looks.Looks(recorded_tree(tmp_path, "orin-nano.tree"), os.getpid(), True)
    assert device.look()["gpu_clock_mhz"] == 612.0


def test_nothing_to_look_at_starts_nothing(watch, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # to call it would raise
    watcher = watch.Watcher(str(tmp_path))
    watcher.mark()
    assert watcher.stop() is None


def test_a_summary(watch):
    summary = watch.Summary()
    for at_s, seen in enumerate(
        [
            {"clock_mhz": 2400.0, "pi_bits": 0x1, "alarms": []},
            {"clock_mhz": 1500.0, "pi_bits": 0x4, "alarms": ["VDD_IN max"], "power_w": 4.0},
            {"temperature_c": 70.0, "power_w": 8.0},
        ]
    ):
        summary.add(float(at_s), seen)
    result = summary.result()
    assert result["low"] == {"clock_mhz": 1500.0, "power_w": 4.0, "temperature_c": 70.0}
    assert result["high"] == {"clock_mhz": 2400.0, "power_w": 8.0, "temperature_c": 70.0}
    assert result["mean"] == {"clock_mhz": 1950.0, "power_w": 6.0, "temperature_c": 70.0}
    assert (result["bits"], result["alarms"]) == ({"pi_bits": 0x5}, ["VDD_IN max"])
    assert result["rows"][1] == {"clock_mhz": 1500.0, "power_w": 4.0, "at_s": 1.0}


def test_a_day_keeps_few_rows_and_every_extreme(watch):
    summary = watch.Summary()
    for at_s in range(86_400):
        summary.add(float(at_s), {"clock_mhz": 600.0 if at_s == 50_001 else 2400.0})
    result = summary.result()
    assert watch.MAX_ROWS / 2 <= len(result["rows"]) <= watch.MAX_ROWS
    moments = [row["at_s"] for row in result["rows"]]
    assert len({late - early for early, late in pairwise(moments)}) == 1
    assert result["low"]["clock_mhz"] == 600.0


def test_the_process_reports_what_it_saw_since_the_mark(watch, tmp_path):
    root = recorded_tree(tmp_path, "orin-nano.tree")
    temperature, alarm = "sys/class/thermal/thermal_zone0/temp", "sys/class/hwmon/hwmon1/curr1_max_alarm"
    (tmp_path / temperature).write_text("90000\n")
    watcher = watch.Watcher(root)
    until(lambda: os.getpriority(os.PRIO_PROCESS, watcher._process.pid) == 19)  # after its first look
    (tmp_path / temperature).write_text("60000\n")
    (tmp_path / alarm).write_text("1\n")
    watcher.mark()
    time.sleep(1.0)
    said = watcher.stop()
    assert said["high"]["temperature_c"] == 60.0  # not the 90 of the warm-up
    assert said["alarms"] == ["VDD_IN max"]
    assert said["mean"]["power_w"] == pytest.approx(4.992 * 2.144)
    assert said["rows"][0]["temperature_c"] == 90.0
    assert said["rows"][0]["at_s"] < 0 <= said["rows"][1]["at_s"]
    assert said["cpu_s"] > 0


def start(root: str, pid: int) -> subprocess.Popen:
    command = [sys.executable, "-B", str(PROGRAM), json.dumps([root, pid, False])]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


def test_it_ends_with_the_kit_and_leaves_nothing(tmp_path):
    """A parent that is killed at once closes the pipe."""
    root = recorded_tree(tmp_path / "tree", "orin-nano.tree")
    code = (
        f"import sys, time; sys.path.append({str(PROGRAM.parent)!r})\n"
        f"import watch; watcher = watch.Watcher({root!r})\n"
        "print(watcher._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-B", "-c", code], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
    until(lambda: not runs(child))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_it_ends_when_its_parent_is_another_process(tmp_path):
    """As after a fork that keeps the pipe open."""
    with start(recorded_tree(tmp_path, "orin-nano.tree"), os.getpid() + 1) as process:
        assert process.wait(20) == 1
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
        process.stdin.close()


@pytest.mark.parametrize("end", [lambda p: p.kill(), lambda p: (p.kill(), p.wait())])
def test_a_watcher_that_was_killed_is_no_result(watch, tmp_path, end):
    watcher = watch.Watcher(recorded_tree(tmp_path, "orin-nano.tree"))
    end(watcher._process)
    watcher.mark()
    assert watcher.stop() is None
    assert watcher._process.returncode is not None


def test_a_watcher_that_hangs_is_killed(watch, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "STOP_SECONDS", 0.2)
    watcher = watch.Watcher(recorded_tree(tmp_path, "orin-nano.tree"))
    watcher._process.send_signal(signal.SIGSTOP)
    assert watcher.stop() is None
    assert watcher._process.returncode == -signal.SIGKILL


def test_it_prints_nothing_of_its_own(tmp_path):
    with start(recorded_tree(tmp_path, "laptop-x86.tree"), os.getpid()) as process:
        said, complained = process.communicate(b".", timeout=20)
    assert complained == b""
    assert json.loads(said)["low"]["temperature_c"] == 54.0
