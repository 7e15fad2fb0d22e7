"""ONNX Runtime's kernels for AVX2 and for AVX-512 without VNNI, run on a processor that has better ones.

They are what the emulator is held against. It takes Linux on x86-64, a processor whose CPUID can be made to
fault, and a C compiler; without one of them the tests are skipped.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest

HERE = Path(__file__).parent
CANNOT_HIDE = 77
Hidden = Literal["vnni", "avx512"]


def compiled(folder: Path) -> Path:
    """The library that hides instruction sets, or the test is skipped."""
    compiler = shutil.which("cc")
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or compiler is None:
        pytest.skip("needs Linux on x86-64 and a C compiler")
    library = folder / "hide.so"
    command = [
        compiler,
        "-O2",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(HERE / "hide.c"),
    ]
    subprocess.run(command, check=True, timeout=60)
    return library


def answers(
    library: Path, hidden: Hidden, graphs: Mapping[str, tuple[onnx.ModelProto, np.ndarray]], folder: Path
) -> dict[str, np.ndarray]:
    """First outputs of graphs for their inputs, by ONNX Runtime with some instruction sets hidden from it."""
    folder.mkdir()
    for name, (model, x) in graphs.items():
        onnx.save(model, folder / f"{name}.onnx")
        np.save(folder / f"{name}.x.npy", x)
    done = subprocess.run(
        [sys.executable, str(HERE / "run_graphs.py"), str(folder)],
        env={**os.environ, "LD_PRELOAD": str(library), "HIDE": hidden},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == CANNOT_HIDE:
        pytest.skip("needs a processor and a kernel that can make CPUID fault")
    assert done.returncode == 0, done.stderr
    return {name: np.load(folder / f"{name}.npy") for name in graphs}
