"""Sections of the terms with pretext views: their defaults, and what makes no sense."""

from __future__ import annotations

import pytest

from edgekd.documents.recipe import Recipe
from edgekd.documents.terms.pretext import HSAKDTerm, SSKDTerm
from edgekd.errors import DocumentError


def read(*terms: dict[str, object]) -> Recipe:
    data = {"schema": 1, "name": "x", "distillation": {"label_weight": 1.0, "terms": list(terms)}}
    return Recipe.parse(data, where="r.toml")


def problem(term: dict[str, object]) -> str:
    with pytest.raises(DocumentError) as caught:
        read(term)
    (line,) = caught.value.problems
    return line


def test_the_published_values() -> None:
    sskd, hsakd, lsskd, sla = read(
        *({"kind": kind} for kind in ("sskd", "hsakd", "lsskd", "sla"))
    ).distillation.terms
    assert isinstance(sskd, SSKDTerm)
    assert (sskd.weight, sskd.transformed_weight, sskd.similarity_weight) == (1, 2.7, 10)
    assert (sskd.transformed_temperature, sskd.similarity_temperature) == (4, 0.5)
    assert (sskd.transformed_ratio, sskd.similarity_ratio) == (1, 0.75)
    training = sskd.head_training
    assert (training.epochs, training.batch_size, training.learning_rate) == (60, 64, 0.05)
    assert (training.schedule, training.milestones, training.weight_decay) == ("step", (30, 45), 5e-4)
    assert isinstance(hsakd, HSAKDTerm)
    assert (hsakd.temperature, hsakd.auxiliary_weight, hsakd.logits_weight) == (3, 1, 1)
    assert (hsakd.head_training.epochs, hsakd.head_training.milestones) == (100, (30, 60, 90))
    assert [term.needs_teacher for term in (sskd, hsakd, lsskd, sla)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (
            {"kind": "sskd", "transformed_weight": 0, "similarity_weight": 0},
            "transformed_weight and similarity_weight are zero: nothing would be learned",
        ),
        (
            {"kind": "hsakd", "auxiliary_weight": 0, "logits_weight": 0},
            "auxiliary_weight and logits_weight are zero: nothing would be learned",
        ),
        (
            {"kind": "lsskd", "joint_weight": 0, "transfer_weight": 0, "alignment_weight": 0},
            "joint_weight and transfer_weight and alignment_weight are zero: nothing would be learned",
        ),
        (
            {"kind": "sla", "joint_weight": 0, "aggregate_weight": 0},
            "joint_weight and aggregate_weight are zero: nothing would be learned",
        ),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
def test_a_term_without_any_weight(term: dict[str, object], expected: str) -> None:
    assert problem(term) == f"distillation.terms[0]: {expected}"


def test_a_rate_that_would_never_fall() -> None:
    assert problem({"kind": "sskd", "head_training": {"epochs": 40}}) == (
        "distillation.terms[0].head_training: milestones [30, 45] do not all fall inside 40 epochs: "
        "give milestones too, such as [20, 30], or schedule = 'cosine' and milestones = []"
    )
    shorter = {"epochs": 40, "milestones": [20, 30]}
    (term,) = read({"kind": "sskd", "head_training": shorter}).distillation.terms
    assert isinstance(term, SSKDTerm)
    assert term.head_training.milestones == (20, 30)
    cosine = {"epochs": 1, "schedule": "cosine", "milestones": []}
    (term,) = read({"kind": "hsakd", "head_training": cosine}).distillation.terms
    assert isinstance(term, HSAKDTerm)
    assert term.head_training.schedule == "cosine"


def test_what_the_head_on_the_teacher_depends_on() -> None:
    section = SSKDTerm(kind="sskd")
    assert set(section.head()) == {"kind", "head_training", "teacher_tap"}
    for change in ({"weight": 3.0}, {"similarity_ratio": 0.5}, {"student_tap": "x"}):
        assert section.model_copy(update=change).head() == section.head()
    assert section.model_copy(update={"teacher_tap": "x"}).head() != section.head()
    other = HSAKDTerm(kind="hsakd", teacher_taps=("stage1",))
    assert other.head() != HSAKDTerm(kind="hsakd").head()
    assert other.head()["teacher_taps"] == ["stage1"]
