"""Device profiles: the shipped ones, the search path, and whether a machine is that device."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.devices.isa import int8_instruction
from edgekd.devices.profiles import (
    best_match,
    list_profiles,
    load_profile,
    load_profile_at,
    local_profile,
    mismatches,
    profile_folders,
    profile_path,
    target_sm,
)
from edgekd.documents.profile import Figure, OperatingPoint, Profile
from edgekd.documents.run_log import Facts
from edgekd.errors import DocumentError, UsageError
from edgekd.shipped import shipped

SHIPPED = {path.stem: Profile.read(path) for path in sorted(shipped("profiles").glob("*.toml"))}

EPYC = Facts(
    machine="x86_64",
    system="Linux 6.1",
    cpu="AMD EPYC",
    isa=("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni"),
    cores=2,
    memory_bytes=8 * 2**30,
    governor=None,
    versions={"python": "3.11.7", "onnxruntime": "1.31.1"},
)
HASWELL = EPYC.model_copy(update={"cpu": "Intel Core i7-4770", "isa": ("avx", "avx2", "fma")})
ALDER_LAKE = EPYC.model_copy(update={"cpu": "Intel N100", "isa": ("avx", "avx2", "fma", "avx_vnni")})
SAPPHIRE_RAPIDS = EPYC.model_copy(update={"cpu": "Intel Xeon", "isa": (*EPYC.isa, "amx_int8")})
L4_SERVER = EPYC.model_copy(update={"gpus": ("NVIDIA L4 (8.9)",)})
PI_5 = Facts(
    machine="aarch64",
    system="Debian GNU/Linux 12, Linux 6.6",
    cpu="Cortex-A76",
    board="Raspberry Pi 5 Model B Rev 1.0",
    isa=("asimd", "asimddp", "asimdhp"),
    cores=4,
    memory_bytes=8_443_461_632,
    governor="ondemand",
    versions={"python": "3.11.2"},
)
ORIN_NANO = PI_5.model_copy(
    update={
        "cpu": "Cortex-A78AE",
        "board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "memory_bytes": 7_990_000_000,
    }
)
PI_4 = PI_5.model_copy(
    update={
        "cpu": "Cortex-A72",
        "board": "Raspberry Pi 4 Model B Rev 1.4",
        "isa": ("asimd",),
        "memory_bytes": 8_189_784_064,
    }
)
ZERO_2 = PI_4.model_copy(
    update={"cpu": "Cortex-A53", "board": "Raspberry Pi Zero 2 W Rev 1.0", "memory_bytes": 437_903_360}
)
IMX8MP = ZERO_2.model_copy(update={"board": "NXP i.MX8MPlus EVK board", "memory_bytes": 6_000_000_000})
PROFILE = """
schema = 1
id = "{name}"
description = "{description}"
kind = "x86"
runtimes = []
[detect]
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folders: two that EDGEKD_PROFILES names, of which the first exists."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    monkeypatch.setenv("EDGEKD_PROFILES", f"{folder}{os.pathsep}{tmp_path / 'none'}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)
    return folder / f"{name}.toml"


def figures(profile: Profile) -> Iterator[tuple[str, Figure]]:
    for name, point in profile.operating_points.items():
        for key in OperatingPoint.model_fields:
            if isinstance(figure := getattr(point, key), Figure):
                yield f"{name}.{key}", figure
    for key, figure in (
        ("memory_bytes", profile.memory_bytes),
        ("cpu.cores", profile.cpu and profile.cpu.cores),
        ("gpu.sm_count", profile.gpu and profile.gpu.sm_count),
    ):
        if figure is not None:
            yield key, figure


def test_the_nine_devices_are_shipped() -> None:
    assert list(SHIPPED) == [
        "jetson-orin-nano-8gb",
        "nvidia-h200-sxm",
        "nvidia-l4",
        "nxp-imx8m-plus",
        "raspberry-pi-4-8gb",
        "raspberry-pi-5-8gb",
        "raspberry-pi-zero-2-w",
        "x86-64-avx2",
        "x86-64-avx512-vnni",
    ]
    assert [one.problem for one in list_profiles()] == [None] * 9


