"""The parsers of facts, on texts that real machines gave, and the reading, in trees made of such texts."""

import os
import subprocess

import pytest

from tests.kit.conftest import make_tree, recorded, recorded_tree


@pytest.mark.parametrize(
    ("device", "cpu", "isa", "hypervisor"),
    [
        (
            "epyc-vm",
            "AMD EPYC",
            ["sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16"],
            True,
        ),
        ("raspberry-pi-5", "Cortex-A76", ["asimd", "asimddp", "asimdhp"], None),
        ("jetson-orin-nano", "Cortex-A78AE", ["asimd", "asimddp", "asimdhp"], None),
        ("rk3588", "Cortex-A55 + Cortex-A76", ["asimd", "asimddp", "asimdhp"], None),
    ],
)
def test_processor(facts, device, cpu, isa, hypervisor):
    text = recorded(f"{device}.cpuinfo")
    assert facts.parse_cpu_name(text) == cpu
    assert facts.parse_isa(text) == isa
    assert facts.parse_hypervisor(text) is hypervisor


def test_a_feature_counts_only_if_every_processor_has_it(facts):
    text = "flags : avx2 fma\n\nflags : avx2\n"
    assert facts.parse_isa(text) == ["avx2"]


def test_bare_metal_is_no_guess(facts):
    assert facts.parse_hypervisor("flags : fpu avx2\n") is False
    assert facts.parse_hypervisor(None) is None


def test_an_unknown_arm_part_is_told_as_it_is(facts):
    text = "CPU implementer : 0x51\nCPU part : 0xd0b\n"
    assert facts.parse_cpu_name(text) == "Arm implementer 0x51 part 0xd0b"


def test_what_cannot_be_read_is_none(facts):
    assert facts.parse_cpu_name(None) is None
    assert facts.parse_cpu_name("nothing of use") is None
    assert facts.parse_isa(None) == []
    assert facts.parse_memory(None) is None
    assert facts.parse_memory("MemTotal: some kB\n") is None
    assert facts.parse_cpu_max("") is None
    assert facts.parse_cfs("-1", None) is None
    assert facts.parse_power_mode("nvpmodel: command not found") is None
    assert facts.parse_driver(None) is None
    assert facts.parse_l4t("Ubuntu 22.04") is None


def test_memory(facts):
    assert facts.parse_memory(recorded("epyc-vm.meminfo")) == 24684084 * 1024


@pytest.mark.parametrize(
    ("table", "gpus"),
    [
        ("NVIDIA L4, 8.9\n", ["NVIDIA L4 (8.9)"]),
        ("NVIDIA H200, 9.0\nNVIDIA H200, 9.0\n", ["NVIDIA H200 (9.0)", "NVIDIA H200 (9.0)"]),
        ("Orin (nvgpu), [N/A]\n", ["Orin (nvgpu)"]),
        ("Tesla T4\n", ["Tesla T4"]),
        ("No devices were found\n", []),
        (None, []),
    ],
)
def test_gpus(facts, table, gpus):
    assert facts.parse_gpus(table) == gpus


@pytest.mark.parametrize(
    ("text", "processors"), [("200000 100000\n", 2.0), ("max 100000\n", None), ("50000 100000", 0.5)]
)
def test_quota_of_cgroup_v2(facts, text, processors):
    assert facts.parse_cpu_max(text) == processors


@pytest.mark.parametrize(("quota", "processors"), [("-1\n", None), ("150000\n", 1.5)])
def test_quota_of_cgroup_v1(facts, quota, processors):
    assert facts.parse_cfs(quota, "100000\n") == processors


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("orin-nano-25w", "25W"),
        ("orin-nano-maxn-super", "MAXN_SUPER"),
        ("xavier-nx-15w", "MODE_15W_6CORE"),  # after a line that warns
    ],
)
def test_power_mode(facts, name, mode):
    assert facts.parse_power_mode(recorded(f"{name}.nvpmodel")) == mode


@pytest.mark.parametrize(("name", "version"), [("nvidia-550", "550.54.15"), ("nvidia-open-575", "575.57.08")])
def test_driver(facts, name, version):
    assert facts.parse_driver(recorded(f"{name}.version")) == version


def test_a_notebook(facts, tmp_path):
    root = recorded_tree(tmp_path, "laptop-x86.tree")
    assert facts.read_cpu_max_mhz(root, [0]) == 1600.0  # what is set, not the 3900 of the hardware
    assert facts.read_cpu_max_mhz(root, [1]) is None
    assert facts.read_turbo(root) is True
    assert facts.read_governor(root, 1) == "powersave"
    big = tmp_path / "sys/devices/system/cpu/cpu2/cpufreq"
    big.mkdir(parents=True)
    (big / "scaling_max_freq").write_text("2400000\n")
    assert facts.read_cpu_max_mhz(root, [0, 1, 2]) == 2400.0  # little and big cores: the big ones
    (tmp_path / "sys/devices/system/cpu/intel_pstate/no_turbo").write_text("1\n")
    assert facts.read_turbo(root) is False


