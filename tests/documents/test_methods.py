"""The methods of the literature: every term has one, each is valid, and its published values are these."""

import tomllib

import pytest

from edgekd.documents.change import change
from edgekd.documents.methods import METHODS
from edgekd.documents.recipe import Distillation, Recipe
from edgekd.documents.terms import SECTIONS
from edgekd.documents.terms.python_term import PythonTerm
from edgekd.documents.to_toml import to_toml

PUBLISHED = 240


def test_every_term_stands_in_some_method_of_its_own() -> None:
    published = {section.tag for section in SECTIONS if section is not PythonTerm}
    assert {method.kind for method in METHODS.values()} - {None} == published


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_term_that_names_it(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    assert method.kind is None or method.kind in {term.kind for term in method.objective.terms}


@pytest.mark.parametrize("name", METHODS)
def test_the_toml_of_an_objective_is_that_objective_in_a_recipe(name: str) -> None:
    objective = METHODS[name].objective
    data = {"schema": 1, "name": "pasted", **tomllib.loads(to_toml(objective))}
    assert Recipe.parse(data, where="pasted").distillation == objective


def test_the_toml_leaves_defaults_out() -> None:
    assert to_toml(METHODS["kd-ls"].objective) == (
        "[distillation]\nlabel_weight = 0.1\n\n"
        '[[distillation.terms]]\nkind = "kd"\nweight = 9.0\nstandardize = true\ntemperature = 2.0\n'
    )
    assert to_toml(METHODS["ce"].objective) == "[distillation]\nlabel_weight = 1.0\nterms = []\n"
    assert 'of = { kind = "kd" }\n' in to_toml(METHODS["pad-kd"].objective)


@pytest.mark.parametrize(
    ("name", "label_weight", "terms"),
    [
        ("ce", 1.0, {}),
        ("kd", 0.1, {"kd": {"weight": 0.9, "temperature": 4.0, "standardize": False}}),
        ("kd-ls", 0.1, {"kd": {"weight": 9.0, "temperature": 2.0, "standardize": True}}),
        ("kd-only", 0.0, {"kd": {"weight": 1.0, "temperature": 1.0}}),
        ("js", 0.0, {"js": {"weight": 1.0, "temperature": 1.0}}),
        ("dkd", 1.0, {"dkd": {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "ramp_epochs": 20.0}}),
        ("dist", 1.0, {"dist": {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}}),
        ("nkd", 1.0, {"nkd": {"gamma": 3.5, "temperature": 3.0}}),
        ("fitnet", 1.0, {"fitnet": {"weight": 100.0}}),
        ("at", 1.0, {"at": {"weight": 1000.0}}),
        ("sp", 1.0, {"sp": {"weight": 3000.0}}),
        ("rkd", 1.0, {"rkd": {"weight": 1.0, "distance_weight": 25.0, "angle_weight": 50.0}}),
        ("pkt", 1.0, {"pkt": {"weight": 30_000.0}}),
        ("crd", 1.0, {"crd": {"weight": 0.8, "negatives": 16384, "temperature": 0.07}}),
        ("crd-kd", 1.0, {"crd": {"weight": 0.8}, "kd": {"weight": 1.0, "temperature": 4.0}}),
        ("nd", 1.0, {"kd": {"weight": 1.0, "ramp_epochs": 20.0}, "nd": {"weight": 2.0, "ramp_epochs": 0.0}}),
        ("reviewkd", 1.0, {"reviewkd": {"weight": 5.0, "ramp_epochs": 20.0}}),
        (
            "sskd",
            0.1,
            {
                "kd": {"weight": 0.9, "temperature": 4.0},
                "sskd": {"weight": 1.0, "transformed_weight": 2.7, "similarity_weight": 10.0},
            },
        ),
        ("hsakd", 1.0, {"hsakd": {"weight": 1.0, "temperature": 3.0}}),
        ("pskd", 0.0, {"pskd": {"weight": 1.0, "alpha": 0.8}}),
        ("uskd", 1.0, {"uskd": {"alpha": 0.1, "beta": 0.1, "mu": 0.1}}),
        ("pad", 1.0, {"pad": {"weight": 1.0, "weighting": "uncertainty", "of": None}}),
    ],
)
def test_the_published_values(name: str, label_weight: float, terms: dict[str, dict[str, object]]) -> None:
    objective = METHODS[name].objective
    assert objective.label_weight == label_weight
    assert {
        term.kind: {key: getattr(term, key) for key in terms[term.kind]} for term in objective.terms
    } == terms


@pytest.mark.parametrize(
    ("name", "teacher", "student", "kind", "key", "value"),
    [
        ("dkd", "resnet56", "resnet20", "dkd", "beta", 2.0),
        ("dkd", "resnet110", "resnet32", "dkd", "beta", 2.0),
        ("dkd", "vgg13", "mobilenetv2", "dkd", "beta", 6.0),
        ("dkd", "wrn-40-2", "wrn-16-2", "dkd", "beta", 6.0),
        ("dkd", "wrn-40-2", "shufflenetv1", "dkd", "beta", 8.0),
        ("dkd", "resnet32x4", "resnet8x4", "dkd", "beta", 8.0),
        ("nd", "resnet32x4", "resnet8x4", "kd", "weight", 3.5),
        ("nd", "resnet32x4", "resnet8x4", "nd", "weight", 2.0),
        ("nd", "wrn-40-2", "wrn-40-1", "nd", "weight", 1.5),
        ("reviewkd", "resnet32x4", "shufflenetv2", "reviewkd", "weight", 8.0),
        ("reviewkd", "resnet56", "resnet20", "reviewkd", "weight", 0.6),
        ("kd", "vgg13", "vgg8", "kd", "temperature", 4.0),
        ("kd-ls", "vgg13", "vgg8", "kd", "temperature", 3.0),
    ],
)
def test_the_values_for_a_pair_of_networks(
    name: str, teacher: str, student: str, kind: str, key: str, value: float
) -> None:
    objective = METHODS[name].objective_for(teacher, student, PUBLISHED)
    assert [getattr(term, key) for term in objective.terms if term.kind == kind] == [value]


def test_schedules_keep_their_share_of_a_shorter_training() -> None:
    (dkd,) = METHODS["dkd"].objective_for("a", "b", 24).terms
    _, sskd = METHODS["sskd"].objective_for("a", "b", 24).terms
    (pad,) = METHODS["pad"].objective_for("a", "b", 24).terms
    assert (dkd.ramp_epochs, pad.warmup_epochs) == (2.0, 12)  # type: ignore[union-attr]
    assert sskd.head_training.epochs == 6  # type: ignore[union-attr]
    assert sskd.head_training.milestones == (3, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize("epochs", [PUBLISHED, 2 * PUBLISHED])
def test_schedules_do_not_grow(epochs: int) -> None:
    for method in METHODS.values():
        assert method.objective_for("a", "b", epochs) == method.objective


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20, 239])
def test_however_short_the_objective_stays_valid(epochs: int) -> None:
    for method in METHODS.values():
        shortened = method.objective_for("a", "b", epochs)
        assert Distillation.model_validate_json(shortened.model_dump_json(), strict=True) == shortened


