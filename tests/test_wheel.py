"""The wheel: one top-level name, and inside it every profile, spec and kit file of the checkout."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from edgekd import __version__

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not in a checkout")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def shipped_files():
    files = [
        path for folder in ("profiles", "export") for path in (ROOT / folder).rglob("*") if path.is_file()
    ]
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_only_top_level_name_is_edgekd(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names == {"edgekd", f"edgekd-{__version__}.dist-info"}


def test_a_fresh_environment_finds_every_shipped_file(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, cwd=tmp_path)
    code = (
        "from edgekd.shipped import shipped\n"
        "root = shipped()\n"
        "for top in ('profiles', 'export'):\n"
        "    for path in (root / top).rglob('*'):\n"
        "        if path.is_file() and '__pycache__' not in path.parts:\n"
        "            print(path.relative_to(root).as_posix())"
    )
    done = subprocess.run([python, "-c", code], check=True, cwd=tmp_path, capture_output=True, text=True)
    found = set(done.stdout.split())
    assert found == shipped_files()
    assert {"export/kit/run.py", "export/specs/tensorrt-s8.toml", "profiles/nvidia-l4.toml"} <= found


def test_the_wheel_carries_the_starter_recipes_and_the_type_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    starters = {f"edgekd/cli/starters/{path.name}" for path in (ROOT / "edgekd/cli/starters").glob("*.toml")}
    assert starters
    assert starters | {"edgekd/py.typed"} <= names