@pytest.mark.parametrize(("boost", "turbo"), [("1\n", True), ("0\n", False), ("maybe\n", None)])
def test_turbo_of_another_driver(facts, tmp_path, boost, turbo):
    root = make_tree(tmp_path, {"sys/devices/system/cpu/cpufreq/boost": boost})
    assert facts.read_turbo(root) is turbo


def test_a_jetson(facts, reading, tmp_path, monkeypatch):
    said = {"nvpmodel": recorded("orin-nano-25w.nvpmodel")}
    monkeypatch.setattr(reading, "run_tool", lambda command: said.get(command[0]))
    found = facts.read_facts("onnxruntime", recorded_tree(tmp_path, "orin-nano.tree"))
    assert found["power_mode"] == "25W"
    assert found["board"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert found["versions"]["l4t"] == "36.4.3"
    assert "nvidia-driver" not in found["versions"]


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({".dockerenv": ""}, True),
        ({"run/.containerenv": "", "proc/1/comm": "systemd\n"}, True),
        ({"proc/self/cgroup": "0::/kubepods/pod1/main\n", "proc/1/comm": "systemd\n"}, True),
        ({"proc/self/cgroup": "0::/user.slice\n", "proc/1/comm": "systemd\n"}, False),
        ({"proc/self/cgroup": "0::/\n", "proc/1/comm": "sh\n"}, None),  # nothing says either
    ],
)
def test_container(facts, tmp_path, files, container):
    assert facts.read_container(make_tree(tmp_path, files)) is container


def test_a_raspberry_pi(facts, reading, tmp_path, monkeypatch):
    root = make_tree(
        tmp_path,
        {
            "proc/cpuinfo": recorded("raspberry-pi-5.cpuinfo"),
            "proc/meminfo": "MemTotal:        8244896 kB\nMemFree:         5000000 kB\n",
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-3.scope\n",
            "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
        },
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1, 2})
    monkeypatch.setattr(reading, "run_tool", lambda command: None)
    found = facts.read_facts("onnxruntime", root)
    assert found["cpu"] == "Cortex-A76"
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["cores"] == 3
    assert found["governor"] == "ondemand"
    assert found["memory_bytes"] == 8244896 * 1024
    assert found["system"].startswith("Debian GNU/Linux 12 (bookworm), ")
    assert (found["gpus"], found["hypervisor"], found["cgroup_cpus"]) == ([], None, None)
    assert [found[key] for key in ("turbo", "smt", "power_mode", "container")] == [None] * 4


def test_an_empty_tree_is_no_error(facts, reading, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "run_tool", lambda command: None)
    found = facts.read_facts("unknown", str(tmp_path))
    unread = ("cpu", "board", "memory_bytes", "governor", "hypervisor", "cpu_max_mhz", "turbo", "smt")
    assert [found[key] for key in (*unread, "power_mode", "container")] == [None] * 10
    assert found["isa"] == []


def test_the_smallest_quota_around_the_process(facts, tmp_path):
    root = make_tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kubepods/pod1/main\n",
            "sys/fs/cgroup/kubepods/pod1/main/cpu.max": "max 100000\n",
            "sys/fs/cgroup/kubepods/pod1/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/kubepods/cpu.max": "800000 100000\n",
        },
    )
    assert facts.read_cgroup_cpus(root) == 1.5


def test_a_container_of_cgroup_v1_sees_its_own_group_at_the_root(facts, tmp_path):
    root = make_tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert facts.read_cgroup_cpus(root) == 2.5


def test_an_old_driver_is_asked_for_the_name_alone(facts, reading, monkeypatch):
    asked = []

    def nvidia_smi(command):
        asked.append(command[-1])
        return None if "compute_cap" in command[-1] else "Tesla T4\n"

    monkeypatch.setattr(reading, "run_tool", nvidia_smi)
    assert facts.read_gpus() == ["Tesla T4"]
    assert asked == ["--query-gpu=name,compute_cap", "--query-gpu=name"]


def test_a_tool_that_is_missing_fails_or_hangs_says_nothing(reading, monkeypatch):
    monkeypatch.setattr(reading, "TOOL_SECONDS", 0.2)
    assert reading.run_tool(["edgekd-no-such-tool"]) is None
    assert reading.run_tool(["false"]) is None
    assert reading.run_tool(["sleep", "30"]) is None
    assert reading.run_tool(["echo", "throttled=0x0"]) == "throttled=0x0\n"


def test_facts_of_this_machine_agree_with_the_system(facts):
    found = facts.read_facts("onnxruntime")
    assert found["machine"] == os.uname().machine
    assert found["cores"] == int(subprocess.check_output(["nproc"], env={"PATH": os.environ["PATH"]}))
    assert found["versions"]["onnxruntime"]
