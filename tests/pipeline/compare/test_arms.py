"""How arms are asked for, and everything that can be wrong with them."""

import pytest

from edgekd.documents.methods import METHODS
from edgekd.documents.recipe import Recipe
from edgekd.errors import DocumentError
from edgekd.pipeline.compare.arms import read_arms

RECIPE = Recipe.parse(
    {
        "schema": 1,
        "name": "arms",
        "teacher": {"network": "wrn-40-2"},
        "student": {"network": "wrn-16-2", "training": {"epochs": 240}},
        "distillation": {"label_weight": 0.5, "data_fraction": 0.25, "terms": [{"kind": "js"}]},
    },
    where="arms",
)


def arms(asked, recipe=RECIPE):
    return {arm.name: arm for arm in read_arms(asked, recipe)}


def terms_of(arm):
    return [(term.kind, term.weight) for term in arm.objective.terms]


def problems(asked):
    with pytest.raises(DocumentError) as caught:
        read_arms(asked, RECIPE)
    return caught.value.problems


def test_the_controls_are_always_there_and_come_first():
    assert list(arms("")) == ["ce", "random-teacher"]
    assert list(arms("kd, ce,sskd,kd,")) == ["ce", "random-teacher", "kd", "sskd"]


def test_the_controls():
    found = arms("")
    assert (found["ce"].objective.label_weight, found["ce"].objective.terms) == (1.0, ())
    assert found["random-teacher"].objective == arms("kd")["kd"].objective
    assert (found["random-teacher"].trained_teacher, arms("kd")["kd"].trained_teacher) == (False, True)


def test_an_arm_is_the_published_objective_for_the_recipes_networks():
    dkd = arms("dkd")["dkd"].objective
    assert dkd.terms[0].beta == 6.0
    assert dkd.terms == METHODS["dkd"].objective_for("wrn-40-2", "wrn-16-2", 240).terms


def test_an_arm_of_a_shorter_training_has_shorter_schedules():
    short = RECIPE.student.training.model_copy(update={"epochs": 12})
    recipe = RECIPE.model_copy(update={"student": RECIPE.student.model_copy(update={"training": short})})
    assert arms("dkd", recipe)["dkd"].objective.terms[0].ramp_epochs == 1.0


def test_the_recipes_own_objective_is_an_arm():
    assert arms("recipe")["recipe"].objective == RECIPE.distillation


def test_every_arm_learns_from_the_part_of_the_data_that_the_recipe_says():
    found = arms("kd,kd+nd,guided,recipe,sskd")
    assert {arm.objective.data_fraction for arm in found.values()} == {0.25}


def test_options_are_those_of_the_methods_own_term():
    name = "kd:temperature=2:weight=1.5:label_weight=0.3:standardize=true:decay=linear"
    objective = arms(name)[name].objective
    (term,) = objective.terms
    assert objective.label_weight == 0.3
    assert (term.temperature, term.weight, term.standardize, term.decay) == (2.0, 1.5, True, "linear")


def test_options_of_another_term_of_a_table_and_of_a_list():
    name = "sskd:kd.weight=0.5:head_training={epochs = 9, milestones = [4, 6]}"
    kd, sskd = arms(name)[name].objective.terms
    assert (kd.weight, sskd.head_training.epochs, sskd.head_training.milestones) == (0.5, 9, (4, 6))
    taps = 'exits:student_taps=["stage1", "stage2"]'
    assert arms(taps)[taps].objective.terms[0].student_taps == ("stage1", "stage2")


def test_a_sum_has_the_terms_of_all_and_the_label_weight_of_the_first():
    arm = arms("kd+crd+at")["kd+crd+at"]
    assert terms_of(arm) == [("kd", 0.9), ("crd", 0.8), ("at", 1000.0)]
    assert arm.objective.label_weight == 0.1


def test_a_term_that_two_methods_share_counts_once_as_the_first_has_it():
    assert terms_of(arms("kd+nd")["kd+nd"]) == [("kd", 0.9), ("nd", 2.0)]
    assert terms_of(arms("nd+sskd")["nd+sskd"]) == [("kd", 1.0), ("nd", 2.0), ("sskd", 1.0)]


def test_a_sum_with_options():
    name = "kd:temperature=2+nd:weight=1e+0"
    kd, nd = arms(name)[name].objective.terms
    assert (kd.temperature, nd.weight) == (2.0, 1.0)


