"""`edgekd devices`: whole screens, on a machine whose facts are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.devices.isa import int8_warning
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import load_profile
from edgekd.documents.profile import Profile
from edgekd.documents.run_log import Facts
from edgekd.shipped import shipped

LIST = """\
name                             kind        int8      SM    memory  peak int8                  runtimes
amd-ryzen-embedded-8845hs-class  x86         vnni       -         -  4.1 TOPS                   onnxruntime
intel-core-ultra-155h            x86         vnni       -         -  -                          onnxruntime
intel-core-ultra-200v            x86         vnni       -         -  -                          onnxruntime
intel-n100                       x86         vnni       -         -  0.87 TOPS                  onnxruntime
jetson-agx-orin-64gb             jetson      dotprod   87  64.0 GiB  20.5 TOPS                  \
tensorrt, onnxruntime
jetson-agx-thor-t5000-128gb      jetson      i8mm     110   128 GiB  516 TOPS                   \
tensorrt, onnxruntime
jetson-orin-nano-8gb             jetson      dotprod   87  8.00 GiB  30.1 TOPS                  \
tensorrt, onnxruntime
jetson-orin-nx-16gb              jetson      dotprod   87  16.0 GiB  38.4 TOPS                  \
tensorrt, onnxruntime
jetson-xavier-nx-8gb             jetson      neon      72  8.00 GiB  13.6 TOPS                  onnxruntime
nvidia-a10                       nvidia-gpu  -         86  22.4 GiB  250 TOPS                   \
tensorrt, onnxruntime
nvidia-h100-sxm                  nvidia-gpu  -         90  74.5 GiB  1979 TOPS                  \
tensorrt, onnxruntime
nvidia-h200-sxm                  nvidia-gpu  -         90   131 GiB  1979 TOPS                  \
tensorrt, onnxruntime
nvidia-l4                        nvidia-gpu  -         89  22.4 GiB  242 TOPS                   \
tensorrt, onnxruntime
nvidia-t4                        nvidia-gpu  -         75  14.9 GiB  130 TOPS                   \
tensorrt, onnxruntime
nxp-imx8m-plus                   arm-board   neon       -         -  0.115 TOPS                 onnxruntime
raspberry-pi-4-8gb               arm-board   neon       -  8.00 GiB  0.096 TOPS                 onnxruntime
raspberry-pi-5-8gb               arm-board   dotprod    -  8.00 GiB  0.614 TOPS                 onnxruntime
raspberry-pi-zero-2-w            arm-board   neon       -   512 MiB  0.064 TOPS                 onnxruntime
rockchip-rk3588                  arm-board   dotprod    -         -  0.845 TOPS                 onnxruntime
rtx-4060-laptop                  nvidia-gpu  -         89  7.45 GiB  116 TOPS                   \
tensorrt, onnxruntime
x86-64-amx                       x86         amx        -         -  2.05 TOPS a core and GHz   onnxruntime
x86-64-avx2                      x86         avx2       -         -  0.064 TOPS a core and GHz  onnxruntime
x86-64-avx512-vnni               x86         vnni       -         -  0.256 TOPS a core and GHz  onnxruntime
"""

SHOW = """\
x86-64-avx2: x86-64 processor with AVX2 and without a dot product of bytes

fact              value
kind              x86
aliases           haswell, broadwell, skylake-client, zen2, zen3
cpu               any x86-64 with AVX2 and without VNNI; int8 by avx2
operating points  1-core-1-ghz (default)
runtime           onnxruntime >= 1.23
machine           x86_64
must report       avx2, fma
must not report   avx512_vnni, avx_vnni, amx_int8

operating point         what sets it
1-core-1-ghz (default)  One core at 1 GHz, as a unit to scale from

number                     value  provenance  source
1-core-1-ghz: cpu_mhz       1000  derived     1000; the unit of this operating point
1-core-1-ghz: fp32_tflops  0.032  derived     2 FMA x 8 lanes x 2 operations x 1 GHz; issue width, \
a ceiling that was not measured
1-core-1-ghz: int8_tops    0.064  derived     32 products x 2 operations x 1 GHz; VPMADDUBSW and the \
additions that follow it, not measured

