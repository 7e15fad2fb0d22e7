"""The section [teacher]: which keys exclude each other, and when a recipe needs a teacher at all."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.documents.recipe import Distillation, Recipe
from edgekd.errors import DocumentError


def recipe(**sections: Any) -> Recipe:
    return Recipe.parse({"schema": 1, "name": "x", **sections}, where="x.toml")


def test_an_ensemble_is_the_main_network_and_its_members():
    teacher = recipe(
        teacher={"network": "resnet14", "members": [{"network": "resnet8", "untrained": True}]}
    ).teacher
    assert [one.network for one in teacher.networks] == ["resnet14", "resnet8"]
    assert [one.untrained for one in teacher.networks] == [False, True]
    assert (teacher.combine, teacher.power) == ("mean", 1.0)


def test_a_file_of_answers_is_no_network():
    assert recipe(teacher={"answers": "a.npz"}).teacher.networks == ()


@pytest.mark.parametrize(
    ("teacher", "problem"),
    [
        (
            {"untrained": True, "weights": "w.safetensors"},
            "teacher: untrained = true and weights exclude each other",
        ),
        (
            {"members": [{"untrained": True, "weights": "w.pt"}]},
            "teacher.members[0]: untrained = true and weights exclude each other",
        ),
        (
            {"answers": "a.npz", "weights": "w.pt"},
            "teacher: answers take the place of a network: leave out weights, untrained and members",
        ),
        (
            {"answers": "a.npz", "members": [{}]},
            "teacher: answers take the place of a network: leave out weights, untrained and members",
        ),
        ({"combine": "nearest"}, "teacher: combine = 'nearest' needs members to combine"),
        (
            {"members": [{}], "combine": "median"},
            "teacher.combine: found 'median'; allowed: 'mean', 'weighted' or 'nearest'; did you mean 'mean'?",
        ),
        ({"members": [{}], "power": -1}, "teacher.power: found -1; at least 0 is expected"),
    ],
)
def test_what_cannot_be(teacher, problem):
    with pytest.raises(DocumentError) as caught:
        recipe(teacher=teacher)
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize("fraction", [0, 1.5])
def test_a_fraction_of_the_data_lies_in_its_bounds(fraction):
    with pytest.raises(DocumentError, match=r"distillation\.data_fraction: found"):
        recipe(distillation={"data_fraction": fraction})


def test_a_teacher_is_needed_where_a_term_with_a_weight_reads_it():
    kd, own = {"kind": "kd"}, {"kind": "pskd"}

    def needs(*terms: dict[str, Any]) -> bool:
        return Distillation.model_validate({"label_weight": 1.0, "terms": terms}).needs_teacher

    assert needs(kd)
    assert needs(own, kd)
    assert not needs()
    assert not needs(own)
    assert not needs(own, {**kd, "weight": 0})