@pytest.mark.parametrize("name", SHIPPED)
def test_a_derived_figure_is_the_product_of_the_numbers_in_its_source(name: str) -> None:
    derived = [(key, one) for key, one in figures(SHIPPED[name]) if one.provenance == "derived"]
    for key, figure in derived:
        product = math.prod(
            float(number)
            for number in re.findall(r"(?<![\w-])\d+(?:\.\d+)?(?![\w-])", figure.source.split(";")[0])
        )
        power = math.log10(product / figure.value)
        assert power == pytest.approx(round(power), abs=0.003), key  # two to three digits are written
        assert round(power) % 3 == 0, key


@pytest.mark.parametrize("name", SHIPPED)
def test_peaks_are_dense(name: str) -> None:
    for key, point in SHIPPED[name].operating_points.items():
        if point.int8_tops and point.fp16_tflops:
            assert point.int8_tops.value == pytest.approx(2 * point.fp16_tflops.value, rel=0.01), key
        advertised_as_sparse = {40, 67, 485, 3958, 1979 * 2}
        assert point.int8_tops is None or point.int8_tops.value not in advertised_as_sparse, key


def test_the_orin_nano_has_its_three_modes() -> None:
    points = SHIPPED["jetson-orin-nano-8gb"].operating_points
    assert {name: point.gpu_mhz and point.gpu_mhz.value for name, point in points.items()} == {
        "15W": 612,
        "25W": 918,
        "MAXN_SUPER": 1020,
    }
    assert [name for name, point in points.items() if point.default] == ["25W"]


@pytest.mark.parametrize(
    ("facts", "matching"),
    [
        (EPYC, ["x86-64-avx512-vnni"]),
        (HASWELL, ["x86-64-avx2"]),
        (ALDER_LAKE, []),
        (SAPPHIRE_RAPIDS, []),
        (L4_SERVER, ["nvidia-l4", "x86-64-avx512-vnni"]),
        (PI_5, ["raspberry-pi-5-8gb"]),
        (ORIN_NANO, ["jetson-orin-nano-8gb"]),
        (PI_4, ["raspberry-pi-4-8gb"]),
        (PI_4.model_copy(update={"memory_bytes": 4 * 2**30}), []),
        (ZERO_2, ["raspberry-pi-zero-2-w"]),
        (IMX8MP, ["nxp-imx8m-plus"]),
        (IMX8MP.model_copy(update={"isa": ("asimd", "asimddp")}), []),
    ],
    ids=[
        *("epyc", "haswell", "alder-lake", "sapphire-rapids", "l4", "pi-5", "orin-nano"),
        *("pi-4", "pi-4-4gb", "zero-2", "imx8mp", "a-later-imx"),
    ],
)
def test_a_machine_matches_its_own_profiles_and_no_other(facts: Facts, matching: list[str]) -> None:
    assert [name for name, profile in SHIPPED.items() if not mismatches(profile, facts)] == matching
    best = best_match(facts, SHIPPED.values())
    assert (best.id if best else None) == (matching[0] if matching else None)