- VPMADDUBSW adds pairs of U8S8 products into 16 bits and saturates: weights of 8 bits go there as uint8, \
or have reduce_range.
- A processor with VNNI is not this profile: the same graph gives other numbers and other times there.
- Memory bandwidth differs from machine to machine, and is not given.
"""


def test_list(edgekd: Any) -> None:
    result = edgekd("devices", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, LIST, "")


def test_list_of_one_kind(edgekd: Any) -> None:
    lines = edgekd("devices", "list", "--kind", "arm-board").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        [name, "arm-board"]
        for name in (
            *("nxp-imx8m-plus", "raspberry-pi-4-8gb", "raspberry-pi-5-8gb", "raspberry-pi-zero-2-w"),
            "rockchip-rk3588",
        )
    ]
    listed = json.loads(edgekd("devices", "list", "--kind", "jetson", "--json").stdout)
    assert {one["profile"]["kind"] for one in listed} == {"jetson"}
    assert len(listed) == 5


def test_list_of_a_kind_that_is_none(edgekd: Any) -> None:
    result = edgekd("devices", "list", "--kind", "jetsn")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: there is no kind 'jetsn'; did you mean 'jetson'?\n"
        "  try: one of arm-board, jetson, nvidia-gpu, x86\n"
    )


def test_list_names_a_broken_file_on_standard_error(edgekd: Any, own_folders: Path) -> None:
    own_folders.mkdir(parents=True)
    broken = own_folders / "broken.toml"
    broken.write_text("schema = ")
    result = edgekd("devices", "list")
    assert (result.exit_code, result.stdout) == (0, LIST)
    assert result.stderr == f"warning: {broken}: is not valid TOML: Invalid value (at end of document)\n"
    listed = {one["name"]: one for one in json.loads(edgekd("devices", "list", "--json").stdout)}
    assert listed["broken"] == {
        "name": "broken",
        "path": str(broken),
        "problem": "is not valid TOML: Invalid value (at end of document)",
        "profile": None,
    }
    assert listed["nvidia-l4"]["problem"] is None
    assert Profile.parse(listed["nvidia-l4"]["profile"], where="stdout") == load_profile("nvidia-l4")


def test_show(edgekd: Any) -> None:
    result = edgekd("devices", "show", "x86-64-avx2")
    assert (result.exit_code, result.stdout) == (0, SHOW)
    assert result.stderr == f"warning: {int8_warning(load_profile('x86-64-avx2'), 'onnxruntime')}\n"


@pytest.mark.parametrize("name", ["raspberry-pi-4-8gb", "raspberry-pi-zero-2-w@stock", "nxp-imx8m-plus"])
def test_show_warns_where_int8_may_not_pay(edgekd: Any, name: str) -> None:
    result = edgekd("devices", "show", name)
    assert result.stderr.startswith(f"warning: {name.split('@')[0]} (")
    assert "has NEON without a dot product: int8 may be no faster than fp32" in result.stderr


def test_show_is_silent_where_int8_pays(edgekd: Any) -> None:
    assert edgekd("devices", "show", "raspberry-pi-5-8gb").stderr == ""


def test_show_one_operating_point(edgekd: Any) -> None:
    screen = edgekd("devices", "show", "p3767-0003@15W").stdout
    assert (
        "15W: gpu_mhz         612  vendor      nvpmodel_p3767_0003_super.conf; the datasheet says 625\n"
        in screen
    )
    assert "operating point  what sets it\n15W              nvpmodel 15W\n\n" in screen
    assert "25W: " not in screen


def test_show_tells_what_reaches_an_npu(edgekd: Any) -> None:
    screen = edgekd("devices", "show", "rk3588").stdout
    assert (
        "npu               Rockchip NPU, 3 cores; no runtime of edgekd reaches it; "
        "Rockchip's RKNN toolkit reaches it, with a format of its own\n"
    ) in screen
    assert "npu.int8_tops               6  secondary   blog.csdn.net, 139720663\n" in screen


def test_show_as_json_is_the_profile(edgekd: Any) -> None:
    printed = json.loads(edgekd("devices", "show", "nvidia-l4", "--json").stdout)
    assert Profile.parse(printed, where="stdout") == load_profile("nvidia-l4")


def test_show_local_is_the_machine_at_hand(edgekd: Any, facts: Facts) -> None:
    printed = json.loads(edgekd("devices", "show", "local", "--json").stdout)
    assert (printed["id"], printed["cpu"]["name"], printed["cpu"]["int8"]) == ("local", "AMD EPYC", "vnni")
    assert tuple(printed["detect"]["isa"]) == facts.isa


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 0, "the machine (AMD EPYC) is the device of the profile x86-64-avx512-vnni\n"),
        (
            ("x86-64-avx512-vnni",),
            0,
            "the machine (AMD EPYC) is the device of the profile x86-64-avx512-vnni\n",
        ),
        (
            ("x86-64-avx2",),
            1,
            "the machine is not the device of the profile x86-64-avx2:\n"
            "the profile is for machines without avx512_vnni; the machine (AMD EPYC) reports it\n",
        ),
    ],
)
def test_check(edgekd: Any, facts: Facts, arguments: tuple[str, ...], code: int, text: str) -> None:
    result = edgekd("devices", "check", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (code, text, "")


def test_check_of_a_machine_that_is_no_profile(
    edgekd: Any, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = facts.model_copy(update={"isa": ("avx2",)})
    monkeypatch.setattr(LocalDevice, "facts", lambda self, runtime: bare)
    result = edgekd("devices", "check")
    assert result.exit_code == 1
    assert result.stdout == (
        "the machine (AMD EPYC) matches no profile; the profile 'local' takes it as it is\n"
    )


def test_check_as_json(edgekd: Any, facts: Facts) -> None:
    result = edgekd("devices", "check", "x86-64-avx2", "--json")
    printed = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (printed["profile"], printed["matches"], len(printed["mismatches"])) == ("x86-64-avx2", False, 1)
    assert Facts.model_validate(printed["facts"]) == facts


def test_check_of_local_has_one_answer(edgekd: Any, facts: Facts) -> None:
    result = edgekd("devices", "check", "local")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: this machine is always the device of the profile 'local'\n  try: edgekd devices show local\n"
    )


def test_where(edgekd: Any, own_folders: Path) -> None:
    assert edgekd("devices", "where").stdout == f"{own_folders} (no such folder)\n{shipped('profiles')}\n"
    assert edgekd("devices", "where", "nvidia-l4").stdout == f"{shipped('profiles', 'nvidia-l4.toml')}\n"
    missing = edgekd("devices", "where", "nvidia-l5")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("error: there is no profile 'nvidia-l5'; did you mean 'nvidia-l4'?\n")


def test_the_real_machine_answers(edgekd: Any) -> None:
    result = edgekd("devices", "check", "--json")
    printed = json.loads(result.stdout)
    assert result.exit_code == (0 if printed["matches"] else 1)
    assert Facts.model_validate(printed["facts"]).cores >= 1
