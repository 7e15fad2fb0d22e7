"""The objective: which parts a recipe gives, their sum, their names, and who must teach."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.kd import KD
from edgekd.distillation.labels import Labels
from edgekd.distillation.objective import LABELS_ONLY, build_objective, build_quantized_objective
from edgekd.distillation.step import Step
from edgekd.documents.recipe import Distillation, KDTerm, QuantizedTraining


@pytest.fixture
def step() -> Step:
    generator = torch.Generator().manual_seed(0)
    student_BK, teacher_BK, self_BK = torch.randn(3, 4, 3, generator=generator)
    sources = {"teacher": teacher_BK, "self": self_BK}
    return Step(student_BK.requires_grad_(), torch.tensor([0, 1, 2, 0]), sources)


def test_sum_of_the_weighted_parts(step: Step) -> None:
    objective = build_objective(
        Distillation(label_weight=0.25, terms=(KDTerm(weight=0.5, temperature=3.0),)), label_smoothing=0.2
    )
    loss = objective(step)
    labels, kd = Labels(0.2)(step).item(), KD(3.0)(step).item()
    assert loss.values_P.tolist() == pytest.approx([labels, kd])
    assert loss.total.item() == pytest.approx(0.25 * labels + 0.5 * kd)
    assert loss.total.requires_grad
    assert not loss.values_P.requires_grad


def test_quantized_objective_scales_the_terms_and_adds_the_self_teacher(step: Step) -> None:
    section = QuantizedTraining(label_weight=0.3, teacher_weight=0.5, self_weight=2.0, self_temperature=1.5)
    objective = build_quantized_objective(section, Distillation(terms=(KDTerm(weight=0.8, temperature=4.0),)))
    expected = 0.3 * Labels()(step) + 0.5 * 0.8 * KD(4.0)(step) + 2.0 * KD(1.5, source="self")(step)
    assert objective.names == ("labels", "kd", "self")
    assert objective.sources == ("teacher", "self")
    assert objective(step).total.item() == pytest.approx(expected.item())


def test_parts_without_weight_cost_nothing() -> None:
    objective = build_objective(Distillation(label_weight=1.0, terms=(KDTerm(weight=0.0),)))
    assert objective.names == ("labels",)
    assert objective.sources == ()


def test_labels_alone_need_no_teacher() -> None:
    assert build_objective(LABELS_ONLY).sources == ()


def test_terms_of_one_kind_are_numbered() -> None:
    two = (KDTerm(temperature=1.0), KDTerm(temperature=4.0))
    objective = build_objective(Distillation(terms=two))
    assert objective.names == ("labels", "kd", "kd2")
    assert objective.sources == ("teacher",)


def test_quantized_objective_without_terms_reads_only_the_student() -> None:
    objective = build_quantized_objective(QuantizedTraining(teacher_weight=0.0), Distillation())
    assert objective.sources == ("self",)
