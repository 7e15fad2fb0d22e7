"""The command line, run in this process; the machine and the user's folders are given ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgekd.cli.app import app
from edgekd.devices.local import LocalDevice
from edgekd.documents.run_log import Facts

Edgekd = Callable[..., Result]

FACTS = Facts(
    machine="x86_64",
    system="Linux 6.1",
    cpu="AMD EPYC",
    isa=("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni"),
    cores=2,
    memory_bytes=8 * 2**30,
    governor="powersave",
    gpus=(),
    hypervisor=True,
    cgroup_cpus=1.5,
    versions={"python": "3.11.7", "onnxruntime": "1.31.1"},
)


@pytest.fixture
def edgekd() -> Edgekd:
    """Runs `edgekd ARGUMENTS`: exit_code, stdout, stderr."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), prog_name="edgekd")

    return run


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of profiles, which is empty."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("EDGEKD_PROFILES", raising=False)
    return tmp_path / "edgekd" / "profiles"


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Facts:
    """The facts of the machine at hand: those of a given one."""
    monkeypatch.setattr(LocalDevice, "facts", lambda self, runtime: FACTS)
    return FACTS
