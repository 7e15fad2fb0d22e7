"""The arm that ships: the first within the budget, else the best; what is tried is told."""

from types import SimpleNamespace

import pytest

from edgekd.documents.recipe import Recipe
from edgekd.documents.scheme import Scheme
from edgekd.errors import UsageError
from edgekd.pipeline.quantize import choose as module
from edgekd.pipeline.quantize.choose import choose, make
from edgekd.pipeline.quantize.stages import Quantized


def context(**quantization):
    return SimpleNamespace(
        recipe=Recipe.parse({"schema": 1, "name": "r", "quantization": quantization}, where="r.toml")
    )


def quantized(arm, right):
    """An arm with so many right answers of 1000; the fp32 student has 900."""
    worth = {"top1": right / 1000, "fp32_top1": 0.9, "kl": 0.1, "count": 1000}
    stage = SimpleNamespace(json=lambda name: worth, file=SimpleNamespace(name=arm))
    return Quantized(arm, Scheme(), stage)


@pytest.fixture
def tried(monkeypatch):
    """Runs a choice over arms with so many right answers; returns it, and the arms that were trained."""

    def run(right, **section):
        trained = []

        def fake(context, task, teacher, student, start, arm):
            trained.append(arm)
            return quantized(arm, right[arm])

        monkeypatch.setattr(module, "best_calibrated", lambda *given: quantized("ptq", right["ptq"]))
        monkeypatch.setattr(module, "make", fake)
        return choose(context(**section), None, None, None, Scheme()), trained

    return run


def test_it_stops_at_calibration_where_that_is_enough(tried):
    choice, trained = tried({"ptq": 897})
    assert (choice.ships.arm, trained) == ("ptq", [])
    assert choice.note == (
        "student PTQ int8 ships: 89.70 % on 1000 validation examples, 0.30 points below the fp32 student, "
        "within the budget of 0.3; qad not needed"
    )


def test_it_goes_on_where_it_is_not(tried):
    choice, trained = tried({"ptq": 896, "qad": 901})
    assert (choice.ships.arm, trained) == ("qad", ["qad"])
    assert [one.arm for one in choice.made] == ["ptq", "qad"]
    assert "0.10 points above the fp32 student, within the budget of 0.3" in choice.note


def test_the_first_within_the_budget_wins_over_a_better_one_behind_it(tried):
    choice, trained = tried({"ptq": 890, "qat": 898, "qad": 910}, arms=["ptq", "qat", "qad"], budget_pt=0.5)
    assert (choice.ships.arm, trained) == ("qat", ["qat"])


def test_the_best_ships_where_none_is_within(tried):
    choice, trained = tried({"ptq": 890, "qat": 880, "qad": 889}, arms=["ptq", "qat", "qad"])
    assert (choice.ships.arm, trained) == ("ptq", ["qat", "qad"])
    assert choice.note.endswith("over the budget of 0.3, and the best that was tried")


def test_an_arm_that_stands_alone_ships_whatever_it_is_worth(tried):
    choice, _ = tried({"ptq": 900, "qad": 500}, arms=["qad"])
    assert choice.ships.arm == "qad"
    assert [one.arm for one in choice.made] == ["ptq", "qad"], "the calibrated student stays as a baseline"
    assert choice.note.endswith("over the budget of 0.3, and nothing else was to be tried")


def test_an_arm_that_cannot_be_is_refused():
    silent = {"distillation": {"label_weight": 1.0, "terms": []}}
    made = SimpleNamespace(recipe=Recipe.parse({"schema": 1, "name": "r", **silent}, where="r.toml"))
    with pytest.raises(
        UsageError, match="'qad-teacher' cannot be done: no term of the objective reads a teacher"
    ):
        make(made, None, None, None, None, "qad-teacher")
