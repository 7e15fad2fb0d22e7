"""`edgekd compare`: what it prints and asks for; and a real one, killed with kill -9 and taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli import compare as command
from edgekd.documents.comparison import Comparison
from edgekd.pipeline.compare.run import Request
from tests.documents.cases import DOCUMENTS
from tests.tiny import RECIPE

COMPARISON = Comparison.parse(DOCUMENTS[Comparison], where="a file")
TABLE = """\
arm test top-1 spread to ce 95 % finding to kd 95 % finding seconds
ce 90.00 % 1.00 pt - - - -2.00 pt -3.00 to -1.00 below 10.0
kd 92.00 % 0.50 pt +2.00 pt +1.00 to +3.00 above - - - 20.0
sskd:a=1 89.50 % - -0.50 pt -2.00 to +1.00 cannot tell - - - 40.0 + 5.0
teacher 95.50 %
"""
"""With single spaces."""


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes the command print a made-up comparison; the list takes what it asked for."""
    asked: list[Any] = []

    def answer(request: Request, run: Path, listener: Any, **options: Any) -> Comparison:
        asked.append((request, run, options))
        return COMPARISON

    monkeypatch.setattr(command, "compare", answer)
    return asked


def test_the_table(edgekd: Any, canned: list[Any]) -> None:
    result = edgekd("compare", "my.toml", "--out", "run", "--terms", "kd")
    assert result.exit_code == 0
    assert [" ".join(line.split()) for line in result.stdout.splitlines()][:5] == TABLE.splitlines()
    assert result.stdout.endswith("\n\nmy-digits: run/comparison.md\n")
    assert result.stderr == "warning: a flag\nnote: a note\n"


def test_what_is_asked_for(edgekd: Any, canned: list[Any]) -> None:
    options = ["--terms", "kd+nd,dkd", "--seeds", "5", "--epochs", "7", "--stop-after", "60", "--fresh"]
    edgekd("compare", "my.toml", "--out", "run", *options)
    edgekd("compare", "my.toml", "--out", "run")
    recipe, run = Path("my.toml"), Path("run")
    assert canned == [
        (Request(recipe, "kd+nd,dkd", 5, 7), run, {"stop_after": 60.0, "fresh": True}),
        (Request(recipe, "kd", 3, None), run, {"stop_after": None, "fresh": False}),
    ]


def test_as_json(edgekd: Any, canned: list[Any]) -> None:
    result = edgekd("compare", "my.toml", "--out", "run", "--json")
    assert Comparison.parse(json.loads(result.stdout), where="stdout") == COMPARISON
    assert result.stderr == ""


def test_an_unfinished_comparison_is_marked(edgekd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = COMPARISON.model_copy(update={"finished": False})
    monkeypatch.setattr(command, "compare", lambda *a, **o: partial)
    result = edgekd("compare", "my.toml", "--out", "run")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == (
        "unfinished: only arms that are whole are shown; the same command goes on from here"
    )
    assert "comparison.md" not in result.stdout


@pytest.mark.parametrize(
    ("options", "names", "said"),
    [
        ([], ["teacher", "compare-ce-seed0"], "these stages would be made:\nteacher\ncompare-ce-seed0\n"),
        ([], [], "nothing would be done: every stage is finished\n"),
        (["--fresh"], ["teacher"], "every stage would be made anew\n"),
    ],
)
def test_a_dry_run(
    edgekd: Any, monkeypatch: pytest.MonkeyPatch, options: list[str], names: list[str], said: str
) -> None:
    monkeypatch.setattr(command, "missing", lambda *a, **o: names)
    result = edgekd("compare", "my.toml", "--out", "run", "--dry-run", *options)
    assert (result.exit_code, result.stdout) == (0, said)


def test_wrong_arms_are_told_all_at_once_and_nothing_is_made(edgekd: Any, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    asked = ("--out", str(tmp_path / "run"), "--terms", "sskdd,kd:tempersture=2")
    result = edgekd("compare", str(tmp_path / "tiny.toml"), *asked)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: --terms: 2 problems\n"
        "  arm 'sskdd': there is no method 'sskdd'; did you mean 'sskd'?\n"
        "  arm 'kd:tempersture=2': tempersture: unknown key; did you mean 'temperature'?\n"
        "  try: edgekd methods list names the methods\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", [("--seeds", "0"), ("--epochs", "0"), ("--stop-after", "0")])
def test_numbers_out_of_bounds_are_refused(edgekd: Any, option: tuple[str, str]) -> None:
    result = edgekd("compare", "my.toml", "--out", "run", *option)
    assert result.exit_code == 2
    assert f"Invalid value for '{option[0]}'" in result.stderr


def numbers(comparison: dict[str, Any]) -> list[Any]:
    """What must not depend on when the work was interrupted."""
    seeds = [
        [(one["seed"], one["test_top1"], one["validation_top1"], one["best_epoch"]) for one in arm["seeds"]]
        for arm in comparison["arms"]
    ]
    return [seeds, [(arm["name"], arm["spread"], arm["differences"]) for arm in comparison["arms"]]]


@pytest.mark.slow
def test_kill_9_and_resume_give_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)

    def words(out: str) -> list[str]:
        asked = [
            "--terms",
            "kd,pskd",
            "--seeds",
            "1",
            "--epochs",
            "4",
            "--json",
            "--out",
            str(tmp_path / out),
        ]
        return [sys.executable, "-m", "edgekd", "compare", str(tmp_path / "tiny.toml"), *asked]

    child = subprocess.Popen(words("killed"), stdout=subprocess.DEVNULL, start_new_session=True)
    checkpoints = "stages/compare-pskd-seed0-*.work/checkpoints/epoch-0002-*.pt"
    while not list((tmp_path / "killed").glob(checkpoints)):
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    resumed = subprocess.run(words("killed"), capture_output=True, text=True, check=True)
    whole = subprocess.run(words("whole"), capture_output=True, text=True, check=True)
    assert numbers(json.loads(resumed.stdout)) == numbers(json.loads(whole.stdout))
    (result,) = (tmp_path / "killed").glob("stages/compare-pskd-seed0-*/result.json")
    assert json.loads(result.read_text())["resumed_from"] >= 2
