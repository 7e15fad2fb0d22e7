"""Where a result comes from: versions, the commit of edgekd, and the source of the parts that made it."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from edgekd import __version__
from edgekd.documents.common import Versions
from edgekd.files import sha256_bytes, sha256_file

_PACKAGE = Path(__file__).resolve().parent.parent
_NAMED = (
    "torch",
    "lightning-fabric",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "timm",
    "tensorrt",
    "tensorrt-rtx",
)


def package_versions(*names: str) -> dict[str, str]:
    """Versions of those of these distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def versions() -> Versions:
    """Versions of everything that takes part in a run."""
    packages = {"edgekd": __version__, **package_versions(*_NAMED)}
    return Versions(packages=packages, python=platform.python_version(), edgekd_commit=_commit())


@functools.cache
def source_digest(*parts: str) -> str:
    """Digest of the source of some of edgekd's packages: a changed formula must never find an old result."""
    roots = [_PACKAGE / part for part in parts]
    files = sorted(path for root in roots for path in ([root] if root.is_file() else root.rglob("*.py")))
    return sha256_bytes("".join(sha256_file(path) for path in files).encode())


def _commit() -> str | None:
    if not (_PACKAGE.parent / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(_PACKAGE.parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