@pytest.mark.parametrize(
    ("name", "facts", "lines"),
    [
        (
            "x86-64-avx512-vnni",
            HASWELL,
            (
                "the profile wants avx512f; this machine (Intel Core i7-4770) does not report it",
                "the profile wants avx512bw; this machine (Intel Core i7-4770) does not report it",
                "the profile wants avx512_vnni; this machine (Intel Core i7-4770) does not report it",
            ),
        ),
        (
            "x86-64-avx2",
            EPYC,
            ("the profile is for machines without avx512_vnni; this machine (AMD EPYC) reports it",),
        ),
        (
            "raspberry-pi-5-8gb",
            EPYC,
            (
                "the profile wants aarch64; this machine (AMD EPYC) is x86_64",
                "the profile wants the board Raspberry Pi 5; this machine (AMD EPYC) reports no board",
            ),
        ),
        (
            "raspberry-pi-5-8gb",
            PI_5.model_copy(update={"memory_bytes": 4 * 2**30}),
            ("the profile wants 6.98 GiB of memory; this machine (Cortex-A76) reports 4.00 GiB",),
        ),
        (
            "raspberry-pi-5-8gb",
            PI_5.model_copy(update={"memory_bytes": None}),
            ("the profile wants 6.98 GiB of memory; this machine (Cortex-A76) reports no size",),
        ),
        (
            "nvidia-l4",
            EPYC,
            ("the profile wants the GPU NVIDIA L4; this machine (AMD EPYC) reports no NVIDIA GPU",),
        ),
        (
            "nvidia-l4",
            EPYC.model_copy(update={"gpus": ("NVIDIA L40S (8.9)", "Tesla T4")}),
            ("the profile wants the GPU NVIDIA L4; this machine (AMD EPYC) reports NVIDIA L40S, Tesla T4",),
        ),
        (
            "nvidia-h200-sxm",
            EPYC.model_copy(update={"gpus": ("NVIDIA H200 (8.9)",)}),
            ("the profile wants SM 90; the NVIDIA H200 of this machine (AMD EPYC) reports 89",),
        ),
        ("nvidia-h200-sxm", EPYC.model_copy(update={"gpus": ("NVIDIA H200",)}), ()),
    ],
)
def test_each_difference_is_named(name: str, facts: Facts, lines: tuple[str, ...]) -> None:
    assert mismatches(SHIPPED[name], facts) == lines


def test_one_of_several_features_is_enough() -> None:
    profile = SHIPPED["x86-64-avx2"]
    detect = profile.detect.model_copy(update={"isa_any": ("avx_vnni", "amx_int8"), "isa_absent": ()})
    either = profile.model_copy(update={"detect": detect})
    assert mismatches(either, ALDER_LAKE) == ()
    assert mismatches(either, HASWELL) == (
        "the profile wants avx_vnni or amx_int8; this machine (Intel Core i7-4770) reports none of them",
    )


@pytest.mark.parametrize("facts", [EPYC, HASWELL, L4_SERVER, PI_5, ORIN_NANO, PI_4, IMX8MP])
def test_the_local_profile_is_the_machine_that_it_was_made_of(facts: Facts) -> None:
    profile = local_profile(facts)
    assert (profile.id, profile.kind) == ("local", "local")
    assert mismatches(profile, facts) == ()
    assert Profile.parse(profile.model_dump(mode="json", by_alias=True), where="local") == profile


def test_the_local_profile_says_what_the_facts_say() -> None:
    profile = local_profile(L4_SERVER)
    assert profile.description == "the machine at hand: AMD EPYC"
    assert profile.cpu is not None
    assert (profile.cpu.int8, profile.cpu.cores and profile.cpu.cores.value) == ("vnni", 2)
    assert target_sm(profile) == 89
    assert [(one.runtime, one.versions) for one in profile.runtimes] == [("onnxruntime", "1.31.1")]
    assert target_sm(local_profile(EPYC)) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_the_instruction_is_that_of_the_features_that_the_profile_wants(name: str) -> None:
    profile = SHIPPED[name]
    if profile.cpu is not None:
        assert profile.cpu.int8 == int8_instruction(profile.detect.isa)


@pytest.mark.parametrize("name", ["nxp-imx8m-plus", "raspberry-pi-4-8gb", "raspberry-pi-zero-2-w"])
def test_boards_without_a_dot_product_do_at_most_twice_as_many_operations_in_int8(name: str) -> None:
    assert SHIPPED[name].detect.isa_absent == ("asimddp", "asimdhp")
    for key, point in SHIPPED[name].operating_points.items():
        assert point.int8_tops is not None
        assert point.fp32_tflops is not None
        assert point.int8_tops.value == pytest.approx(2 * point.fp32_tflops.value, rel=0.01), key


