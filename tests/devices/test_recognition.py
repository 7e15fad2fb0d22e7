"""Which profile a machine is, from what devices report: recorded texts, read by the kit's own parsers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.devices.probe import nearest_profiles, probe
from edgekd.devices.profiles import best_match, mismatches, point_here, point_mismatches
from edgekd.documents.profile import Profile
from edgekd.documents.run_log import Facts
from edgekd.shipped import shipped

SHIPPED = {path.stem: Profile.read(path) for path in sorted(shipped("profiles").glob("*.toml"))}
RECORDED = Path(__file__).parents[1] / "kit" / "recorded"
GB = 10**9


def _kit_facts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kit_facts_here", shipped("export", "kit", "facts.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(shipped("export", "kit")))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


KIT = _kit_facts()


def facts(machine: str, cpu: str | None, isa: tuple[str, ...], **more: object) -> Facts:
    given = {"system": "Linux", "cores": 4, "memory_bytes": 8 * GB, "governor": None, "versions": {}, **more}
    return Facts.model_validate({"machine": machine, "cpu": cpu, "isa": isa, **given})


def recorded(name: str, machine: str, **more: object) -> Facts:
    text = (RECORDED / f"{name}.cpuinfo").read_text()
    return facts(machine, KIT.parse_cpu_name(text), tuple(KIT.parse_isa(text)), **more)


VNNI = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni")
AVX_VNNI = ("avx2", "fma", "avx_vnni")
A78 = ("asimd", "asimddp", "asimdhp")
H200 = "NVIDIA H200 (9.0)"

MACHINES = {
    "raspberry-pi-5-8gb": recorded("raspberry-pi-5", "aarch64", board="Raspberry Pi 5 Model B Rev 1.0"),
    "rockchip-rk3588": recorded("rk3588", "aarch64", board="Radxa ROCK 5B", memory_bytes=16 * GB),
    "jetson-orin-nano-8gb": recorded(
        "jetson-orin-nano",
        "aarch64",
        board="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    ),
    "jetson-orin-nx-16gb": recorded(
        "jetson-orin-nano",
        "aarch64",
        board="NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        memory_bytes=16_416_000_000,
    ),
    "jetson-agx-orin-64gb": recorded(
        "jetson-orin-nano", "aarch64", board="NVIDIA Jetson AGX Orin Developer Kit", memory_bytes=65 * GB
    ),
    "jetson-agx-thor-t5000-128gb": facts(
        "aarch64",
        "Arm implementer 0x41 part 0xd83",
        (*A78, "i8mm", "sve", "bf16"),
        board="NVIDIA Jetson AGX Thor Developer Kit",
        memory_bytes=128 * GB,
    ),
    "jetson-xavier-nx-8gb": facts(
        "aarch64",
        "Arm implementer 0x4e part 0x004",
        ("asimd", "asimdhp"),
        board="NVIDIA Jetson Xavier NX Developer Kit",
        memory_bytes=7_200_000_000,
    ),
    "raspberry-pi-4-8gb": facts("aarch64", "Cortex-A72", ("asimd",), board="Raspberry Pi 4 Model B Rev 1.4"),
    "raspberry-pi-zero-2-w": facts(
        "aarch64", "Cortex-A53", ("asimd",), board="Raspberry Pi Zero 2 W Rev 1.0", memory_bytes=437_903_360
    ),
    "nxp-imx8m-plus": facts("aarch64", "Cortex-A53", ("asimd",), board="NXP i.MX8MPlus EVK board"),
    "intel-n100": facts("x86_64", "Intel(R) N100", AVX_VNNI),
    "intel-core-ultra-155h": facts("x86_64", "Intel(R) Core(TM) Ultra 7 155H", AVX_VNNI),
    "intel-core-ultra-200v": facts(
        "x86_64", "Intel(R) Core(TM) Ultra 7 258V", (*AVX_VNNI, "avx_vnni_int8"), memory_bytes=32 * GB
    ),
    "amd-ryzen-embedded-8845hs-class": facts("x86_64", "AMD Ryzen 7 8845HS w/ Radeon 780M Graphics", VNNI),
    "x86-64-avx512-vnni": recorded("epyc-vm", "x86_64"),
    "x86-64-avx2": facts("x86_64", "Intel(R) Core(TM) i7-4770", ("avx2", "fma")),
    "x86-64-amx": facts("x86_64", "Intel(R) Xeon(R) Processor", (*VNNI, "avx_vnni", "amx_int8")),
    "nvidia-h200-sxm": facts("x86_64", "Intel(R) Xeon(R) Platinum 8480C", (*VNNI, "amx_int8"), gpus=(H200,)),
    "nvidia-h100-sxm": facts("x86_64", "AMD EPYC 9654", VNNI, gpus=("NVIDIA H100 80GB HBM3 (9.0)",)),
    "nvidia-t4": facts("x86_64", "Intel(R) Xeon(R) CPU @ 2.20GHz", ("avx2", "fma"), gpus=("Tesla T4 (7.5)",)),
    "nvidia-a10": facts("x86_64", "AMD EPYC 74F3", ("avx2", "fma"), gpus=("NVIDIA A10 (8.6)",)),
    "nvidia-l4": facts("x86_64", "Intel(R) Xeon(R) CPU @ 2.20GHz", VNNI, gpus=("NVIDIA L4 (8.9)",)),
    "rtx-4060-laptop": facts(
        "x86_64",
        "AMD Ryzen 7 8845HS w/ Radeon 780M Graphics",
        VNNI,
        gpus=("NVIDIA GeForce RTX 4060 Laptop GPU (8.9)",),
    ),
}
"""A machine for each shipped profile."""

ORIN = MACHINES["jetson-orin-nano-8gb"]
ORIN_NX = MACHINES["jetson-orin-nx-16gb"]


def at(machine: Facts, power_mode: str | None = None, cpu_max_mhz: float | None = None) -> Facts:
    return machine.model_copy(update={"power_mode": power_mode, "cpu_max_mhz": cpu_max_mhz})


def test_every_profile_has_its_machine() -> None:
    assert set(MACHINES) == set(SHIPPED)


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_recognized_as_its_own_profile(name: str) -> None:
    best = best_match(MACHINES[name], SHIPPED.values())
    assert best is not None
    assert best.id == name


@pytest.mark.parametrize("name", MACHINES)
def test_a_board_matches_its_own_profile_alone(name: str) -> None:
    matching = [one.id for one in SHIPPED.values() if not mismatches(one, MACHINES[name])]
    behind = {
        "amd-ryzen-embedded-8845hs-class": {"x86-64-avx512-vnni"},
        "nvidia-h200-sxm": {"x86-64-amx"},
        "nvidia-h100-sxm": {"x86-64-avx512-vnni"},
        "nvidia-t4": {"x86-64-avx2"},
        "nvidia-a10": {"x86-64-avx2"},
        "nvidia-l4": {"x86-64-avx512-vnni"},
        "rtx-4060-laptop": {"amd-ryzen-embedded-8845hs-class", "x86-64-avx512-vnni"},
    }
    assert set(matching) == {name, *behind.get(name, set())}


@pytest.mark.parametrize(
    ("name", "smaller"),
    [("jetson-orin-nano-8gb", 4), ("jetson-orin-nx-16gb", 8), ("jetson-agx-orin-64gb", 32)],
)
def test_a_sibling_with_less_memory_is_another_device(name: str, smaller: int) -> None:
    assert (
        best_match(MACHINES[name].model_copy(update={"memory_bytes": smaller * GB}), SHIPPED.values()) is None
    )


@pytest.mark.parametrize(
    ("name", "older"),
    [
        ("jetson-orin-nano-8gb", "NVIDIA Orin Nano Developer Kit"),
        ("jetson-orin-nx-16gb", "NVIDIA Orin NX Developer Kit"),
    ],
)
def test_the_name_that_an_older_system_has_is_known_too(name: str, older: str) -> None:
    best = best_match(MACHINES[name].model_copy(update={"board": older}), SHIPPED.values())
    assert best is not None
    assert best.id == name


def test_an_unknown_processor_and_board_are_told() -> None:
    pi = MACHINES["raspberry-pi-5-8gb"]
    assert mismatches(SHIPPED["rockchip-rk3588"], pi) == (
        "the profile wants the processor Cortex-A55 + Cortex-A76; "
        "the machine (Cortex-A76) reports Cortex-A76",
    )
    nameless = pi.model_copy(update={"cpu": None, "board": None})
    assert mismatches(SHIPPED["rockchip-rk3588"], nameless) == (
        "the profile wants the processor Cortex-A55 + Cortex-A76; the machine (aarch64) reports no processor",
    )
    assert mismatches(SHIPPED["jetson-orin-nano-8gb"], pi) == (
        "the profile wants the board NVIDIA Jetson Orin Nano or NVIDIA Orin Nano; the machine (Cortex-A76) "
        "reports Raspberry Pi 5 Model B Rev 1.0",
    )


@pytest.mark.parametrize(
    ("point", "machine", "lines"),
    [
        ("25W", at(ORIN, "25W", 1344), ()),
        ("25W", at(ORIN, "25W"), ()),
        ("25W", at(ORIN), ()),
        ("25W", at(ORIN, None, 1344 * 1.049), ()),
        (
            "25W",
            at(ORIN, "MAXN_SUPER", 1728),
            (
                "jetson-orin-nano-8gb@25W is the power mode 25W; the machine (Cortex-A78AE) is in MAXN_SUPER",
                "jetson-orin-nano-8gb@25W has a highest processor clock of 1344 MHz; "
                "the machine (Cortex-A78AE) reports 1728 MHz",
            ),
        ),
        (
            "25W",
            at(ORIN, None, 1344 * 0.949),
            (
                "jetson-orin-nano-8gb@25W has a highest processor clock of 1344 MHz; "
                "the machine (Cortex-A78AE) reports 1275.46 MHz",
            ),
        ),
        (None, at(ORIN, "MAXN_SUPER", 1728), ()),
    ],
)
def test_another_power_mode_and_another_clock_are_told(
    point: str | None, machine: Facts, lines: tuple[str, ...]
) -> None:
    assert point_mismatches(SHIPPED["jetson-orin-nano-8gb"], point, machine) == lines


@given(st.floats(100, 10_000, allow_nan=False))
def test_a_clock_differs_when_it_is_more_than_a_twentieth_off(mhz: float) -> None:
    profile, machine = SHIPPED["raspberry-pi-5-8gb"], at(MACHINES["raspberry-pi-5-8gb"], None, mhz)
    lines = point_mismatches(profile, "stock", machine)
    if abs(mhz - 2400) < 0.0499 * 2400:
        assert lines == ()
    if abs(mhz - 2400) > 0.0501 * 2400:
        assert len(lines) == 1


@pytest.mark.parametrize("mode", ["MODE_30W", "30W", "mode_30w", " MODE_30W\n"])
def test_a_mode_is_the_same_however_it_is_spelled(mode: str) -> None:
    profile, machine = SHIPPED["jetson-agx-orin-64gb"], MACHINES["jetson-agx-orin-64gb"]
    assert point_mismatches(profile, "30W", at(machine, mode)) == ()
    assert len(point_mismatches(profile, "50W", at(machine, mode))) == 1


def test_a_unit_to_scale_from_is_compared_with_no_clock() -> None:
    profile = SHIPPED["x86-64-amx"]
    assert point_mismatches(profile, "1-core-1-ghz", at(MACHINES["x86-64-amx"], None, 3800)) == ()
    assert point_here(profile, at(MACHINES["x86-64-amx"], None, 3800)) is None


@pytest.mark.parametrize(
    ("name", "power_mode", "cpu_max_mhz", "point"),
    [
        ("jetson-orin-nano-8gb", "25W", 1344, "25W"),
        ("jetson-orin-nano-8gb", "25W", None, "25W"),
        ("jetson-orin-nano-8gb", None, 1497.6, "15W"),
        ("jetson-orin-nano-8gb", None, None, None),
        ("jetson-orin-nano-8gb", "MY_MODE", 1344, None),
        ("jetson-orin-nx-16gb", "15W", 1420.8, "15W"),
        ("jetson-orin-nx-16gb", "15W", 1651.2, "15W-legacy"),
        ("jetson-orin-nx-16gb", "25W", 1497.6, "25W"),
        ("jetson-orin-nx-16gb", "MAXN", 1984, "MAXN"),
        ("jetson-agx-orin-64gb", "MODE_15W", 1113.6, "15W"),
        ("raspberry-pi-4-8gb", None, 1800, "1800-mhz"),
        ("raspberry-pi-4-8gb", None, 2000, None),
        ("rockchip-rk3588", None, 2400, "stock"),
    ],
)
def test_the_operating_point_is_recognized(
    name: str, power_mode: str | None, cpu_max_mhz: float | None, point: str | None
) -> None:
    assert point_here(SHIPPED[name], at(MACHINES[name], power_mode, cpu_max_mhz)) == point


def test_a_probe_of_a_known_machine() -> None:
    found = probe(at(ORIN, "MAXN_SUPER", 1700), SHIPPED.values())
    assert found.profile is SHIPPED["jetson-orin-nano-8gb"]
    assert (found.also, found.point, found.point_differences, found.nearest) == ((), "MAXN_SUPER", (), ())


def test_a_probe_in_a_mode_that_nobody_knows() -> None:
    found = probe(at(ORIN, "MY_MODE", 1700), SHIPPED.values())
    assert found.point is None
    assert found.point_differences[0] == (
        "jetson-orin-nano-8gb@25W is the power mode 25W; the machine (Cortex-A78AE) is in MY_MODE"
    )


def test_a_probe_names_what_else_the_machine_is() -> None:
    found = probe(MACHINES["rtx-4060-laptop"], SHIPPED.values())
    assert found.profile is not None
    assert [found.profile.id, *(one.id for one in found.also)] == [
        *("rtx-4060-laptop", "amd-ryzen-embedded-8845hs-class", "x86-64-avx512-vnni")
    ]


def test_the_nearest_profiles_have_the_same_architecture_and_gpu() -> None:
    pi_4gb = MACHINES["raspberry-pi-5-8gb"].model_copy(update={"memory_bytes": 4 * GB})
    found = probe(pi_4gb, SHIPPED.values())
    assert found.profile is None
    assert found.nearest[0].profile.id == "raspberry-pi-5-8gb"
    assert found.nearest[0].differences == (
        "the profile wants 6.98 GiB of memory; the machine (Cortex-A76) reports 3.73 GiB",
    )
    assert {"aarch64"} == {machine for one in found.nearest for machine in one.profile.detect.machine}

    alder_lake = facts("x86_64", "12th Gen Intel(R) Core(TM) i5-1240P", AVX_VNNI)
    nearest = nearest_profiles(alder_lake, SHIPPED.values())
    assert {one.profile.kind for one in nearest} == {"x86"}
    assert all(len(one.differences) == 1 for one in nearest)

    l40s = facts("x86_64", "AMD EPYC 7543", ("sse4_2",), gpus=("NVIDIA L40S (8.9)",))
    first, second, _ = nearest_profiles(l40s, SHIPPED.values())
    assert {first.profile.id, second.profile.id} == {"nvidia-l4", "rtx-4060-laptop"}
