"""The names of arms: what can be asked for, and what is said of what cannot."""

import pytest

from edgekd.documents.recipe import Recipe
from edgekd.documents.scheme import Scheme
from edgekd.errors import UsageError
from edgekd.pipeline.quantize.arms import DESCRIPTIONS, SETS, STANDARD, possible, read_arms
from edgekd.pipeline.quantize.names import row_of, training_of


def recipe(**quantization):
    data = {"schema": 1, "name": "r", "quantization": quantization}
    return Recipe.parse(data, where="r.toml")


def test_the_standard_set_has_every_control():
    calibrated = ("ptq-max", "ptq-percentile", "ptq-entropy", "ptq-mse")
    trained = ("qat", "qad-self", "qad-teacher", "qad")
    wanted = ("fp32", "fp32-tuned", *calibrated, *trained, "quantize-static")
    assert read_arms("standard") == STANDARD == wanted


def test_all_are_all_and_every_set_is_made_of_arms():
    assert read_arms("all") == tuple(DESCRIPTIONS)
    assert all(arm in DESCRIPTIONS for arms in SETS.values() for arm in arms)


def test_fp32_is_always_there_and_the_order_is_the_tables():
    assert read_arms(" w4-qad,qat ,, qat") == ("fp32", "qat", "w4-qad")


def test_every_unknown_name_is_told():
    with pytest.raises(UsageError) as caught:
        read_arms("w4-qd,qad,123456789")
    assert caught.value.message == (
        "there is no arm 'w4-qd'; did you mean 'w4-qad'?\n  there is no arm '123456789'"
    )


def test_an_arm_that_reads_the_teacher_needs_one():
    silent = Recipe.parse(
        {"schema": 1, "name": "r", "distillation": {"label_weight": 1.0, "terms": []}}, where="r.toml"
    )
    assert possible(("fp32", "qad-teacher", "qad"), recipe()) == (("fp32", "qad-teacher", "qad"), ())
    assert possible(("fp32", "qad-teacher", "qad"), silent) == (
        ("fp32", "qad"),
        ("qad-teacher: no term of the objective reads a teacher",),
    )
    unheard = recipe(training={"teacher_weight": 0.0})
    assert possible(("qad-teacher",), unheard)[1] == (
        "qad-teacher: quantization.training.teacher_weight is zero",
    )


@pytest.mark.parametrize(
    ("arm", "weights"),
    [
        ("qat", (1.0, 0.0, 0.0)),
        ("qad-self", (0.2, 0.7, 0.0)),
        ("qad-teacher", (0.2, 0.0, 0.4)),
        ("qad", (0.2, 0.7, 0.4)),
    ],
)
def test_an_arm_learns_from_what_it_says(arm, weights):
    training = training_of(
        arm, recipe(training={"label_weight": 0.2, "self_weight": 0.7, "teacher_weight": 0.4, "epochs": 9})
    )
    assert (training.label_weight, training.self_weight, training.teacher_weight) == weights
    assert training.epochs == 9


def test_rows_name_the_arm_and_the_scheme():
    assert row_of("ptq", Scheme()) == "student PTQ int8"
    assert row_of("qad-self", Scheme(weight_bits=4)) == "student QAD from itself w4a8"
