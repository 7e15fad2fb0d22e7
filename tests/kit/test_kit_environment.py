"""The state of the device before, during and after: parsers, snapshots of recorded trees, the observer."""

import os
import time

import pytest

from edgekd.documents.conditions import Conditions
from tests.kit.conftest import make_tree, recorded, recorded_tree

GROUP = "sys/fs/cgroup/kubepods/pod1"


@pytest.fixture
def quiet(reading, monkeypatch):
    """A device with none of the tools."""
    monkeypatch.setattr(reading, "run_tool", lambda command: None)
    monkeypatch.setattr(reading, "has_tool", lambda name: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def parsed(conditions: dict) -> Conditions:
    """As the host reads them, so that no key is unknown to it."""
    return Conditions.model_validate(conditions)


def watched(**changes) -> dict:
    whole = {"low": {}, "high": {}, "mean": {}, "bits": {}, "alarms": [], "rows": [], "cpu_s": 0.05}
    return {**whole, **changes}


def test_stolen_ticks(environment):
    before = environment.parse_ticks(recorded("linux-6-guest.stat"))
    assert before == (5127, 125841 + 1532 + 48210 + 0 + 2201 + 5127)
    # Guest time, the two last columns, is in user time already.
    assert environment.parse_ticks("cpu  1000 0 500 8000 10 0 5 100 30 7\n") == (100, 1605)
    assert environment.parse_ticks("cpu 1 2 3\n") is None
    assert environment.parse_ticks("cpu 1 2 3 4 5 6 7 many\n") is None
    assert environment.steal_fraction((100, 9615), (200, 10615)) == pytest.approx(100 / 1000)
    assert environment.steal_fraction((100, 9615), (100, 9615)) is None
    assert environment.steal_fraction((200, 10), (100, 20)) == 0  # a counter that fell
    assert environment.steal_fraction(None, (1, 2)) is None


def test_throttling_by_a_quota(environment):
    assert environment.parse_cpu_stat(recorded("quota-v2.cpu.stat")) == (1823, 91.15)
    assert environment.parse_cpu_stat(recorded("quota-v1.cpu.stat")) == (377, 14.935271063)
    assert environment.parse_cpu_stat(recorded("no-quota-v2.cpu.stat")) is None


def test_the_group_that_lost_most(environment):
    before = {"inner": (10, 1.0), "outer": (100, 50.0), "gone": (1, 1.0)}
    after = {"inner": (14, 1.5), "outer": (101, 50.25), "new": (9, 9.0)}
    assert environment.group_throttling(before, after) == (4, 0.5)
    assert environment.group_throttling({}, {}) is None
    assert environment.group_throttling({"inner": (5, 2.0)}, {"inner": (1, 0.5)}) == (0, 0.0)


def test_throttle_counters_of_x86(environment, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    assert environment.read_throttle_count(root, [0, 1]) == 14 + 3 + 31  # one package, told twice
    assert environment.read_throttle_count(root, [2]) is None


def test_nothing_can_be_read(environment, quiet, tmp_path):
    moment = environment.snapshot(str(tmp_path))
    found = environment.conditions(moment, moment, None)
    switches = found.pop("involuntary_switches")
    assert switches == 0
    assert (found.pop("samples"), found.pop("seconds"), found.pop("clock_jump_s")) == ([], 0, 0)
    assert set(found.values()) == {None}


def test_a_container_on_a_server(environment, quiet, tmp_path):
    files = {
        "proc/loadavg": "0.42 0.30 0.20 1/200 1234\n",
        "proc/stat": recorded("linux-6-guest.stat"),
        "proc/self/cgroup": "0::/kubepods/pod1\n",
        f"{GROUP}/cpu.stat": "nr_periods 10\nnr_throttled 2\nthrottled_usec 1500000\n",
    }
    root = make_tree(tmp_path, files)
    before = environment.snapshot(root)
    (tmp_path / f"{GROUP}/cpu.stat").write_text("nr_periods 90\nnr_throttled 9\nthrottled_usec 4000000\n")
    found = parsed(environment.conditions(before, environment.snapshot(root), None))
    assert (found.load1, found.cgroup_throttled, found.cgroup_throttled_s) == (0.42, 7, 2.5)
    assert found.steal_fraction is None  # no tick between the two


def test_a_notebook_that_gets_hot(environment, quiet, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    before = environment.snapshot(root)
    cpu0 = tmp_path / "sys/devices/system/cpu/cpu0"
    (cpu0 / "thermal_throttle/package_throttle_count").write_text("36\n")
    (cpu0 / "cpufreq/scaling_governor").write_text("performance\n")
    (tmp_path / "sys/class/thermal/thermal_zone7/temp").write_text("88000\n")
    rows = [
        {"at_s": at, "clock_mhz": mhz}
        for at, mhz in ((-1.0, 800.0), (0.0, 3900.0), (1.0, 3600.0), (2.0, 1900.0))
    ]
    seen = watched(low={"clock_mhz": 1850.0}, high={"clock_mhz": 3900.0, "temperature_c": 97.0}, rows=rows)
    found = parsed(environment.conditions(before, environment.snapshot(root), seen))
    assert found.throttle_events == 5
    assert (found.governor_before, found.governor_after) == ("powersave", "performance")
    zone = found.temperature
    assert (zone.zone, zone.before_c, zone.max_c, zone.after_c) == ("x86_pkg_temp", 54.0, 97.0, 88.0)
    # The least may lie between two rows; the row of the warm-up does not count.
    assert (found.clock.min_mhz, found.clock.median_mhz, found.clock.max_mhz) == (1850.0, 3600.0, 3900.0)
    assert [sample.at_s for sample in found.samples] == [-1.0, 0.0, 1.0, 2.0]
    assert found.watch_cpu_s == 0.05
    assert (found.jetson, found.gpu, found.pi_bits) == (None, None, None)


def test_a_raspberry_pi(environment, quiet, tmp_path):
    root = recorded_tree(tmp_path, "raspberry-pi-5.tree")
    before = environment.snapshot(root)
    (tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("d0000\n")
    found = parsed(
        environment.conditions(before, environment.snapshot(root), watched(bits={"pi_bits": 0x50008}))
    )
    assert (found.pi_bits.before, found.pi_bits.during, found.pi_bits.after) == (0x50000, 0x50008, 0xD0000)


def test_a_jetson(environment, reading, quiet, tmp_path, monkeypatch):
    modes = ["orin-nano-25w.nvpmodel", "orin-nano-maxn-super.nvpmodel"]
    said = lambda command: recorded(modes.pop(0)) if "nvpmodel" in command else None  # noqa: E731
    monkeypatch.setattr(reading, "run_tool", said)
    root = recorded_tree(tmp_path, "orin-nano.tree")
    before = environment.snapshot(root)
    (tmp_path / "sys/class/hwmon/hwmon1/curr1_crit_alarm").write_text("1\n")
    after = environment.snapshot(root)
    seen = watched(
        low={"gpu_clock_mhz": 306.0, "gpu_cap_mhz": 612.0},
        high={"gpu_clock_mhz": 612.0},
        mean={"power_w": 9.5},
        alarms=["VDD_IN max"],
    )
    found = parsed(environment.conditions(before, after, seen)).jetson
    assert (found.power_mode_before, found.power_mode_after) == ("25W", "MAXN_SUPER")
    assert (found.gpu_clock.min_mhz, found.gpu_cap_mhz, found.power_mean_w) == (306.0, 612.0, 9.5)
    assert found.alarms == ("VDD_IN crit", "VDD_IN max")
    assert parsed(environment.conditions(before, after, None)).jetson.alarms == ("VDD_IN crit",)


class Gpu:
    def __init__(self, processes):
        self._processes = processes

    def name(self):
        return "NVIDIA L4"

    def processes(self):
        return self._processes


def test_a_gpu(environment, quiet, tmp_path):
    before = environment.snapshot(str(tmp_path), Gpu([(os.getpid(), 1)]))
    after = environment.snapshot(str(tmp_path), Gpu([(os.getpid(), 1), (1, 1)]))
    seen = watched(
        low={"gpu_clock_mhz": 1500, "gpu_temperature_c": 40},
        high={"gpu_clock_mhz": 2040, "gpu_temperature_c": 71},
        mean={"power_w": 68.25},
        bits={"gpu_reasons": 0x24},
    )
    found = parsed(environment.conditions(before, after, seen)).gpu
    assert (found.name, found.event_reasons, found.other_processes) == ("NVIDIA L4", 0x24, 1)
    assert (found.sm_clock.min_mhz, found.temperature_max_c, found.power_mean_w) == (1500, 71, 68.25)
    blind = parsed(environment.conditions(before, after, None)).gpu
    assert (blind.event_reasons, blind.sm_clock, blind.temperature_max_c) == (None, None, None)


def test_a_clock_that_jumps(environment):
    before = {"wall_s": 1000.0, "monotonic_s": 50.0}
    assert environment.clock_jump(before, {"wall_s": 1010.0, "monotonic_s": 60.0}) == 0
    assert environment.clock_jump(before, {"wall_s": -2590.0, "monotonic_s": 60.0}) == -3600


def test_the_observer_of_a_jetson(environment, quiet, tmp_path):
    root = recorded_tree(tmp_path, "orin-nano.tree")
    for seconds in (0.8, 5.0, 20.0):  # on a busy machine it looks less often, at its priority
        observer = environment.Observer(root)
        observer.timing_begins()
        time.sleep(seconds)
        said = observer.end(1)
        if said["energy"]["joules"] is not None:
            break
    energy, found = said["energy"], parsed(said["conditions"])
    assert energy["source"] == "INA3221 VDD_IN"
    assert energy["joules"] == pytest.approx(4.992 * 2.144 * energy["seconds"])
    assert 0.7 < energy["seconds"] <= found.seconds
    assert found.jetson.power_mean_w == pytest.approx(4.992 * 2.144)
    assert found.jetson.gpu_clock.median_mhz == 612.0


def test_energy_of_two_graphs_cannot_be_told_apart(environment, quiet, tmp_path):
    observer = environment.Observer(recorded_tree(tmp_path, "laptop-x86.tree"))
    observer.timing_begins()
    assert observer.end(2)["energy"] == {
        "joules": None,
        "reason": "2 graphs took turns: energy is read where one runs alone",
    }


def test_without_cuda_a_gpu_is_not_asked(environment, nvml, tmp_path, monkeypatch):
    monkeypatch.setattr(nvml, "open_library", None)  # to call it would raise
    root = make_tree(tmp_path, {"proc/self/maps": "7f r-xp /usr/lib/libm.so.6\n"})
    assert environment._find_gpu(root) is None
