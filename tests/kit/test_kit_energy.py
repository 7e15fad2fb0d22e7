"""Energy: counters that start anew, rails that are integrated, and the reasons for no figure."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.conftest import kit_module, make_tree, recorded_tree

COUNTER = "sys/class/powercap/intel-rapl:0/energy_uj"


def meter(energy, root, gpu=None, *, seconds=2.0, power_w=None, between=lambda: None):
    """What a meter says of `seconds`, with `between` happening meanwhile."""
    found = energy.Meter(root, gpu)
    found.begin()
    between()
    found.stop()
    found._begun, found._ended = (10.0, found._begun[1]), (10.0 + seconds, found._ended[1])
    return found.result(power_w)


def test_the_packages_alone(energy, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    packages = energy.find_packages(root)
    assert packages == [("package-0", "sys/class/powercap/intel-rapl:0")]  # not psys, core, dram, nor mmio
    assert energy.read_packages(root, packages) == [(35421679203, 262143328850)]


def test_rapl(energy, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    said = meter(energy, root, between=lambda: (tmp_path / COUNTER).write_text("35451679203\n"))
    assert said == {"joules": 30.0, "seconds": 2.0, "source": "RAPL package-0"}


def test_rapl_that_starts_anew(energy, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    said = meter(energy, root, between=lambda: (tmp_path / COUNTER).write_text("1000000\n"))
    assert said["joules"] == pytest.approx(262143.328850 - 35421.679203 + 1.0)


@given(
    starts=st.lists(st.integers(0, 10**12), min_size=1, max_size=4),
    span=st.integers(10**9, 10**12),
    spent=st.lists(st.integers(0, 10**13), min_size=4, max_size=4),
    error=st.floats(-0.49, 0.49),
)
def test_the_mean_power_tells_how_often_the_counters_started_anew(starts, span, spent, error):
    """Whatever each package spent, if the mean power is right to half a span."""
    before = [(start % span, span) for start in starts]
    after = [((start + more) % span, span) for start, more in zip(starts, spent, strict=False)]
    joules = sum(spent[: len(starts)]) / 1e6
    assert kit_module("energy").counted(before, after, joules + error * span / 1e6) == pytest.approx(joules)


@given(start=st.integers(0, 10**9), more=st.integers(0, 10**9 - 1))
def test_once_around_needs_no_mean_power(start, more):
    span = 10**9
    before, after = [(start % span, span)], [((start + more) % span, span)]
    assert kit_module("energy").counted(before, after) == pytest.approx(more / 1e6)


def test_rapl_that_root_alone_may_read(energy, tmp_path, monkeypatch):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    (tmp_path / COUNTER).chmod(0o400)
    whole = energy.reading.read_number
    denied = lambda root, path: None if path == COUNTER else whole(root, path)  # noqa: E731
    monkeypatch.setattr(energy.reading, "read_number", denied)  # as for another user
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert meter(energy, root) == {
        "joules": None,
        "reason": "RAPL is readable by root alone: sudo chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj",
    }


def test_rapl_that_is_broken_or_stands_still(energy, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    assert meter(energy, root)["reason"] == "RAPL package-0 did not move in 2.0 s"
    (tmp_path / COUNTER).write_text("none\n")
    assert meter(energy, root) == {"joules": None, "reason": "RAPL gives no figure"}


def test_no_counter(energy, tmp_path):
    assert meter(energy, str(tmp_path)) == {"joules": None, "reason": "no energy counter"}


def test_rails(energy, tmp_path):
    root = recorded_tree(tmp_path / "nano", "orin-nano.tree")
    assert meter(energy, root, power_w=10.5) == {"joules": 21.0, "seconds": 2.0, "source": "INA3221 VDD_IN"}
    reason = "the INA3221 was read too rarely in 2.0 s"
    assert meter(energy, root) == {"joules": None, "reason": reason}
    root = recorded_tree(tmp_path / "agx", "agx-orin-rails.tree")
    source = "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 + VDDQ_VDD2_1V8AO"
    assert meter(energy, root, power_w=1.0)["source"] == source


class Gpu:
    def __init__(self, *joules):
        self._joules = list(joules)

    def energy_j(self):
        return self._joules.pop(0)


def test_a_gpu_before_the_packages(energy, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    said = meter(energy, root, Gpu(1000.25, 1141.25))
    assert said == {"joules": 141.0, "seconds": 2.0, "source": "NVML, the GPU alone"}
    reason = "NVML counts no energy on this GPU"
    assert meter(energy, root, Gpu(None, None)) == {"joules": None, "reason": reason}


def test_a_counter_of_nonsense_is_not_read(energy, tmp_path):
    folder = "sys/class/powercap/intel-rapl:0"
    for counter, span in (("-5", "100"), ("200", "100"), ("0", "0"), ("5", "")):
        files = {f"{folder}/name": "package-0", f"{folder}/energy_uj": counter}
        root = make_tree(tmp_path, {**files, f"{folder}/max_energy_range_uj": span})
        assert energy.read_packages(root, [("package-0", folder)]) is None


def test_mean_power_weighs_by_time(energy):
    mean = energy.MeanPower()
    readings = [(0.0, 4.0), (0.1, 4.0), (0.2, 4.0), (0.3, 4.0), (1.3, 8.0)]  # the last after a long gap
    for at_s, watts in readings[:4]:
        mean.add(at_s, watts)
    assert mean.watts() is None  # four are too few
    mean.add(*readings[4])
    assert mean.watts() == pytest.approx((0.3 * 4.0 + 1.0 * 6.0) / 1.3)


def test_mean_power_without_time(energy):
    mean = energy.MeanPower()
    for _ in range(9):
        mean.add(1.0, 5.0)
    assert mean.watts() is None
