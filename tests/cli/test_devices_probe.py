"""`edgekd devices probe` and `new`, and `check` of a power mode: on machines whose facts are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.devices.local import LocalDevice
from edgekd.devices.probe_new import profile_of, write_new_profile
from edgekd.devices.profiles import load_profile, mismatches
from edgekd.documents.profile import Profile
from edgekd.documents.run_log import Facts
from edgekd.errors import UsageError

ORIN = Facts(
    machine="aarch64",
    system="Ubuntu 22.04.5 LTS, Linux 5.15.148-tegra",
    cpu="Cortex-A78AE",
    board="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    isa=("asimd", "asimddp", "asimdhp"),
    cores=6,
    memory_bytes=7_990_000_000,
    governor="schedutil",
    power_mode="MAXN_SUPER",
    cpu_max_mhz=1728.0,
    versions={"python": "3.10.12", "onnxruntime": "1.23.0"},
)
L40S = Facts(
    machine="x86_64",
    system="Ubuntu 24.04",
    cpu="AMD EPYC 7543",
    isa=("avx2", "fma"),
    cores=32,
    memory_bytes=256 * 2**30,
    governor=None,
    gpus=("NVIDIA L40S (8.9)",),
    versions={"python": "3.12.3"},
)
I5 = L40S.model_copy(
    update={
        "cpu": "12th Gen Intel(R) Core(TM) i5-1240P",
        "isa": ("avx2", "fma", "avx_vnni"),
        "gpus": (),
        "memory_bytes": 16 * 10**9,
    }
)
ODD = Facts(
    machine="riscv64",
    system="Linux",
    cpu=None,
    isa=(),
    cores=1,
    memory_bytes=None,
    governor=None,
    versions={},
)


NOTE = "Made of what the machine says of itself: peaks are not given. edgekd devices calibrate measures them."


NEW_ORIN = """\
schema = 1
id = "my-orin"
description = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super, as found"
kind = "jetson"
memory_bytes = { value = 7990000000, provenance = "measured", source = "edgekd devices new" }
notes = ["NOTE"]

[detect]
machine = ["aarch64"]
isa = ["asimd", "asimddp", "asimdhp"]
board = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
cpu = ["Cortex-A78AE"]
min_memory_bytes = 7191000000

[cpu]
name = "Cortex-A78AE"
cores = { value = 6, provenance = "measured", source = "edgekd devices new" }
int8 = "dotprod"

[operating_points.as-found]
default = true
description = "As found, governor schedutil, power mode MAXN_SUPER"
nvpmodel = "MAXN_SUPER"
cpu_mhz = { value = 1728, provenance = "measured", source = "edgekd devices new" }

[[runtimes]]
runtime = "onnxruntime"
versions = "1.23.0"
"""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes given facts those of the machine at hand."""

    def be(facts: Facts) -> Facts:
        monkeypatch.setattr(LocalDevice, "facts", lambda self, runtime: facts)
        return facts

    return be


def test_probe_of_a_known_machine(edgekd: Any, here: Any) -> None:
    here(ORIN)
    result = edgekd("devices", "probe")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "the machine (Cortex-A78AE) is the device of the profile jetson-orin-nano-8gb@MAXN_SUPER\n\n"
        "machine\n"
        "cpu            Cortex-A78AE (aarch64), 6 processors\n"
        "board          NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\n"
        "isa            asimd, asimddp, asimdhp\n"
        "int8           asimddp (SDOT): int8 pays\n"
        "memory         7.44 GiB\n"
        "gpu            none\n"
        "power mode     MAXN_SUPER\n"
        "highest clock  1728 MHz\n"
    )


def test_probe_warns_of_a_mode_that_nobody_knows(edgekd: Any, here: Any) -> None:
    here(ORIN.model_copy(update={"power_mode": "MINE", "cpu_max_mhz": 1344.0}))
    result = edgekd("devices", "probe")
    assert result.stdout.startswith(
        "the machine (Cortex-A78AE) is the device of the profile jetson-orin-nano-8gb\n"
    )
    assert result.stderr == (
        "warning: jetson-orin-nano-8gb@25W is the power mode 25W; the machine (Cortex-A78AE) is in MINE\n"
    )


