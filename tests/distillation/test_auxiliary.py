"""Auxiliary classifiers: for maps, series and vectors, and what their networks must have."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from edgekd.distillation.auxiliary import AuxiliaryClassifiers, auxiliary_classifiers
from edgekd.distillation.frozen_heads import build_head_objective, headed_terms, untrained_heads
from edgekd.distillation.labels import UNLABELED
from edgekd.distillation.objective import Objective, build_term
from edgekd.distillation.setting import Role, Setting
from edgekd.documents.recipe import Distillation
from edgekd.documents.terms.pretext import HSAKDTerm, LSSKDTerm, SLATerm, SSKDTerm
from edgekd.errors import UsageError
from tests.distillation.pretext_cases import STRIDES, TAPS, auxiliary, joint_formula, stacked
from tests.distillation.steps import SETTING, K, NumpyStep, make_step, parameters_of

Shapes = dict[str, tuple[int, ...]]
HSAKD = HSAKDTerm(kind="hsakd")
LSSKD = LSSKDTerm(kind="lsskd")


def classifiers(shapes: Shapes, network: nn.Module | None = None) -> AuxiliaryClassifiers:
    role = Role("student", network or nn.Identity(), shapes)
    return auxiliary_classifiers(role, tuple(shapes), K, wanted_by="hsakd")


def with_student(shapes: Shapes) -> Setting:
    return dataclasses.replace(SETTING, student=Role("student", nn.Identity(), shapes))


@pytest.mark.parametrize(
    "shapes",
    [
        {"stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (10, 2, 2)},
        {"stage1": (4, 25, 5), "stage2": (4, 25, 5)},
        {"stage1": (4, 7, 2), "stage2": (6, 4, 1)},
        {"stage1": (3, 2, 4, 6), "stage2": (5, 1, 2, 3)},
        {"stage1": (6,), "stage2": (9,)},
        {"stage1": (300, 2, 2)},
    ],
    ids=str,
)
def test_every_stage_gets_one_logit_a_class_and_transformation(shapes: Shapes) -> None:
    made = classifiers(shapes)
    features = [torch.randn(8, *shape) for shape in shapes.values()]
    embedded = made.embed(features)
    width = min(128, list(shapes.values())[-1][0])
    assert [tuple(one.shape) for one in embedded] == [(8, width)] * len(shapes)
    assert [tuple(one.shape) for one in made(features)] == [(8, 4 * K)] * len(shapes)


def test_a_stage_goes_on_with_the_widths_and_strides_of_the_later_ones() -> None:
    made = classifiers({"stage1": (4, 16, 9), "stage2": (6, 8, 9), "stage3": (10, 2, 3)})
    found = [
        [(one.in_channels, one.out_channels, one.stride) for one in body if isinstance(one, nn.Conv2d)]
        for body in made.bodies
    ]
    assert found == [
        [(4, 6, (2, 1)), (6, 10, (4, 3)), (10, 10, (1, 1))],
        [(6, 10, (4, 3)), (10, 10, (1, 1))],
        [(10, 10, (1, 1))],
    ]


def test_a_stage_of_vectors_goes_on_with_linear_layers() -> None:
    made = classifiers({"stage1": (6,), "stage2": (9,)})
    x_RC = torch.randn(8, 6, dtype=torch.float64)
    first, norm, _, second, *_ = made.double().bodies[0]
    hidden = x_RC @ first.weight.T
    hidden = torch.relu((hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt())
    hidden = hidden @ second.weight.T
    hidden = torch.relu((hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt())
    torch.testing.assert_close(made.embed([x_RC, x_RC.new_zeros(8, 9)])[0], hidden)


def test_series_are_convolved_along_time_and_tokens_along_their_row() -> None:
    series = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Conv1d(4, 6, 3))
    shapes = {"0": (4, 20), "1": (6, 10)}
    role = Role("student", series, shapes, {"0": "0", "1": "1"})
    made = auxiliary_classifiers(role, ("0", "1"), K, wanted_by="hsakd")
    assert [tuple(one.shape) for one in made([torch.randn(8, 4, 20), torch.randn(8, 6, 10)])] == [(8, 20)] * 2
    assert made.bodies[0][0].in_channels == 4
    tokens = classifiers({"0": (7, 12), "1": (7, 12)})
    assert [tuple(one.shape) for one in tokens([torch.randn(8, 7, 12)] * 2)] == [(8, 20)] * 2
    assert tokens.bodies[0][0].in_channels == 12


def test_the_heads_of_the_teacher_learn_the_joint_labels() -> None:
    torch.manual_seed(0)
    objective = build_head_objective(HSAKD, SETTING).double()
    assert objective.views == ("weak", "pretext1", "pretext2", "pretext3")
    step = dataclasses.replace(make_step(), sources={})
    (term,) = objective.terms.values()
    seen = NumpyStep(make_step())
    features = [stacked(seen.student, tap) for tap in TAPS]
    found = auxiliary(features, parameters_of(term), "head", STRIDES)
    expected = sum(joint_formula(logits_RJ, seen.labels) for _, logits_RJ in found)
    total, _ = objective(step)
    assert total.item() == pytest.approx(expected, rel=1e-10)


def test_unlabeled_examples_teach_the_heads_nothing() -> None:
    objective = build_head_objective(HSAKD, SETTING).double()
    step = make_step()
    none = dataclasses.replace(step, labels_B=torch.full_like(step.labels_B, UNLABELED))
    assert objective(none)[0].item() == 0


def test_the_teachers_statistics_stay_as_they_were_trained() -> None:
    term, step = build_term(HSAKD, SETTING).double(), make_step()
    term.train()
    before = {name: value.clone() for name, value in term.teacher_head.state_dict().items()}
    own = term.student_head.bodies[0][1].running_mean.clone()
    term(step).backward()
    assert all(torch.equal(value, before[name]) for name, value in term.teacher_head.state_dict().items())
    assert not torch.equal(term.student_head.bodies[0][1].running_mean, own)
    assert all(one.grad is None for one in term.teacher_head.parameters())


def test_equal_classifiers_and_features_give_zero() -> None:
    term, step = build_term(HSAKD, SETTING).double().eval(), make_step()
    term.student_head.load_state_dict(term.teacher_head.head.state_dict())
    same = dataclasses.replace(step, student=step.sources["teacher"])
    assert term(same).item() == pytest.approx(0, abs=1e-9)
    assert term(step).item() > 0.01


def gradient_of_deepest(section: LSSKDTerm) -> tuple[float, float]:
    """Sum of the gradients in the deepest auxiliary classifier and in the one before it."""
    torch.manual_seed(0)
    term = build_term(section, SETTING).double()
    term(make_step()).backward()
    grads = []
    for place in (1, 0):
        parts = [*term.head.bodies[place].parameters(), *term.head.classifiers[place].parameters()]
        grads.append(sum(float(one.grad.abs().sum()) for one in parts if one.grad is not None))
    return grads[0], grads[1]


@pytest.mark.parametrize("weight", ["transfer_weight", "alignment_weight"])
def test_the_deepest_stage_teaches_and_does_not_follow(weight: str) -> None:
    nothing = {"joint_weight": 0.0, "transfer_weight": 0.0, "alignment_weight": 0.0}
    deepest, first = gradient_of_deepest(LSSKD.model_copy(update={**nothing, weight: 1.0}))
    assert deepest == 0
    assert first > 0


def test_the_joint_classifier_of_sla_does_not_follow_the_network() -> None:
    term, step = build_term(SLATerm(kind="sla", joint_weight=0.0), SETTING).double(), make_step()
    term(step).backward()
    assert sum(float(one.grad.abs().sum()) for one in term.parameters() if one.grad is not None) == 0
    grad_RK = step.student.logits_RK.grad
    assert grad_RK is not None
    weak_BK, others_RK = grad_RK[: len(step.labels_B)], grad_RK[len(step.labels_B) :]
    assert weak_BK.abs().sum() > 0
    assert others_RK.abs().sum() == 0


def test_sla_learns_from_the_aggregate_where_there_are_no_labels() -> None:
    term, step = build_term(SLATerm(kind="sla"), SETTING).double(), make_step()
    none = dataclasses.replace(step, labels_B=torch.full_like(step.labels_B, UNLABELED))
    alone = build_term(SLATerm(kind="sla", joint_weight=0.0), SETTING).double()
    alone.load_state_dict(term.state_dict())
    assert term(none).item() == pytest.approx(alone(step).item())


def test_stages_of_different_kinds_are_refused() -> None:
    setting = with_student({"stage1": (4, 8, 8), "stage2": (6,)})
    with pytest.raises(UsageError) as caught:
        build_term(LSSKD, setting)
    assert str(caught.value) == (
        "term lsskd: needs stages of the student whose features have as many axes each; "
        "found stage1 (4, 8, 8), stage2 (6,)\n"
        "  try: name such taps; the student has stage1, stage2"
    )


def test_a_single_stage_cannot_learn_from_a_deeper_one() -> None:
    setting = with_student({"stage1": (4, 8, 8), "pool": (4,)})
    with pytest.raises(UsageError) as caught:
        build_term(LSSKD, setting)
    assert str(caught.value) == (
        "term lsskd: needs two stages of the student or more; found stage1\n"
        "  try: name student_taps, of stage1, pool"
    )


def test_networks_with_different_numbers_of_stages_must_be_paired_by_hand() -> None:
    setting = with_student({"stage1": (4, 8, 8), "pool": (4,)})
    with pytest.raises(UsageError) as caught:
        build_term(HSAKD, setting)
    assert str(caught.value) == (
        "term hsakd: 1 taps of the student (stage1) cannot be paired with 2 of the teacher (stage1, stage2)\n"
        "  try: name as many student_taps as teacher_taps"
    )
    paired = HSAKDTerm(kind="hsakd", teacher_taps=("stage2",))
    heads = untrained_heads(Distillation(terms=(paired,)), setting)
    term = build_term(paired, dataclasses.replace(setting, heads=heads))
    assert (term.student_taps, term.source_taps) == (("stage1",), ("stage2",))


def test_the_heads_need_a_teacher_with_these_taps_and_a_task_with_these_views() -> None:
    with pytest.raises(UsageError, match="term hsakd: needs a teacher, which was not given"):
        build_head_objective(HSAKD, dataclasses.replace(SETTING, sources={}))
    with pytest.raises(UsageError, match="reads the tap 'stage9', which the teacher does not have"):
        build_head_objective(HSAKD.model_copy(update={"teacher_taps": ("stage9",)}), SETTING)
    with pytest.raises(UsageError, match="needs the views pretext1, pretext2, pretext3"):
        build_head_objective(HSAKD, dataclasses.replace(SETTING, views=("weak", "strong")))


def test_which_terms_need_a_head() -> None:
    sskd = SSKDTerm(kind="sskd")
    resting = [sskd.model_copy(update=one) for one in ({"weight": 0.0}, {"similarity_weight": 0.0})]
    assert headed_terms(Distillation(terms=(LSSKD, *resting))) == []
    later = sskd.model_copy(update={"start_epoch": 5})
    assert headed_terms(Distillation(terms=(HSAKD, later, sskd))) == [HSAKD, later]


def test_two_terms_of_a_kind_share_one_head() -> None:
    other = HSAKDTerm(kind="hsakd", teacher_taps=("stage1",))
    with pytest.raises(UsageError) as caught:
        headed_terms(Distillation(terms=(HSAKD, other)))
    assert str(caught.value) == (
        "term hsakd: stands twice in the objective, and asks for two different heads on the teacher\n"
        "  try: give both the same head_training and the same taps of the teacher"
    )


def test_the_schedule_of_a_term_is_not_that_of_its_head() -> None:
    section = HSAKD.model_copy(update={"weight": 0.2, "start_epoch": 5, "decay": "linear"})
    objective = build_head_objective(section, SETTING)
    assert isinstance(objective, Objective)
    assert [objective.weights(epoch, 6) for epoch in (1, 6)] == [(1.0,), (1.0,)]
