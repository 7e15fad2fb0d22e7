"""Temperatures, clocks and throttle bits, on what real devices gave."""

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.conftest import kit_module, make_tree, recorded, recorded_tree

PARSERS = [
    *(("sensors", name) for name in ("parse_measure_temp", "parse_measure_clock", "parse_throttled")),
    *(("sensors", name) for name in ("parse_processor", "_cpuinfo_mhz_of_0")),
    *(("facts", name) for name in ("parse_cpu_name", "parse_isa", "parse_hypervisor", "parse_memory")),
    *(("facts", name) for name in ("parse_gpus", "parse_cpu_max", "parse_power_mode", "parse_driver")),
    ("facts", "parse_l4t"),
    *(("environment", name) for name in ("parse_load", "parse_ticks", "parse_cpu_stat")),
    *(("nvml", "uses_cuda"), ("tegrastats", "parse_line")),
]
FRAGMENTS = [
    *("temp=", "'C", "frequency(48)=", "throttled=0x", "cpu ", "cpu\t", "nr_throttled ", "throttled_usec "),
    *("throttled_time ", "MemTotal: ", " kB", "processor : 0", "cpu MHz : ", "flags : ", "NV Power Mode: "),
    *("\n", " ", ")", "(", ":", ",", "-1", "0", "7", "1e999", "nan", "zz", "²", "٣"),
    *("9" * 25, "9" * 5000, "\0", "R36 (release), REVISION: ", "Kernel Module ", "max", "libcuda.so", "/"),
    *("VDD_IN ", "mW/", "GR3D_FREQ 9%@[", "cpu@", "C"),
]


def parser(module: str, name: str):
    if name == "_cpuinfo_mhz_of_0":
        return lambda text: kit_module("sensors").parse_cpuinfo_mhz(text, 0)
    return getattr(kit_module(module), name)


@pytest.mark.parametrize(("module", "name"), PARSERS)
def test_no_text_makes_a_parser_raise(module, name):
    parse = parser(module, name)
    parse(None)

    @given(st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)))
    def try_texts(text):
        value = parse(text)
        assert value not in (float("inf"), float("-inf"))  # a log can hold neither an infinity nor a nan
        assert not (isinstance(value, float) and math.isnan(value))

    try_texts()


@pytest.mark.parametrize(
    ("tree", "zone", "celsius"),
    [
        ("laptop-x86.tree", "x86_pkg_temp", 54.0),  # not the acpitz that comes first
        ("orin-nano.tree", "cpu-thermal", 57.125),
        ("ryzen-hwmon.tree", "k10temp Tctl", 61.25),
        ("raspberry-pi-5.tree", "cpu-thermal", 48.85),
    ],
)
def test_the_zone_of_the_processor(sensors, tmp_path, tree, zone, celsius):
    root = recorded_tree(tmp_path, tree)
    found = sensors.find_zone(root)
    assert (found[0], sensors.read_temperature(root, found)) == (zone, celsius)


def test_an_unknown_zone_is_better_than_none_and_a_broken_one_is_not(sensors, tmp_path):
    files = {
        "sys/class/thermal/thermal_zone0/type": "cv0-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "-256000\n",
        "sys/class/thermal/thermal_zone1/type": "acpitz\n",
        "sys/class/thermal/thermal_zone1/temp": "27800\n",
    }
    root = make_tree(tmp_path, files)
    assert sensors.find_zone(root)[0] == "acpitz"
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").write_text("off\n")
    assert sensors.find_zone(root) is None


def test_what_vcgencmd_says(sensors):
    assert sensors.parse_measure_temp(recorded("raspberry-pi-hot.measure_temp")) == 80.6
    assert sensors.parse_measure_clock(recorded("raspberry-pi-4.measure_clock")) == 1500.345728
    assert sensors.parse_measure_clock(recorded("raspberry-pi-5.measure_clock")) == 2400.027392
    assert sensors.parse_throttled(recorded("raspberry-pi-undervolted.get_throttled")) == 0x50005
    assert sensors.parse_throttled("VCHI initialization failed\n") is None