def test_guided_brings_the_arm_that_guides_it():
    found = arms("kd,guided:temperature=2")
    assert list(found) == ["ce", "random-teacher", "kd", "kd-only:temperature=2", "guided:temperature=2"]
    guided, guide = found["guided:temperature=2"], found["kd-only:temperature=2"]
    assert guided.guide == guide
    assert (guide.objective.label_weight, terms_of(guide)) == (0.0, [("kd", 1.0)])
    assert guide.objective.terms[0].temperature == 2.0
    assert guide == arms("kd-only:temperature=2")["kd-only:temperature=2"]


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_guided_objective_splits_one_between_labels_and_teacher(weight):
    objective = arms("guided")["guided"].weighted(weight)
    assert (objective.label_weight, objective.terms[0].weight) == (weight, 1 - weight)
    assert (objective.terms[0].temperature, objective.data_fraction) == (1.0, 0.25)


def test_the_stages_of_different_arms_have_different_names():
    names = ["crd+kd", "crd-kd", "kd", "kd:weight=1", "kd:temperature=1", "kd:temperature=10"]
    stages = [arm.stage(3) for arm in read_arms(",".join(names), RECIPE)]
    assert len(set(stages)) == len(stages) == 8
    assert stages[0] == "compare-ce-seed3"
    assert all("/" not in stage and len(stage) < 120 for stage in stages)
    long = (
        "sskd:"
        + ":".join(f"{key}=0.5" for key in ("similarity_ratio", "transformed_ratio"))
        + ":transformed_weight=1.25:similarity_weight=12.5:transformed_temperature=2.5:ramp_epochs=1"
    )
    assert len(arms(long)[long].stage(3)) < 120


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("kdd", "arm 'kdd': there is no method 'kdd'; did you mean 'kd'?"),
        ("kd+reviewkdd", "arm 'kd+reviewkdd': there is no method 'reviewkdd'; did you mean 'reviewkd'?"),
        (
            "kd:tau=2",
            "arm 'kd:tau=2': tau: unknown key; allowed: weight, start_epoch, ramp_epochs, decay, "
            "standardize, view, kind, temperature",
        ),
        ("kd:temperature=-1", "arm 'kd:temperature=-1': temperature: found -1; more than 0 is expected"),
        ("kd:temperature=hot", "arm 'kd:temperature=hot': temperature: found 'hot'; a number is expected"),
        ("kd:temperature", "arm 'kd:temperature': temperature: found ''; a number is expected"),
        ("kd:weight=-2", "arm 'kd:weight=-2': weight: found -2; at least 0 is expected"),
        ("kd-only:weight=0", "arm 'kd-only:weight=0': every weight is zero: nothing would be learned"),
        ("ce:weight=1", "arm 'ce:weight=1': weight: unknown key; there is no term, only label_weight"),
        ("recipe:weight=1", "arm 'recipe:weight=1': 'recipe' takes no options"),
        ("random-teacher:weight=1", "arm 'random-teacher:weight=1': 'random-teacher' takes no options"),
        ("kd+kd:weight=1", "arm 'kd+kd:weight=1': 'kd' is named twice"),
        ("kd+kd-ls", "arm 'kd+kd-ls': 'kd' and 'kd-ls' are one term, 'kd', with other keys"),
        ("kd:weight=1:weight=2", "arm 'kd:weight=1:weight=2': weight: given twice"),
        ("monitor", "arm 'monitor': 'monitor' says who teaches, in a recipe, and is no arm"),
        ("kd+recipe", "arm 'kd+recipe': 'recipe' cannot be combined"),
        ("guided+nd", "arm 'guided+nd': 'guided' cannot be combined"),
        (
            "guided:weight=1",
            "arm 'guided:weight=1': its two weights are what it finds; they cannot be set",
        ),
    ],
)
def test_what_is_wrong_with_an_arm(asked, problem):
    assert problems(asked) == (problem,)


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(DocumentError) as caught:
        read_arms("kdd,kd:weight=-1:temperature=0,nd", RECIPE)
    assert str(caught.value) == (
        "--terms: 3 problems\n"
        "  arm 'kdd': there is no method 'kdd'; did you mean 'kd'?\n"
        "  arm 'kd:weight=-1:temperature=0': weight: found -1; at least 0 is expected\n"
        "  arm 'kd:weight=-1:temperature=0': temperature: found 0; more than 0 is expected\n"
        "  try: edgekd methods list names the methods"
    )
