"""`edgekd doctor`: whole screens, on a machine whose facts are given."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd import __version__
from edgekd.cli import doctor as doctor_module
from edgekd.devices.isa import INT8_MEANING, int8_instruction, int8_warning
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import local_profile
from edgekd.documents.run_log import Facts
from edgekd.errors import DeviceError

SCREEN = f"""\
package           version
edgekd            {__version__}
python            {platform.python_version()}
numpy             1.0
onnx              1.0
onnxruntime       1.0
torch             -
lightning-fabric  -
timm              -
tensorrt          -
tensorrt-rtx      -
torch-tensorrt    -
openvino          -

machine
cpu        AMD EPYC (x86_64), 2 processors
isa        avx2, fma, avx512f, avx512bw, avx512_vnni
memory     8.00 GiB
int8       VNNI: int8 pays
profile    x86-64-avx512-vnni
gpu        none
providers  CPUExecutionProvider
boards     none: apt install openssh-client

missing extra  for
train          compress, distill, quantize, compare: pip install 'edgekd[train]'
timm           networks of timm: pip install 'edgekd[timm]'
tensorrt       TensorRT on this machine's GPU: pip install 'edgekd[tensorrt]'
tensorrt-rtx   engines built without a GPU: pip install 'edgekd[tensorrt-rtx]'
openvino       bench --runtime openvino: pip install 'edgekd[openvino]'
plot           the plots of bench --out: pip install 'edgekd[plot]'

bench, gate and audit can run here
"""

WARNINGS = """\
warning: the frequency governor is powersave: clocks move; performance holds them
warning: a quota of 1.5 processors holds here: threads beyond it are paused
warning: the machine is virtual: other guests can take its time (steal)
"""


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without extras and without an NVIDIA driver."""

    def version(package: str) -> str:
        if package in ("numpy", "onnx", "onnxruntime"):
            return "1.0"
        raise metadata.PackageNotFoundError(package)

    runtime = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor_module, "is_installed", lambda module: False)
    monkeypatch.setattr(doctor_module.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)


def test_the_screen(edgekd: Any, facts: Facts, light: None) -> None:
    result = edgekd("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (0, SCREEN, WARNINGS)


def test_json(edgekd: Any, facts: Facts, light: None) -> None:
    result = edgekd("doctor", "--json")
    printed = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert Facts.model_validate(printed.pop("facts")) == facts
    assert printed["versions"]["torch"] is None
    assert printed["missing"]["train"] == "compress, distill, quantize, compare: pip install 'edgekd[train]'"
    assert (printed["profile"], printed["problems"], len(printed["warnings"])) == (
        "x86-64-avx512-vnni",
        [],
        3,
    )


def test_without_onnxruntime_nothing_can_be_measured(
    edgekd: Any, facts: Facts, light: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = edgekd("doctor")
    assert result.exit_code == 3
    assert result.stdout.endswith("edgekd[plot]'\n")
    assert result.stderr == WARNINGS + (
        "error: onnxruntime cannot be loaded: import of onnxruntime halted; None in sys.modules; "
        "pip install onnxruntime\n"
    )


def test_a_kit_that_fails_is_a_problem(edgekd: Any, light: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LocalDevice, runtime: str) -> Facts:
        raise DeviceError("no Python", where="local")

    monkeypatch.setattr(LocalDevice, "facts", fail)
    result = edgekd("doctor")
    assert (result.exit_code, result.stderr) == (3, "error: the kit cannot run here: local: no Python\n")


def test_the_driver_says_which_cuda_it_supports(
    edgekd: Any, facts: Facts, light: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    banner = "| NVIDIA-SMI 575.57  Driver Version: 575.57  CUDA Version: 12.9 |"
    monkeypatch.setattr(doctor_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        doctor_module.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, banner, "")
    )
    assert "cuda       12.9 by the driver\n" in edgekd("doctor").stdout


def test_a_machine_on_which_int8_may_not_pay_is_told_so(
    edgekd: Any, facts: Facts, light: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = facts.model_copy(update={"isa": ("avx2", "fma")})
    monkeypatch.setattr(LocalDevice, "facts", lambda self, runtime: older)
    result = edgekd("doctor")
    assert "int8       AVX2 without VNNI: int8 gains less, and U8S8 products may saturate\n" in result.stdout
    assert result.stderr == f"{WARNINGS}warning: {int8_warning(local_profile(older), 'onnxruntime')}\n"


def test_every_instruction_has_its_sentence() -> None:
    for isa in (("amx_int8",), ("avx_vnni",), ("avx2",), ("i8mm",), ("asimddp",), ("asimd",), ()):
        assert INT8_MEANING[int8_instruction(isa)].partition(": int8 ")[2]


def test_every_extra_that_is_named_is_one_of_the_package() -> None:
    declared = metadata.metadata("edgekd").get_all("Provides-Extra") or []
    assert set(doctor_module.EXTRAS) == set(declared) - {"dev"}


def test_the_real_machine_is_examined_without_torch() -> None:
    code = (
        "import sys\n"
        "from edgekd.cli.doctor import examine\n"
        "found = examine()\n"
        "assert found.problems == (), found.problems\n"
        "assert not {'torch', 'timm', 'onnx', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)\n"
        "print(found.facts.machine)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stderr, done.stdout.strip()) == ("", platform.machine())