def test_throttle_bits_from_the_kernel_or_the_tool(sensors, reading, tmp_path, monkeypatch):
    asked = []

    def tool(command):
        asked.append(command)
        return "throttled=0x80008\n"

    monkeypatch.setattr(reading, "run_tool", tool)
    root = recorded_tree(tmp_path, "raspberry-pi-5.tree")
    assert (sensors.read_pi_bits(root), asked) == (0x50000, [])  # hexadecimal, and no process is started
    (tmp_path / sensors.PI_BITS).unlink()
    assert (sensors.read_pi_bits(root), asked) == (0x80008, [["vcgencmd", "get_throttled"]])


def test_the_clock_of_the_processor_that_a_process_ran_on(sensors, tmp_path):
    processor = sensors.parse_processor(recorded("process.stat"))  # its name holds a bracket and spaces
    assert processor == 1
    assert sensors.read_processor_mhz(recorded_tree(tmp_path, "laptop-x86.tree"), processor) == 1596.303
    assert sensors.parse_processor(f"1 (sh) S {'0 ' * 35}") is None


def test_without_cpufreq_the_clock_is_that_of_cpuinfo(sensors, tmp_path):
    root = make_tree(tmp_path, {"proc/cpuinfo": recorded("bare-metal.cpuinfo")})
    assert sensors.read_processor_mhz(root, 1) == 3612.447
    assert sensors.read_processor_mhz(root, 2) is None


def test_a_virtual_machine_shows_no_real_clock(sensors):
    text = "processor : 0\ncpu MHz : 2700.000\nflags : fpu hypervisor\n"
    assert sensors.parse_cpuinfo_mhz(text, 0) is None


def test_rails_of_an_orin_nano(jetson, tmp_path):
    root = recorded_tree(tmp_path, "orin-nano.tree")
    rails = jetson.find_rails(root)
    assert [rail[0] for rail in rails] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]
    assert [rail[0] for rail in jetson.total_rails(rails)] == ["VDD_IN"]
    assert jetson.read_power(root, jetson.total_rails(rails)) == pytest.approx(4.992 * 2.144)
    assert jetson.read_alarms(root, rails) == []
    (tmp_path / "sys/class/hwmon/hwmon1/curr1_max_alarm").write_text("1\n")
    (tmp_path / "sys/class/hwmon/hwmon1/curr2_crit_alarm").write_text("1\n")
    assert jetson.read_alarms(root, rails) == ["VDD_IN max", "VDD_CPU_GPU_CV crit"]


def test_rails_that_add_up(jetson, tmp_path):
    root = recorded_tree(tmp_path, "agx-orin-rails.tree")
    rails = jetson.total_rails(jetson.find_rails(root))
    assert [rail[0] for rail in rails] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    watts = 19.928 * 0.24 + 19.92 * 0.04 + 5.056 * 0.88 + 5.064 * 0.144
    assert jetson.read_power(root, rails) == pytest.approx(watts)
    os.unlink(tmp_path / "sys/class/hwmon/hwmon4/curr2_input")
    assert jetson.read_power(root, rails) is None  # a sum without one of its parts would be too small


def test_the_gpu_of_a_jetson_alone(jetson, tmp_path):
    root = recorded_tree(tmp_path / "orin", "orin-nano.tree")
    folder = jetson.find_gpu(root)
    assert (folder, jetson.read_gpu_mhz(root, folder)) == ("sys/class/devfreq/17000000.gpu", (612.0, 612.0))
    rockchip = {
        "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0",
        "sys/class/devfreq/fb000000.gpu/cur_freq": "300000000\n",
    }
    assert jetson.find_gpu(make_tree(tmp_path / "rock", rockchip)) is None