def test_probe_of_a_known_processor_with_an_unknown_gpu(edgekd: Any, here: Any) -> None:
    here(L40S)
    result = edgekd("devices", "probe")
    assert result.stdout.startswith("the machine (AMD EPYC 7543) is the device of the profile x86-64-avx2\n")
    assert result.stdout.endswith("\n\nedgekd devices new NAME makes a profile of this machine\n")
    assert result.stderr == "warning: no profile is that of the GPU NVIDIA L40S (8.9)\n"


def test_probe_of_a_machine_that_is_no_profile(edgekd: Any, here: Any) -> None:
    name = f"the machine ({here(I5).cpu})"
    result = edgekd("devices", "probe")
    assert (result.exit_code, result.stderr) == (0, "")
    head, _, found, advice = result.stdout.split("\n\n")
    assert head == f"{name} matches no profile; the profile 'local' takes it as it is"
    lines = found.splitlines()
    assert lines[0].split("  ")[0] == "nearest profile"
    assert len(lines) == 4
    assert lines[1].endswith(f"the profile wants the processor Ultra 7 155H; {name} reports {I5.cpu}")
    assert advice == "edgekd devices new NAME makes a profile of this machine\n"


def test_probe_as_json(edgekd: Any, here: Any) -> None:
    here(ORIN)
    printed = json.loads(edgekd("devices", "probe", "--json").stdout)
    facts = printed.pop("facts")
    assert Facts.model_validate(facts) == ORIN
    assert printed == {
        "profile": "jetson-orin-nano-8gb",
        "operating_point": "MAXN_SUPER",
        "operating_point_mismatches": [],
        "also": [],
        "unknown_gpus": [],
        "nearest": [],
    }
    here(I5)
    printed = json.loads(edgekd("devices", "probe", "--json").stdout)
    assert printed["profile"] is None
    assert [one["profile"] for one in printed["nearest"]] == [
        *("intel-core-ultra-155h", "intel-core-ultra-200v", "intel-n100")
    ]
    assert all(len(one["mismatches"]) == 1 for one in printed["nearest"])


def test_probe_writes_the_facts(edgekd: Any, here: Any, tmp_path: Path) -> None:
    here(ORIN)
    output = tmp_path / "facts.json"
    result = edgekd("devices", "probe", "--output", str(output), "--json")
    assert Facts.model_validate(json.loads(output.read_text())) == ORIN
    assert json.loads(result.stdout)["profile"] == "jetson-orin-nano-8gb"
    assert result.stderr == f"wrote {output}\n"


def test_check_of_a_power_mode(edgekd: Any, here: Any) -> None:
    here(ORIN)
    assert edgekd("devices", "check", "jetson-orin-nano-8gb").exit_code == 0
    fits = edgekd("devices", "check", "jetson-orin-nano-8gb@MAXN_SUPER")
    assert (fits.exit_code, fits.stdout) == (
        0,
        f"the machine ({ORIN.board}) is the device of the profile jetson-orin-nano-8gb@MAXN_SUPER\n",
    )
    differs = edgekd("devices", "check", "jetson-orin-nano-8gb@25W")
    assert differs.exit_code == 1
    assert differs.stdout == (
        "the machine is not the device of the profile jetson-orin-nano-8gb@25W:\n"
        "jetson-orin-nano-8gb@25W is the power mode 25W; the machine (Cortex-A78AE) is in MAXN_SUPER\n"
        "jetson-orin-nano-8gb@25W has a highest processor clock of 1344 MHz; "
        "the machine (Cortex-A78AE) reports 1728 MHz\n"
    )


def test_new_makes_a_profile_that_is_found_and_matches(edgekd: Any, here: Any, own_folders: Path) -> None:
    here(I5)
    result = edgekd("devices", "new", "my-laptop")
    path = own_folders / "my-laptop.toml"
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}\nthe machine is the device of the profile my-laptop\n"
    assert load_profile("my-laptop").detect.cpu == (I5.cpu,)
    assert json.loads(edgekd("devices", "probe", "--json").stdout)["profile"] == "my-laptop"
    assert edgekd("devices", "check").stdout.endswith("is the device of the profile my-laptop\n")


