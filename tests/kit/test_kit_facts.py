"""The parsers of facts, on texts that real machines gave, and the reading, in trees made of such texts."""

import os
import subprocess
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


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
    assert facts.parse_ticks("cpu 1 2 3\n") is None
    assert facts.parse_throttled("VCHI initialization failed\n") is None
    assert facts.parse_throttled(None) is None
    assert facts.parse_cpu_max("") is None
    assert facts.parse_cfs("-1", None) is None


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


def test_stolen_ticks(facts):
    before = facts.parse_ticks("cpu  1000 0 500 8000 10 0 5 100 30 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    after = facts.parse_ticks("cpu  1900 0 500 8000 10 0 5 200 90 0\n")
    assert before == (100, 9615)  # guest time (30) is in user time already
    assert facts.steal_fraction(before, after) == pytest.approx(100 / 1000)
    assert facts.steal_fraction(before, before) is None
    assert facts.steal_fraction(None, after) is None


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [
        (0x0, 0x0, False),
        (0x50000, 0x50000, False),  # under-voltage since boot, but not now
        (0x0, 0x50000, True),  # it happened in between
        (0x0, 0x4, True),  # throttled now
        (0x8, 0x80000, True),  # the soft temperature limit, before
        (None, 0x0, None),
    ],
)
def test_throttling(facts, before, after, throttled):
    assert facts.was_throttled(before, after) is throttled
    assert facts.parse_throttled("throttled=0x50005\n") == 0x50005


def make_tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_a_raspberry_pi(facts, tmp_path, monkeypatch):
    root = make_tree(
        tmp_path,
        {
            "proc/cpuinfo": recorded("raspberry-pi-5.cpuinfo"),
            "proc/meminfo": "MemTotal:        8244896 kB\nMemFree:         5000000 kB\n",
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-3.scope\n",
            "proc/loadavg": "0.42 0.30 0.20 1/200 1234\n",
            "proc/stat": "cpu  10 0 10 100 0 0 0 0 0 0\n",
            "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
        },
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1, 2})
    monkeypatch.setattr(
        facts, "run_tool", lambda command: "throttled=0x0\n" if command[0] == "vcgencmd" else None
    )
    found = facts.read_facts("onnxruntime", root)
    assert found["cpu"] == "Cortex-A76"
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["cores"] == 3
    assert found["governor"] == "ondemand"
    assert found["memory_bytes"] == 8244896 * 1024
    assert found["system"].startswith("Debian GNU/Linux 12 (bookworm), ")
    assert (found["gpus"], found["hypervisor"], found["cgroup_cpus"]) == ([], None, None)
    moment = facts.snapshot(root)
    assert moment == {"load1": 0.42, "ticks": (0, 120), "throttled": 0}
    assert facts.conditions(moment, moment) == {"load1": 0.42, "steal_fraction": None, "throttled": False}


def test_an_empty_tree_is_no_error(facts, tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "run_tool", lambda command: None)
    found = facts.read_facts("unknown", str(tmp_path))
    assert [found[key] for key in ("cpu", "board", "memory_bytes", "governor", "hypervisor")] == [None] * 5
    assert found["isa"] == []
    assert facts.conditions(facts.snapshot(str(tmp_path)), facts.snapshot(str(tmp_path))) == {
        "load1": None,
        "steal_fraction": None,
        "throttled": None,
    }


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


def test_an_old_driver_is_asked_for_the_name_alone(facts, monkeypatch):
    asked = []

    def nvidia_smi(command):
        asked.append(command[-1])
        return None if "compute_cap" in command[-1] else "Tesla T4\n"

    monkeypatch.setattr(facts, "run_tool", nvidia_smi)
    assert facts.read_gpus() == ["Tesla T4"]
    assert asked == ["--query-gpu=name,compute_cap", "--query-gpu=name"]


def test_a_tool_that_is_missing_fails_or_hangs_says_nothing(facts, monkeypatch):
    monkeypatch.setattr(facts, "TOOL_SECONDS", 0.2)
    assert facts.run_tool(["edgekd-no-such-tool"]) is None
    assert facts.run_tool(["false"]) is None
    assert facts.run_tool(["sleep", "30"]) is None
    assert facts.run_tool(["echo", "throttled=0x0"]) == "throttled=0x0\n"


def test_facts_of_this_machine_agree_with_the_system(facts):
    found = facts.read_facts("onnxruntime")
    assert found["machine"] == os.uname().machine
    assert found["cores"] == int(subprocess.check_output(["nproc"], env={"PATH": os.environ["PATH"]}))
    assert found["versions"]["onnxruntime"]
