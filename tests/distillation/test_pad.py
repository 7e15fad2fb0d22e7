"""PAD: what its weights come from, and that they find corrupted targets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from edgekd.distillation.objective import build_term
from edgekd.distillation.pad import (
    PAD,
    discarding_weights,
    pad_rows,
    polynomial_weights,
    softmax_weights,
)
from edgekd.distillation.setting import Role, Setting
from edgekd.distillation.step import Answer, Step
from edgekd.distillation.term import RowTerm, Survey
from edgekd.documents.recipe import Distillation, Recipe
from edgekd.documents.terms import SECTIONS
from edgekd.documents.terms.weighting import PER_EXAMPLE
from edgekd.errors import DocumentError
from tests.distillation.cases import CASES
from tests.distillation.row import build
from tests.distillation.steps import SETTING, leaves, make_step


def make_pad(setting: Setting = SETTING, **keys: Any) -> PAD:
    torch.manual_seed(0)
    (section,) = Distillation.model_validate({"terms": ({"kind": "pad", **keys},)}).terms
    term = build_term(section, setting)
    assert isinstance(term, PAD)
    return term


@pytest.mark.parametrize("distance", [0.01, 1.0, 30.0])
def test_the_best_log_variance_is_the_logarithm_of_the_distance(distance: float) -> None:
    distances_B1 = torch.full((1001, 1), distance, dtype=torch.float64)
    log_variances_B1 = torch.linspace(-6, 6, 1001, dtype=torch.float64).unsqueeze(1)
    rows_B = pad_rows(distances_B1, log_variances_B1)
    best = torch.tensor(distance, dtype=torch.float64).log()
    assert float(log_variances_B1[rows_B.argmin()]) == pytest.approx(float(best), abs=0.006)
    at_best = pad_rows(distances_B1[:1], best.view(1, 1))
    assert float(at_best) == pytest.approx(1 + float(best))
    assert float(rows_B.min()) >= float(at_best)


def test_a_sure_and_right_student_has_a_negative_loss() -> None:
    assert float(pad_rows(torch.full((1, 1), 0.01), torch.full((1, 1), -4.0))) < -3


def test_weights_of_the_baselines_have_mean_one() -> None:
    distances_B = torch.tensor([3.0, 1.0, 4.0, 2.0])
    assert discarding_weights(distances_B, 0.5).tolist() == [0, 2, 0, 2]
    assert discarding_weights(distances_B, 0.74).tolist() == [0, 2, 0, 2]
    assert discarding_weights(distances_B, 0.0).tolist() == [1, 1, 1, 1]
    powers_B = torch.tensor([2.0, 8.0, 1.0, 4.0])
    assert softmax_weights(distances_B * torch.log(torch.tensor(2.0)), 1.0).tolist() == pytest.approx(
        (4 * powers_B / 15).tolist()
    )
    assert polynomial_weights(distances_B, 2.0).tolist() == pytest.approx([4 / 14, 36 / 14, 0, 16 / 14])
    assert polynomial_weights(distances_B, -1.0).tolist() == pytest.approx([1.2, 0.4, 1.6, 0.8])
    assert polynomial_weights(torch.full((4,), 2.0), 2.0).tolist() == [1, 1, 1, 1]


def test_equal_distances_are_discarded_in_their_order() -> None:
    assert discarding_weights(torch.zeros(5), 0.4).tolist() == pytest.approx([5 / 3, 5 / 3, 5 / 3, 0, 0])


def test_in_the_warm_up_the_head_learns_and_does_not_pull_at_the_student() -> None:
    step = make_step(dtype=torch.float32)
    plain, warming = make_step(dtype=torch.float32), make_pad(warmup_epochs=3)
    warming(step).backward()
    loss = (plain.student.feature("pool") - plain.sources["teacher"].feature("pool").detach()).square()
    loss.mean().backward()
    for found, expected in zip(leaves(step.student), leaves(plain.student), strict=True):
        if expected.grad is None:
            assert found.grad is None
        else:
            assert found.grad is not None
            torch.testing.assert_close(found.grad, expected.grad)
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in warming.parameters())


def test_after_the_warm_up_the_uncertainty_pulls_at_the_student_too() -> None:
    step, term = make_step(dtype=torch.float32), make_pad(warmup_epochs=2, of={"kind": "kd"})
    term(step).backward()
    assert step.student.logits_RK.grad is not None
    pulled = step.student.features["pool"].grad
    assert pulled is not None
    assert float(pulled.abs().sum()) > 0


def test_weights_say_how_much_each_example_counts() -> None:
    step = make_step(dtype=torch.float32)
    term = make_pad(of={"kind": "kd"}, warmup_epochs=2)
    rows_B = term.inner.rows(step).detach()
    weights_B = term.weights(step)
    expected_B = rows_B * weights_B - torch.log(weights_B)  # d exp(-v) + v
    torch.testing.assert_close(term.rows(step).detach(), expected_B)
    assert not weights_B.requires_grad
    assert term.weights(dataclasses.replace(step, epoch=2)).tolist() == [1.0] * 6


def test_weights_of_a_baseline() -> None:
    step = make_step(dtype=torch.float32)
    term = make_pad(of={"kind": "kd"}, warmup_epochs=0, weighting="discard", discard_fraction=0.5)
    distances_B = term.inner.rows(step).detach()
    expected = [
        2.0 if one < distances_B.median() or one == distances_B.median() else 0 for one in distances_B
    ]
    assert term.weights(step).tolist() == expected
    torch.testing.assert_close(term.rows(step).detach(), distances_B * torch.tensor(expected))


def test_a_weight_stays_between_its_bounds() -> None:
    term = make_pad(of={"kind": "kd"}, warmup_epochs=0)
    assert term.head is not None
    with torch.no_grad():
        term.head[1].weight.fill_(1000.0)  # type: ignore[operator,union-attr]
    weights_B = term.weights(make_step(dtype=torch.float32))
    limits = torch.exp(torch.tensor([-6.0, 6.0])).tolist()
    assert [float(weights_B.min()), float(weights_B.max())] == pytest.approx(limits)


def test_it_needs_what_the_term_inside_needs() -> None:
    term = make_pad(of={"kind": "kd", "view": "strong"}, warmup_epochs=0)
    assert (term.sources, term.views, term.student_taps, term.source_taps) == (
        ("teacher",),
        ("strong",),
        ("pool",),
        (),
    )
    assert term.smallest_batch == 2
    baseline = make_pad(of={"kind": "kd"}, weighting="softmax", warmup_epochs=0)
    assert (baseline.student_taps, baseline.smallest_batch) == ((), 1)
    assert make_pad(of={"kind": "nkd"}).reads_labels == build_of("nkd").reads_labels


def test_the_term_inside_looks_at_the_training_split() -> None:
    looked: list[Survey] = []

    class Looking(RowTerm):
        sources = ("teacher",)

        def prepare(self, survey: Survey) -> None:
            looked.append(survey)

    term = make_pad(of={"kind": "kd"})
    survey = Survey(torch.zeros(24, dtype=torch.int64), lambda source, tap: torch.zeros(24, 6))
    PAD(term.section, SETTING, of=Looking()).prepare(survey)
    assert looked == [survey]


def build_of(kind: str) -> RowTerm:
    term = build(next(case for case in CASES if case.section["kind"] == kind))
    assert isinstance(term, RowTerm)
    return term


def test_the_terms_that_it_takes_are_those_with_a_distance_for_each_example() -> None:
    rows = {case.section["kind"]: build(case) for case in reversed(CASES)}
    able = {
        kind
        for kind, term in rows.items()
        if isinstance(term, RowTerm) and "teacher" in term.sources and kind not in ("pad", "hsakd")
    }  # the head of hsakd is trained before the student, for terms of the recipe itself
    assert {section.tag for section in PER_EXAMPLE} == able
    assert set(PER_EXAMPLE) < set(SECTIONS)


PAD_LINES = """\
my.toml: 3 problems
  distillation.terms[0].of.kind: found 'rkd'; allowed: {kinds}; did you mean 'kd'?
  distillation.terms[1].of: weight belongs to pad itself, not to the term inside
  distillation.terms[2].of.temperature: found 0.0; more than 0 is expected
  try: edgekd schema recipe prints every key that is allowed"""


def test_what_the_section_inside_may_not_say() -> None:
    terms = [
        {"kind": "pad", "of": {"kind": "rkd"}},
        {"kind": "pad", "of": {"kind": "kd", "weight": 0.5}},
        {"kind": "pad", "of": {"kind": "kd", "temperature": 0.0}},
    ]
    data = {"schema": 1, "name": "x", "distillation": {"terms": terms}}
    with pytest.raises(DocumentError) as caught:
        Recipe.parse(data, where="my.toml")
    *first, last = [f"'{section.tag}'" for section in PER_EXAMPLE]
    kinds = f"{', '.join(first)} or {last}"
    assert str(caught.value) == PAD_LINES.format(kinds=kinds)


class Student(nn.Module):
    """Two hidden layers on the pixels of a digit."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.classifier = nn.Linear(64, 10)

    def forward(self, x_BC: Tensor) -> Answer:
        feature_BC = self.trunk(x_BC)
        return Answer(self.classifier(feature_BC), {"pool": feature_BC})


