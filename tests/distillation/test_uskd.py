"""USKD: the labels it makes, where its gradient stops, and on which feature its weak head sits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distillation.setting import Role
from edgekd.distillation.uskd import USKD, uskd_loss
from edgekd.documents.terms.classes import USKDTerm
from edgekd.errors import UsageError
from tests.distillation.steps import SETTING

SECTION = USKDTerm(kind="uskd")


def others_alone(logits: list[float], weak_logits: list[float], label: int) -> float:
    rows = (torch.tensor([one], dtype=torch.float64) for one in (logits, weak_logits))
    return uskd_loss(*rows, torch.tensor([label]), alpha=0.0, beta=1.0, mu=0.0).item()


def test_shares_of_the_other_classes_go_by_their_rank() -> None:
    logits = [9.0, 1.0, 3.0, 2.0]
    log_others = np.log(np.exp(logits[1:]) / np.exp(logits[1:]).sum())
    shares = np.array([1 / 3, 1.0, 1 / 2]) / (1 + 1 / 2 + 1 / 3)
    assert others_alone(logits, [0.0] * 4, label=0) == pytest.approx(-(shares * log_others).sum())


def test_a_weak_head_that_is_surer_turns_the_ranking() -> None:
    logits, weak = [9.0, 1.0, 1.2, 1.1], [-9.0, 0.0, 2.0, 8.0]
    log_others = np.log(np.exp(logits[1:]) / np.exp(logits[1:]).sum())
    shares = np.array([1 / 3, 1 / 2, 1.0]) / (1 + 1 / 2 + 1 / 3)
    assert others_alone(logits, weak, label=0) == pytest.approx(-(shares * log_others).sum())


def test_equal_scores_are_ranked_in_the_order_of_the_classes() -> None:
    """They are equal, so that any ranking gives ln 3; the gradient shows which was taken."""
    logits_BK = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    labels_B = torch.tensor([1])
    uskd_loss(logits_BK, torch.zeros(1, 4), labels_B, alpha=0.0, beta=1.0, mu=0.0).backward()
    shares = np.array([1.0, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3)
    expected = [1 / 3 - shares[0], 0.0, 1 / 3 - shares[1], 1 / 3 - shares[2]]
    assert logits_BK.grad[0].tolist() == pytest.approx(expected)


def test_gradient_takes_the_soft_labels_as_given() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_BK = torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    weak_BK = torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    labels_B = torch.tensor([3, 0, 4, 1])
    uskd_loss(logits_BK, weak_BK, labels_B, alpha=0.7, beta=0.0, mu=0.3).backward()
    p_BK, v_BK = (one.detach().softmax(dim=1).numpy() for one in (logits_BK, weak_BK))
    sure_B = p_BK[range(4), labels_B] ** 2
    for i, label in enumerate(labels_B.tolist()):
        is_label = np.arange(5) == label
        own = 0.7 * (sure_B[i] + 1 - sure_B.mean()) * (p_BK[i] - is_label) / 4
        weak = 0.3 * (v_BK[i] - 0.9 * is_label - 0.1 / 5) / 4
        assert logits_BK.grad[i].tolist() == pytest.approx(own.tolist(), abs=1e-12)
        assert weak_BK.grad[i].tolist() == pytest.approx(weak.tolist(), abs=1e-12)


def test_weak_head_sits_on_the_last_stage_but_one() -> None:
    term = USKD(SECTION, SETTING)
    assert term.student_taps == ("stage1",)
    assert term.sources == ()
    assert [tuple(one.shape) for one in term.parameters()] == [(5, 4), (5,)]


def test_a_student_without_stages_must_name_the_feature() -> None:
    role = Role("student", nn.Identity(), {"stem": (3, 8, 8), "stage1": (4, 8, 8), "pool": (4,)})
    with pytest.raises(UsageError) as caught:
        USKD(SECTION, dataclasses.replace(SETTING, student=role))
    assert str(caught.value) == (
        "term uskd: needs a middle feature, and the student has no two taps called stage1, stage2, ...\n"
        "  try: name a student_tap; taps of the student: stem, stage1, pool"
    )
