"""`edgekd methods`."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from edgekd.documents.methods import METHODS, POLICIES
from edgekd.documents.recipe import Recipe
from edgekd.documents.terms import SECTIONS
from edgekd.documents.terms.python_term import PythonTerm

NAMES = [*METHODS, *POLICIES]
PUBLISHED = [section for section in SECTIONS if section is not PythonTerm]


def test_list_names_them_all(edgekd: Any) -> None:
    result = edgekd("methods", "list")
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines[0].split() == ["method", "group", "needs", "what", "it", "is"]
    assert [line.split()[0] for line in lines[1:]] == NAMES


def test_list_says_what_a_method_needs(edgekd: Any) -> None:
    (row,) = [line for line in edgekd("methods", "list").stdout.splitlines() if line.startswith("crd ")]
    assert " ".join(row.split()) == (
        "crd contrastive teacher, labels, taps, memory, heads Contrastive representation distillation."
    )


def test_list_as_json(edgekd: Any) -> None:
    rows = json.loads(edgekd("methods", "list", "--json").stdout)
    assert [row["name"] for row in rows] == NAMES
    assert rows[1] == {
        "name": "kd",
        "group": "logits",
        "needs": ["teacher", "labels"],
        "title": "Knowledge distillation by soft targets.",
        "kind": "kd",
    }
    assert {row["group"] for row in rows if row["name"] in POLICIES} == {"policy"}


def test_show_prints_the_card_the_keys_and_the_objective(edgekd: Any) -> None:
    result = edgekd("methods", "show", "kd-ls")
    assert (result.exit_code, result.stderr) == (0, "")
    title, card, rest = result.stdout.split("\n\n", 2)
    assert title == "kd-ls: Knowledge distillation by soft targets (standardized logits)."
    assert card.startswith("Formula\n    L = T^2 KL(")
    assert "Temperature T of both softmaxes." in rest
    assert rest.endswith(
        "Published objective\n\n[distillation]\nlabel_weight = 0.1\n\n[[distillation.terms]]\n"
        'kind = "kd"\nweight = 9.0\nstandardize = true\ntemperature = 2.0\n\n'
        "vgg13 -> *: temperature = 3.0\nwrn-40-2 -> mobilenetv2: temperature = 3.0\n"
    )


@pytest.mark.parametrize("name", METHODS)
def test_what_show_prints_can_be_pasted_into_a_recipe(edgekd: Any, name: str) -> None:
    printed = edgekd("methods", "show", name).stdout
    pasted = "[distillation]" + printed.partition("[distillation]")[2]
    toml = "\n".join(line for line in pasted.splitlines() if " -> " not in line)
    recipe = Recipe.parse({"schema": 1, "name": "pasted", **tomllib.loads(toml)}, where="pasted")
    assert recipe.distillation == METHODS[name].objective


@pytest.mark.parametrize("section", PUBLISHED, ids=lambda section: section.tag)
def test_show_explains_every_key_of_every_term(edgekd: Any, section: Any) -> None:
    name = next(method.name for method in METHODS.values() if method.kind == section.tag)
    keys = json.loads(edgekd("methods", "show", name, "--json").stdout)["keys"]
    assert {row["key"].partition(".")[0] for row in keys} == set(section.model_fields) - {"kind"}
    assert [row["key"] for row in keys if not row["meaning"] or not row["default"]] == []


def test_show_names_the_keys_of_a_table_within(edgekd: Any) -> None:
    rows = json.loads(edgekd("methods", "show", "sskd", "--json").stdout)["keys"]
    defaults = {row["key"]: row["default"] for row in rows}
    assert defaults["head_training.milestones"] == "[30, 45]"
    assert defaults["head_training.schedule"] == '"step"'
    assert defaults["start_epoch"] == "1"


def test_show_as_json(edgekd: Any) -> None:
    shown = json.loads(edgekd("methods", "show", "dkd", "--json").stdout)
    assert list(shown["card"]) == ["Formula", "Source", "Shapes", "Defaults", "Traps"]
    assert shown["objective"]["terms"][0]["beta"] == 8.0
    assert shown["pairs"][0] == {"teacher": "resnet56", "student": "resnet20", "changes": {"beta": 2.0}}
    assert tomllib.loads(shown["toml"])["distillation"]["terms"] == [{"kind": "dkd", "weight": 1.0}]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_shows_its_card(edgekd: Any, name: str) -> None:
    shown = json.loads(edgekd("methods", "show", name, "--json").stdout)
    text = edgekd("methods", "show", name).stdout
    assert text.startswith(f"{name}: {shown['title']}\n\nFormula\n")
    assert all(f"\n{heading}\n" in text for heading in shown["card"])


def test_an_unknown_method_is_corrected(edgekd: Any) -> None:
    result = edgekd("methods", "show", "reviewdk")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: there is no method 'reviewdk'; did you mean 'reviewkd'?\n  try: one of {', '.join(NAMES)}\n"
    )


def test_showing_a_card_imports_neither_torch_nor_the_term() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom edgekd.cli.methods import app\n"
        "assert CliRunner().invoke(app, ['show', 'sskd']).exit_code == 0\n"
        "print([name for name in ('torch', 'edgekd.distillation.sskd') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
