"""A term of the user's own, and everything that can be wrong with one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.distillation.objective import Objective, build_objective, build_quantized_objective
from edgekd.distillation.term import Survey
from edgekd.documents.recipe import Distillation, QuantizedTraining, Recipe
from edgekd.errors import DocumentError, EdgekdError, MissingError, UsageError
from tests.distillation.python_cases import KIND
from tests.distillation.steps import SETTING, make_step, make_survey

SOURCE = """
import torch
from torch import nn
from edgekd.distillation.term import RowTerm, Term
from edgekd.errors import MissingError

class Distance(RowTerm):
    sources = ("teacher",)

    def rows(self, step):
        return (step.student.logits() - step.sources["teacher"].logits()).square().mean(dim=1)

class Memory(Term):
    memory = ("seen_N",)
    smallest_batch = 3
    warmup_epochs = 2
    reads_labels = True
    views = ["strong"]
    sources = ("self",)
    student_taps = ("pool",)
    source_taps = ("stage1",)

    def __init__(self, count):
        super().__init__()
        self.register_buffer("seen_N", torch.zeros(count))

    def prepare(self, survey):
        self.seen_N += survey.labels_N

def good(setting):
    return Distance()

def memory(setting):
    return Memory(setting.count)

def text(setting):
    return "term"

def raises(setting, depth):
    return 1 / depth

def needs_a_thing(setting):
    raise MissingError("needs a thing")

def says(setting, **attributes):
    term = Distance()
    for name, value in attributes.items():
        setattr(term, name, value)
    return term

class Gives(Term):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def prepare(self, survey):
        survey.features("teacher", self.what)

    def forward(self, step):
        logits_BK = step.student.logits()
        answers = {"rows": logits_BK.mean(dim=1), "number": 1.0, "class": logits_BK.argmax()}
        return answers[self.what]

def gives(setting, what):
    return Gives(what)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_terms.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_terms", raising=False)


def parsed(*terms: dict[str, Any]) -> Distillation:
    data = {"schema": 1, "name": "x", "distillation": {"label_weight": 0.0, "terms": list(terms)}}
    return Recipe.parse(data, where="my.toml").distillation


def own(function: str, **args: Any) -> dict[str, Any]:
    return {"kind": f"python:own_terms:{function}", "args": args}


def objective(*terms: dict[str, Any]) -> Objective:
    return build_objective(parsed(*terms), SETTING)


def test_it_adds_up_with_other_terms_and_has_a_weight_and_a_number() -> None:
    scaled = {"kind": KIND, "args": {"scale": 3.0}, "weight": 2.0}
    built = objective(scaled, {"kind": "kd", "weight": 1.0}, own("good"))
    assert built.names == ("python", "kd", "python2")
    total, values = built(make_step())
    assert float(values[0]) == pytest.approx(3 * float(values[2]))
    assert total.item() == pytest.approx(float(2 * values[0] + values[1] + values[2]))


def test_what_it_says_of_itself_counts() -> None:
    built = objective(own("memory"))
    (term,) = (part.term for part in built.parts)
    assert built.memory() == {"terms.python.inner.seen_N"}
    assert set(built.state_dict()) == {"terms.python.inner.seen_N"}
    assert (built.sources, built.views) == (("self",), ("weak", "strong"))
    assert (built.student_taps, built.source_taps("self")) == (("pool",), ("stage1",))
    assert (term.smallest_batch, term.warmup_epochs, term.reads_labels) == (3, 2, True)
    survey = make_survey()
    built.prepare(survey)
    assert torch.equal(built.state_dict()["terms.python.inner.seen_N"], survey.labels_N.float())


def test_it_always_has_a_teacher_and_is_no_part_of_the_quantized_objective() -> None:
    distillation = parsed(own("good"))
    assert distillation.needs_teacher
    section = QuantizedTraining(label_weight=0.5, self_weight=1.0, teacher_weight=1.0)
    assert build_quantized_objective(section, distillation, SETTING).names == ("labels", "self")


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            {"kind": "python:own_nowhere:good"},
            "python:own_nowhere:good: there is no module 'own_nowhere'\n"
            "  try: install it, or start edgekd in the folder that holds it",
        ),
        (own("god"), "python:own_terms:god: module 'own_terms' has no 'god'; did you mean 'good'?"),
        (
            own("good", depth=1),
            "python:own_terms:good: does not take these arguments: got an unexpected keyword argument "
            "'depth'\n  try: it is called with setting=, depth=",
        ),
        (
            own("good", setting=1),
            "python:own_terms:good: args.setting is set by edgekd; leave it out",
        ),
        (
            own("text"),
            "python:own_terms:text: returns a str; an edgekd.distillation.term.Term is wanted",
        ),
        (
            own("raises", depth=0),
            "python:own_terms:raises: ZeroDivisionError: division by zero (own_terms.py:40)",
        ),
        (
            own("says", sources="teacher"),
            "python:own_terms:says: sources is 'teacher'; a tuple of names is wanted",
        ),
        (
            own("says", smallest_batch="two"),
            "python:own_terms:says: smallest_batch is 'two'; int is wanted",
        ),
        (
            {"kind": KIND, "args": {"tap": "pol"}},
            "term own: reads the tap 'pol', which the student does not have; did you mean 'pool'?\n"
            "  try: one of the student's taps: stem, stage1, stage2, qkv, pool, logits",
        ),
    ],
)
def test_what_is_said_when_it_cannot_be_built(term: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        objective(term)
    assert str(caught.value) == message


def test_an_error_of_edgekd_stays_what_it_is() -> None:
    with pytest.raises(MissingError, match="needs a thing"):
        objective(own("needs_a_thing"))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("rows", "gives torch.float64 of shape (6,); "),
        ("class", "gives torch.int64 of shape (); "),
        ("number", "gives a float; "),
    ],
)
def test_its_value_is_one_number(what: str, message: str) -> None:
    wanted = "a tensor with one number is wanted, the mean over the examples"
    with pytest.raises(UsageError) as caught:
        objective(own("gives", what=what))(make_step())
    assert str(caught.value) == f"python:own_terms:gives: {message}{wanted}"


def test_an_error_in_a_step_or_a_survey_is_a_message() -> None:
    built = objective(own("gives", what="nothing"))
    with pytest.raises(EdgekdError) as caught:
        built(make_step())
    assert str(caught.value) == "python:own_terms:gives: KeyError: 'nothing' (own_terms.py:62)"
    with pytest.raises(UsageError, match=r"python:own_terms:gives: KeyError: 'nothing' \(.*\)"):
        built.prepare(Survey(torch.zeros(2), lambda source, tap: {}[tap]))


@pytest.mark.parametrize("kind", ["python:mine", "python", "python:mine:f:g", "python:mi ne:f"])
def test_a_kind_that_is_no_address(kind: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parsed({"kind": kind})
    assert f"distillation.terms[0].kind: found '{kind}'; the pattern is ^python:[\\w.]+:\\w+$" in str(
        caught.value
    )


def test_it_cannot_stand_inside_another_term() -> None:
    with pytest.raises(
        DocumentError, match=r"terms\[0\].of.kind: found 'python:own_terms:good'; allowed: 'kd'"
    ):
        parsed({"kind": "pad", "of": own("good")})