def test_change_finds_the_term() -> None:
    changed, problems = change(
        METHODS["sskd"].objective,
        "sskd",
        {
            "similarity_ratio": 0.5,
            "kd.temperature": 2,
            "label_weight": 0.3,
            "head_training.epochs": 9,
            "head_training.milestones": [4],
        },
    )
    kd, sskd = changed.terms
    assert problems == []
    assert (changed.label_weight, kd.temperature, sskd.similarity_ratio) == (0.3, 2.0, 0.5)  # type: ignore[union-attr]
    assert (sskd.head_training.epochs, sskd.head_training.batch_size) == (9, 64)  # type: ignore[union-attr]


def test_change_says_all_that_is_wrong_and_changes_nothing() -> None:
    before = METHODS["nd"].objective
    changes = {"weigth": 1, "dropout": 2, "kd.temperature": 0, "label_weight": -1, "weight": "much"}
    changed, problems = change(before, "nd", changes)
    assert changed == before
    assert problems == [
        "kd.temperature: found 0; more than 0 is expected",
        "weight: found 'much'; a number is expected",
        "dropout: found 2; less than 1 is expected",
        "weigth: unknown key; did you mean 'weight'?",
        "label_weight: found -1; at least 0 is expected",
    ]


def test_change_of_what_has_no_term() -> None:
    _, problems = change(METHODS["ce"].objective, None, {"weight": 1})
    assert problems == ["weight: unknown key; there is no term, only label_weight"]
    _, problems = change(METHODS["ce"].objective, None, {"label_weight": 0})
    assert problems == ["every weight is zero: nothing would be learned"]