def test_new_is_preferred_to_a_shipped_profile(edgekd: Any, here: Any) -> None:
    here(ORIN)
    assert edgekd("devices", "new", "my-orin").exit_code == 0
    printed = json.loads(edgekd("devices", "probe", "--json").stdout)
    assert (printed["profile"], printed["operating_point"]) == ("my-orin", "as-found")
    assert printed["also"] == ["jetson-orin-nano-8gb"]


def test_what_a_new_profile_says(here: Any, own_folders: Path) -> None:
    assert write_new_profile("my-orin", ORIN).read_text() == NEW_ORIN.replace("NOTE", NOTE)


@pytest.mark.parametrize(
    ("facts", "kind", "gpu", "memory"),
    [
        (ORIN, "jetson", None, True),
        (ORIN.model_copy(update={"board": "NVIDIA Orin Nano Developer Kit"}), "jetson", None, True),
        (ORIN.model_copy(update={"board": "Radxa ROCK 5B"}), "arm-board", None, True),
        (L40S, "nvidia-gpu", "NVIDIA L40S", False),
        (L40S.model_copy(update={"gpus": ("NVIDIA L40S",)}), "x86", None, True),
        (I5, "x86", None, True),
        (I5.model_copy(update={"cpu": 'a "Core"\t\u2122\\ \x7f i5'}), "x86", None, True),
        (ODD, "other", None, False),
    ],
    ids=["jetson", "jetpack-5", "board", "gpu", "gpu-without-capability", "laptop", "odd-name", "riscv"],
)
def test_the_kind_of_a_new_profile(facts: Facts, kind: str, gpu: str | None, memory: bool) -> None:
    profile = profile_of("mine", facts)
    assert (profile.kind, profile.detect.gpu, profile.memory_bytes is not None) == (kind, gpu, memory)
    assert mismatches(Profile.read(write_new_profile("mine", facts)), facts) == ()


def test_new_writes_where_it_is_told(edgekd: Any, here: Any, tmp_path: Path) -> None:
    here(I5)
    path = tmp_path / "elsewhere" / "mine.toml"
    result = edgekd("devices", "new", "mine", "--output", str(path))
    assert (result.exit_code, Profile.read(path).id) == (0, "mine")
    assert result.stderr == f"to use it, name its folder: EDGEKD_PROFILES={path.parent}\n"


def test_new_overwrites_nothing(edgekd: Any, here: Any, own_folders: Path, tmp_path: Path) -> None:
    here(I5)
    path = own_folders / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    result = edgekd("devices", "new", "mine")
    assert (result.exit_code, result.stdout, path.read_text()) == (2, "", "mine")
    assert result.stderr == (
        f"error: {path}: there is a file already; nothing is overwritten\n"
        "  try: choose another name, or remove it first\n"
    )


@pytest.mark.parametrize(
    ("name", "output", "message", "hint"),
    [
        (
            "My Board",
            None,
            "'My Board' is no name of a profile",
            "small letters, digits and hyphens, such as my-board",
        ),
        (
            "../mine",
            None,
            "'../mine' is no name of a profile",
            "small letters, digits and hyphens, such as my-board",
        ),
        ("local", None, "'local' is the machine at hand", "choose another name"),
        ("mine", "yours.toml", "the file of a profile has its name", "call it mine.toml"),
        ("mine", "mine.json", "the file of a profile has its name", "call it mine.toml"),
    ],
)
def test_new_refuses_a_name_that_could_not_be_found_again(
    tmp_path: Path, name: str, output: str | None, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        write_new_profile(name, I5, None if output is None else tmp_path / output)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert list(tmp_path.rglob("*")) == []


def test_new_does_not_hide_a_profile_that_is_there(edgekd: Any, here: Any) -> None:
    here(I5)
    result = edgekd("devices", "new", "intel-n100")
    assert result.exit_code == 2
    assert "there is a profile 'intel-n100' already: " in result.stderr
    assert result.stderr.endswith("intel-n100.toml\n  try: choose another name\n")


def test_the_real_machine_is_probed_and_makes_its_profile(edgekd: Any, own_folders: Path) -> None:
    assert edgekd("devices", "new", "this-one").exit_code == 0
    assert json.loads(edgekd("devices", "probe", "--json").stdout)["profile"] == "this-one"
