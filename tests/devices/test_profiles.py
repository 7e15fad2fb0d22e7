"""Device profiles: the shipped ones, the search path, and whether a machine is that device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
from edgekd.documents.profile import Profile
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
ALDER_LAKE = EPYC.model_copy(update={"cpu": "Intel(R) N100", "isa": ("avx", "avx2", "fma", "avx_vnni")})
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


@pytest.mark.parametrize(
    ("facts", "matching"),
    [
        (EPYC, ["x86-64-avx512-vnni"]),
        (HASWELL, ["x86-64-avx2"]),
        (ALDER_LAKE, ["intel-n100"]),
        (ALDER_LAKE.model_copy(update={"cpu": "12th Gen Intel(R) Core(TM) i5-1240P"}), []),
        (SAPPHIRE_RAPIDS, ["x86-64-amx"]),
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
        *("epyc", "haswell", "n100", "alder-lake", "sapphire-rapids", "l4", "pi-5", "orin-nano"),
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
                "the profile wants avx512f; the machine (Intel Core i7-4770) does not report it",
                "the profile wants avx512bw; the machine (Intel Core i7-4770) does not report it",
                "the profile wants avx512_vnni; the machine (Intel Core i7-4770) does not report it",
            ),
        ),
        (
            "x86-64-avx2",
            EPYC,
            ("the profile is for machines without avx512_vnni; the machine (AMD EPYC) reports it",),
        ),
        (
            "raspberry-pi-5-8gb",
            EPYC,
            (
                "the profile wants aarch64; the machine (AMD EPYC) is x86_64",
                "the profile wants the board Raspberry Pi 5; the machine (AMD EPYC) reports no board",
            ),
        ),
        (
            "raspberry-pi-5-8gb",
            PI_5.model_copy(update={"memory_bytes": 4 * 2**30}),
            ("the profile wants 6.98 GiB of memory; the machine (Cortex-A76) reports 4.00 GiB",),
        ),
        (
            "raspberry-pi-5-8gb",
            PI_5.model_copy(update={"memory_bytes": None}),
            ("the profile wants 6.98 GiB of memory; the machine (Cortex-A76) reports no size",),
        ),
        (
            "nvidia-l4",
            EPYC,
            ("the profile wants the GPU NVIDIA L4; the machine (AMD EPYC) reports no NVIDIA GPU",),
        ),
        (
            "nvidia-l4",
            EPYC.model_copy(update={"gpus": ("NVIDIA L40S (8.9)", "Tesla T4")}),
            ("the profile wants the GPU NVIDIA L4; the machine (AMD EPYC) reports NVIDIA L40S, Tesla T4",),
        ),
        (
            "nvidia-h200-sxm",
            EPYC.model_copy(update={"gpus": ("NVIDIA H200 (8.9)",)}),
            ("the profile wants SM 90; the NVIDIA H200 of the machine (AMD EPYC) reports 89",),
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
        "the profile wants avx_vnni or amx_int8; the machine (Intel Core i7-4770) reports none of them",
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


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("p3767-0003", "jetson-orin-nano-8gb"),
        ("P3767-0000", "jetson-orin-nx-16gb"),
        ("bcm2712", "raspberry-pi-5-8gb"),
        ("raspberry-pi-4b-8gb", "raspberry-pi-4-8gb"),
        ("rk3588", "rockchip-rk3588"),
    ],
)
def test_an_alias_is_a_name_too(alias: str, name: str) -> None:
    assert load_profile(alias) == SHIPPED[name]
    assert profile_path(alias) == shipped("profiles", f"{name}.toml")


def test_an_alias_goes_with_an_operating_point() -> None:
    assert load_profile_at("p3767-0003@15W") == (SHIPPED["jetson-orin-nano-8gb"], "15W")
    with pytest.raises(UsageError) as caught:
        load_profile("p3767-0003@7W")
    assert str(caught.value) == (
        "the profile jetson-orin-nano-8gb has no operating point '7W'\n"
        "  try: jetson-orin-nano-8gb has 15W, 25W, MAXN_SUPER"
    )


def test_an_alias_of_several_profiles_is_refused_with_their_names(own_folder: Path) -> None:
    for name in ("first", "second"):
        text = PROFILE.format(name=name, description=name).replace(
            "runtimes", 'aliases = ["BCM2712"]\nruntimes'
        )
        write(own_folder, name, text)
    with pytest.raises(UsageError) as caught:
        load_profile("BCM2712")
    assert str(caught.value) == (
        "'BCM2712' is an alias of several profiles: first, raspberry-pi-5-8gb, second\n"
        "  try: name one of them"
    )
    assert load_profile("first").id == "first"


def test_a_name_goes_before_an_alias(own_folder: Path) -> None:
    write(own_folder, "rk3588", PROFILE.format(name="rk3588", description="mine"))
    assert load_profile("rk3588").description == "mine"


def test_no_shipped_alias_is_shared_or_a_name() -> None:
    aliases = [alias.casefold() for profile in SHIPPED.values() for alias in profile.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(SHIPPED)


def test_a_misspelled_alias_is_recognized() -> None:
    with pytest.raises(UsageError, match="there is no profile 'p3767-0004'; did you mean 'p3767-000"):
        load_profile("p3767-0004")


def test_the_first_folder_wins(own_folder: Path, tmp_path: Path) -> None:
    write(own_folder, "nvidia-l4", PROFILE.format(name="nvidia-l4", description="mine"))
    config = tmp_path / "config" / "edgekd" / "profiles"
    write(config, "nvidia-l4", PROFILE.format(name="nvidia-l4", description="configured"))
    other = write(config, "my-board", PROFILE.format(name="my-board", description="configured"))
    assert profile_folders() == (own_folder, tmp_path / "none", config, shipped("profiles"))
    assert load_profile("nvidia-l4").description == "mine"
    assert profile_path("my-board") == other
    assert len(list_profiles()) == len(SHIPPED) + 1


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
    assert len(listed) == len(SHIPPED) + 2
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
