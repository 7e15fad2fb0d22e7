"""The laws of the house that no linter of a single file can hold."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from edgekd.documents.profile import Profile
from edgekd.documents.spec import FloatDialect, Int8Dialect, Spec
from edgekd.shipped import shipped

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "edgekd"
HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "pydantic", "scipy", "rich"}
WITHOUT_TORCH = [
    "edgekd.cli.audit",
    "edgekd.cli.bench",
    "edgekd.cli.compare",
    "edgekd.cli.debug",
    "edgekd.cli.devices",
    "edgekd.cli.doctor",
    "edgekd.cli.gate",
    "edgekd.cli.init",
    "edgekd.cli.methods",
    "edgekd.cli.schema",
]


def imported_by(module: str) -> set[str]:
    """Top-level packages that importing a module pulls in, in a fresh process."""
    code = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_imports_point_down_only() -> None:
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_starts_without_anything_heavy() -> None:
    assert imported_by("edgekd.cli.app") & HEAVY == set()


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_a_light_command_needs_no_torch(module: str) -> None:
    assert "torch" not in imported_by(module)


def test_every_module_says_what_it_is() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common_utils", "manager", "handlers"}
    assert [path for path in PACKAGE.rglob("*.py") if path.stem in vague or path.parent.name in vague] == []
    silent = [
        path
        for path in PACKAGE.rglob("*.py")
        if path.stat().st_size and not path.read_text().startswith('"""')
    ]
    assert silent == []


def calls(path: Path, *names: str) -> list[str]:
    """Where a file calls one of these functions."""
    nodes = ast.walk(ast.parse(path.read_text()))
    called = (node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in names)
    return [f"{path.relative_to(ROOT)}:{node.lineno}" for node in called]


def test_nothing_prints_but_the_screen() -> None:
    assert [place for path in PACKAGE.rglob("*.py") for place in calls(path, "print")] == []
    echoing = [path for path in PACKAGE.rglob("*.py") if calls(path, "typer.echo", "typer.secho")]
    assert echoing == [PACKAGE / "cli" / "screen.py"]


def test_only_a_program_exits() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if '__name__ == "__main__"' not in path.read_text()]
    assert [place for path in modules for place in calls(path, "sys.exit", "exit", "quit")] == []


@pytest.mark.parametrize("path", sorted(shipped("profiles").glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_profile_loads(path: Path) -> None:
    assert Profile.read(path).id == path.stem


@pytest.mark.parametrize(
    "path", sorted(shipped("export", "specs").glob("*.toml")), ids=lambda path: path.stem
)
def test_a_shipped_spec_loads(path: Path) -> None:
    assert Spec.read(path).dialect == path.stem


def test_something_is_shipped() -> None:
    assert len(list(shipped("profiles").glob("*.toml"))) >= 9
    dialects = {*get_args(Int8Dialect), *get_args(FloatDialect)}
    assert {path.stem for path in shipped("export", "specs").glob("*.toml")} == dialects
    assert shipped("export", "kit", "run.py").is_file()