def test_an_operating_point_is_named_or_the_default() -> None:
    assert load_profile_at("jetson-orin-nano-8gb@15W") == (SHIPPED["jetson-orin-nano-8gb"], "15W")
    assert load_profile_at("jetson-orin-nano-8gb") == (SHIPPED["jetson-orin-nano-8gb"], "25W")
    assert load_profile("jetson-orin-nano-8gb@15W") == SHIPPED["jetson-orin-nano-8gb"]
    assert target_sm(SHIPPED["jetson-orin-nano-8gb"]) == 87


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "jetson-orin-nano-8gb@MAXN_SUPR",
            "the profile jetson-orin-nano-8gb has no operating point 'MAXN_SUPR'; "
            "did you mean 'MAXN_SUPER'?\n"
            "  try: jetson-orin-nano-8gb has 15W, 25W, MAXN_SUPER",
        ),
        (
            "plain@",
            "the profile plain has no operating point ''\n"
            "  try: plain has no operating points; name it alone",
        ),
        (
            "x86-64-avx512vnni",
            "there is no profile 'x86-64-avx512vnni'; did you mean 'x86-64-avx512-vnni'?\n"
            "  try: edgekd devices list shows every profile, edgekd devices where the folders searched",
        ),
        (
            "../profiles/plain",
            "there is no profile '../profiles/plain'\n"
            "  try: edgekd devices list shows every profile, edgekd devices where the folders searched",
        ),
        ("local", "the profile 'local' has no file: it is the machine at hand, probed when it is used"),
    ],
)
def test_what_is_not_there_is_named(own_folder: Path, reference: str, message: str) -> None:
    write(own_folder, "plain", PROFILE.format(name="plain", description="plain"))
    with pytest.raises(UsageError) as caught:
        load_profile(reference)
    assert str(caught.value) == message


def test_the_first_folder_wins(own_folder: Path, tmp_path: Path) -> None:
    write(own_folder, "nvidia-l4", PROFILE.format(name="nvidia-l4", description="mine"))
    config = tmp_path / "config" / "edgekd" / "profiles"
    write(config, "nvidia-l4", PROFILE.format(name="nvidia-l4", description="configured"))
    other = write(config, "my-board", PROFILE.format(name="my-board", description="configured"))
    assert profile_folders() == (own_folder, tmp_path / "none", config, shipped("profiles"))
    assert load_profile("nvidia-l4").description == "mine"
    assert profile_path("my-board") == other
    assert len(list_profiles()) == 10


def test_the_configuration_folder_is_in_the_home_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGEKD_PROFILES")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert profile_folders() == (tmp_path / ".config" / "edgekd" / "profiles", shipped("profiles"))


def test_a_broken_file_is_listed_with_its_problem_and_is_not_fatal(own_folder: Path) -> None:
    write(own_folder, "broken", "schema = 1\nid = 3\n")
    renamed = write(own_folder, "renamed", PROFILE.format(name="original", description="a copy"))
    listed = {one.name: one for one in list_profiles()}
    assert len(listed) == 11
    assert listed["renamed"].problem == "id: found 'original'; it is the file's name without .toml, 'renamed'"
    assert listed["broken"].profile is None
    assert listed["broken"].problem is not None
    assert listed["broken"].problem.startswith("id: found 3; a string is expected; description: is missing")
    with pytest.raises(DocumentError) as caught:
        load_profile("renamed")
    assert str(caught.value) == (
        f"{renamed}: 1 problem\n  id: found 'original'; it is the file's name without .toml, 'renamed'\n"
        "  try: call the file original.toml, or write id = 'renamed'"
    )


def test_nobody_else_is_local(own_folder: Path) -> None:
    write(own_folder, "mine", PROFILE.format(name="mine", description="mine").replace("x86", "local"))
    listed = {one.name: one.problem for one in list_profiles()}
    assert listed["mine"] == "kind: 'local' is the machine at hand; another kind is expected"
    write(own_folder, "local", PROFILE.format(name="local", description="mine"))
    listed = {one.name: one.problem for one in list_profiles()}
    assert listed["local"] == "id: 'local' is the machine at hand; another id is expected"
