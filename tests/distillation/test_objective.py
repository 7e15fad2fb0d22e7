"""The objective: which parts a recipe gives, their sum and schedule, their names, and who must teach."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from edgekd.distillation.kd import KD
from edgekd.distillation.labels import UNLABELED, Labels
from edgekd.distillation.objective import LABELS_ONLY, build_objective, build_quantized_objective
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.documents.recipe import Distillation, QuantizedTraining
from edgekd.documents.terms import JSTerm, KDTerm
from edgekd.errors import UsageError
from tests.distillation.steps import SETTING, make_step


@pytest.fixture
def step() -> Step:
    return make_step(scale=1.0, dtype=torch.float32)


def test_sum_of_the_weighted_parts(step: Step) -> None:
    distillation = Distillation(label_weight=0.25, terms=(KDTerm(weight=0.5, temperature=3.0),))
    total, values_P = build_objective(distillation, SETTING, label_smoothing=0.2)(step)
    labels, kd = Labels(0.2)(step).item(), KD(3.0)(step).item()
    assert values_P.tolist() == pytest.approx([labels, kd])
    assert total.item() == pytest.approx(0.25 * labels + 0.5 * kd)
    assert total.requires_grad
    assert not values_P.requires_grad


def test_quantized_objective_scales_the_terms_and_adds_the_self_teacher(step: Step) -> None:
    section = QuantizedTraining(label_weight=0.3, teacher_weight=0.5, self_weight=2.0, self_temperature=1.5)
    terms = (KDTerm(weight=0.8, temperature=4.0),)
    objective = build_quantized_objective(section, Distillation(terms=terms), SETTING)
    expected = 0.3 * Labels()(step) + 0.5 * 0.8 * KD(4.0)(step) + 2.0 * KD(1.5, source="self")(step)
    assert objective.names == ("labels", "kd", "self")
    assert objective.sources == ("teacher", "self")
    assert objective(step)[0].item() == pytest.approx(expected.item())


def test_quantized_objective_keeps_only_what_compares_logits_of_the_weak_view() -> None:
    terms = (KDTerm(view="strong"), KDTerm())
    objective = build_quantized_objective(QuantizedTraining(), Distillation(terms=terms), SETTING)
    assert objective.names == ("labels", "kd2", "self")


def test_quantized_objective_has_no_schedule() -> None:
    term = KDTerm.model_validate({"weight": 0.8, "start_epoch": 9, "ramp_epochs": 20, "decay": "linear"})
    section = QuantizedTraining(label_weight=0.0, self_weight=0.0, teacher_weight=0.5)
    objective = build_quantized_objective(section, Distillation(terms=(term,)), SETTING)
    assert [objective.weights(epoch, 6) for epoch in (1, 6)] == [(0.4,), (0.4,)]


def test_parts_without_weight_cost_nothing() -> None:
    objective = build_objective(Distillation(label_weight=1.0, terms=(KDTerm(weight=0.0),)), SETTING)
    assert objective.names == ("labels",)
    assert objective.sources == ()


def test_labels_alone_need_no_teacher() -> None:
    assert build_objective(LABELS_ONLY, SETTING).sources == ()


def test_terms_of_one_kind_are_numbered() -> None:
    two = (KDTerm(temperature=1.0), KDTerm(temperature=4.0), JSTerm(kind="js"))
    objective = build_objective(Distillation(terms=two), SETTING)
    assert objective.names == ("labels", "kd", "kd2", "js")
    assert objective.sources == ("teacher",)


def test_quantized_objective_without_terms_reads_only_the_student() -> None:
    section = QuantizedTraining(teacher_weight=0.0)
    assert build_quantized_objective(section, Distillation(), SETTING).sources == ("self",)


def test_views_are_those_of_the_parts_the_weak_one_first() -> None:
    objective = build_objective(Distillation(terms=(KDTerm(view="strong"),)), SETTING)
    assert objective.views == ("weak", "strong")


@pytest.mark.parametrize(
    ("keys", "weights"),
    [
        ({}, [2, 2, 2, 2]),
        ({"ramp_epochs": 4}, [0.5, 1, 1.5, 2]),
        ({"ramp_epochs": 2, "start_epoch": 2}, [0, 1, 2, 2]),
        ({"decay": "linear"}, [2, 1.5, 1, 0.5]),
        ({"decay": "cosine"}, [2, 1.7071068, 1, 0.2928932]),
    ],
)
def test_a_weight_has_a_schedule(step: Step, keys: dict[str, object], weights: list[float]) -> None:
    term = KDTerm.model_validate({"weight": 2.0, **keys})
    objective = build_objective(Distillation(label_weight=0.0, terms=(term,)), SETTING)
    assert [objective.weights(epoch, 4)[0] for epoch in (1, 2, 3, 4)] == pytest.approx(weights)
    for epoch, weight in enumerate(weights, start=1):
        now = dataclasses.replace(step, epoch=epoch, epochs=4)
        assert objective(now)[0].item() == pytest.approx(weight * KD(4.0)(step).item(), rel=1e-5)


def test_unlabeled_examples_are_no_part_of_the_mean(step: Step) -> None:
    labels_B = step.labels_B.clone()
    labels_B[1::2] = UNLABELED
    some = Labels()(dataclasses.replace(step, labels_B=labels_B)).item()
    logits_BK = step.student.logits()[::2]
    picked = torch.nn.functional.cross_entropy(logits_BK, step.labels_B[::2]).item()
    assert some == pytest.approx(picked, rel=1e-6)
    none = Labels()(dataclasses.replace(step, labels_B=torch.full_like(labels_B, UNLABELED)))
    assert none.item() == 0


def setting(**changes: object) -> Setting:
    return dataclasses.replace(SETTING, **changes)  # type: ignore[arg-type]


def test_a_view_that_the_task_does_not_offer() -> None:
    with pytest.raises(UsageError) as caught:
        build_objective(Distillation(terms=(KDTerm(view="strong"),)), setting(views=("weak",)))
    assert str(caught.value) == (
        "term kd: needs the views strong, which this task does not offer\n"
        "  try: a term without them: this task offers weak; series and images have them all, images "
        "with H != W only without augmentation.flip"
    )


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="term kd: needs a teacher, which was not given"):
        build_objective(Distillation(), setting(sources={}))