def corrupted_teacher(labels_N: Tensor, x_NC: Tensor) -> tuple[Answer, Tensor]:
    """Logits and features of a teacher that is right for 80 % of the examples, and where it is not."""
    corrupted_N = torch.rand(len(labels_N)) < 0.2
    wrong_N = (labels_N + torch.randint(1, 10, labels_N.shape)) % 10
    said_N = torch.where(corrupted_N, wrong_N, labels_N)
    logits_NK = 6 * F.one_hot(said_N, 10) + torch.randn(len(labels_N), 10)
    feature_NC = torch.relu(x_NC @ torch.randn(64, 32) / 3)
    others_N = torch.randperm(len(labels_N))
    feature_NC = torch.where(corrupted_N.unsqueeze(1), feature_NC[others_N], feature_NC)
    return Answer(logits_NK, {"pool": feature_NC}), corrupted_N


@pytest.mark.parametrize("keys", [{}, {"of": {"kind": "kd"}}], ids=["features", "kd"])
def test_corrupted_targets_get_less_weight_than_clean_ones(keys: dict[str, Any]) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    x_NC = torch.tensor(digits.data[:1216] / 16, dtype=torch.float32)
    x_NC -= x_NC.mean(dim=0)
    labels_N, epochs = torch.tensor(digits.target[:1216]), 30
    teacher, corrupted_N = corrupted_teacher(labels_N, x_NC)
    roles = [
        Role(name, nn.Identity(), {"pool": (width,), "logits": (10,)})
        for name, width in (("student", 64), ("teacher", 32))
    ]
    setting = Setting(roles[0], {"teacher": roles[1]}, num_classes=10, count=1216, views=("weak",))
    student, pad = Student(), make_pad(setting, warmup_epochs=3, **keys)
    parameters = [*student.parameters(), *pad.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * 19)

    def step_of(numbers_B: Tensor, epoch: int) -> Step:
        said = Answer(teacher.logits_RK[numbers_B], {"pool": teacher.features["pool"][numbers_B]})
        answer = student(x_NC[numbers_B])
        return Step(answer, labels_N[numbers_B], {"teacher": said}, numbers_B, epoch, epochs)

    for epoch in range(1, epochs + 1):
        for numbers_B in torch.randperm(1216).split(64):
            step = step_of(numbers_B, epoch)
            loss = pad(step) + 0.1 * F.cross_entropy(step.student.logits(), step.labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    student.eval(), pad.eval()
    weights_N = pad.weights(step_of(torch.arange(1216), epochs))
    corrupted, clean = weights_N[corrupted_N], weights_N[~corrupted_N]
    ordered = float((corrupted.unsqueeze(1) < clean).double().mean())
    print(f"mean weight {corrupted.mean():.3f} corrupted, {clean.mean():.3f} clean; {ordered:.1%} in order")
    assert float(corrupted.mean()) < 0.8 * float(clean.mean())
    assert ordered > 0.7
