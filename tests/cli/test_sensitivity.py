"""`edgekd sensitivity`: what it prints. How it is found out is tested in tests/pipeline/quantize."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.documents.sensitivity import Sensitivity
from edgekd.pipeline.quantize.find import Result
from tests.documents.cases import DOCUMENTS, changed

COMMAND = "edgekd.cli.sensitivity.find_sensitivity"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Lets the command find a given document; notes how it was asked."""
    asked: dict[str, Any] = {}

    def arrange(scheme: str = "scheme.toml", **options: Any) -> dict[str, Any]:
        data = DOCUMENTS[Sensitivity]
        for key, value in options.items():
            data = changed(data, (key,), value)
        document = Sensitivity.parse(data, where="a file")

        def find(recipe: Path, out: Path, listener: Any, *, force: bool) -> Result:
            asked.update(recipe=recipe, out=out, force=force)
            return Result(document, tmp_path / scheme)

        monkeypatch.setattr(COMMAND, find)
        return asked

    return arrange


def test_the_table(edgekd: Any, found: Any, tmp_path: Path) -> None:
    asked = found()
    result = edgekd("sensitivity", "a.toml", "--out", "run")
    assert result.exit_code == 0
    assert asked == {"recipe": Path("a.toml"), "out": Path("run"), "force": False}
    assert result.stdout == (
        "layer        gain (nats)    top-1                 latency  precision\n"
        "stem.0          +0.19000  98.00 %  1.050 (0.900 to 1.000)  float\n"
        "block.conv1     -0.00100  90.00 %  1.050 (0.900 to 1.000)  int8\n"
        "\n"
        "each layer alone with more precision, on 100 validation examples\n"
        "the activation behind input in float: +0.18000 nats; around it: stem.0\n"
        "\n"
        "top-1 on 100 validation examples\n"
        "          top-1      drop  divergence (nats)                    cost\n"
        "fp32    98.00 %                               2.000 (0.900 to 1.000)\n"
        "before  90.00 %  +8.00 pt            0.20000                       1\n"
        "found   98.00 %  +0.00 pt            0.00100  1.050 (0.900 to 1.000)\n"
        "\n"
        f"my-digits: {tmp_path / 'scheme.toml'}\n"
    )
    assert result.stderr == "note: a note\n"


def test_json(edgekd: Any, found: Any) -> None:
    found()
    result = edgekd("sensitivity", "a.toml", "--out", "run", "--json")
    assert json.loads(result.stdout)["scheme"]["layers"] == {"stem.0": "float"}
    assert result.stderr == ""


def test_an_edited_scheme_is_told_of(edgekd: Any, found: Any, tmp_path: Path) -> None:
    found("scheme.new.toml")
    result = edgekd("sensitivity", "a.toml", "--out", str(tmp_path))
    assert result.stderr == (
        "note: a note\n"
        f"warning: {tmp_path / 'scheme.toml'} was edited and stays as it is; the new scheme is in "
        f"{tmp_path / 'scheme.new.toml'} (--force writes over yours)\n"
    )


def test_force_is_passed_on(edgekd: Any, found: Any) -> None:
    asked = found()
    edgekd("sensitivity", "a.toml", "--out", "run", "--force")
    assert asked["force"] is True


def test_of_4_bits_bytes_are_what_it_costs(edgekd: Any, found: Any) -> None:
    cost = {"what": "weights", "ratio": 1.25}
    row = {"name": "conv", "precision": "int4", "gain": 0.1, "top1": 0.5, "cost": cost}
    found(layers=[row], cost=cost, all_cost=cost, tensors=[], precision="int8", facts=None)
    lines = edgekd("sensitivity", "a.toml", "--out", "run").stdout.splitlines()
    assert lines[:2] == [
        "layer  gain (nats)    top-1  weights  precision",
        "conv      +0.10000  50.00 %    1.250  int4",
    ]
    assert not any(line.startswith("the activation") for line in lines)
