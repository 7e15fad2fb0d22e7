"""ND: the class directions, what norms cost, and when there is a projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distillation.nd import ND, class_directions, nd_rows
from edgekd.documents.terms.classes import NDTerm
from tests.distillation.steps import LABELS_N, SETTING, make_survey

SECTION = NDTerm(kind="nd")


def test_directions_are_those_of_the_class_means_over_all_examples() -> None:
    generator = torch.Generator().manual_seed(0)
    features_NC = torch.rand(9_000, 3, generator=generator)  # more than are summed at once
    labels_N = torch.randint(0, 2, (9_000,), generator=generator)
    features_NC[:5_000] += 10 * torch.eye(3)[labels_N[:5_000]]
    directions_KC = class_directions(features_NC, labels_N, 2)
    for label in range(2):
        mean = features_NC.double().numpy()[labels_N.numpy() == label].mean(axis=0)
        assert directions_KC[label].tolist() == pytest.approx((mean / np.sqrt(mean @ mean)).tolist())


def test_a_class_without_examples_has_no_direction() -> None:
    directions_KC = class_directions(torch.ones(3, 4), torch.tensor([0, 2, 2]), 3)
    assert directions_KC.tolist() == [[0.5] * 4, [0.0] * 4, [0.5] * 4]


@pytest.mark.parametrize(("scale", "loss"), [(0.25, 0.85), (0.5, 0.7), (1.0, 0.4), (2.0, 0.4), (8.0, 0.4)])
def test_a_norm_below_the_teachers_costs_and_one_above_is_free(scale: float, loss: float) -> None:
    student_BC, teacher_BC = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    rows_B = nd_rows(scale * student_BC, teacher_BC, torch.tensor([[1.0, 0.0]]))
    assert rows_B.tolist() == pytest.approx([loss])


def test_the_class_mean_at_the_teachers_norm_is_the_minimum() -> None:
    student_BC = torch.tensor([[0.0, 3.0]], requires_grad=True)
    rows_B = nd_rows(student_BC, torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]]))
    rows_B.sum().backward()
    assert rows_B.tolist() == [0.0]
    assert student_BC.grad.tolist() == [[0.0, 0.0]]


def test_two_features_of_zero_get_a_gradient_of_ordinary_size() -> None:
    student_BC = torch.zeros(1, 2, requires_grad=True)
    nd_rows(student_BC, torch.zeros(1, 2), torch.tensor([[0.6, 0.8]])).sum().backward()
    assert student_BC.grad[0].tolist() == pytest.approx([-0.6, -0.8])


def test_projects_only_where_the_widths_differ() -> None:
    same, other = ND(SECTION, SETTING), ND(NDTerm(kind="nd", teacher_tap="stage1"), SETTING)
    assert (same.head, same.smallest_batch) == (None, 1)
    assert other.head is not None
    assert [type(layer) for layer in other.head] == [nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert (other.head[1].p, other.smallest_batch) == (0.5, 2)


def test_says_that_it_reads_labels_which_an_unlabeled_example_lacks() -> None:
    assert ND.reads_labels


def test_directions_travel_with_a_checkpoint() -> None:
    prepared, resumed = ND(SECTION, SETTING), ND(SECTION, SETTING)
    prepared.prepare(make_survey())
    resumed.load_state_dict(prepared.state_dict())
    expected_KC = class_directions(make_survey().features("teacher", "pool"), LABELS_N, 5)
    assert torch.equal(resumed.directions_KC, expected_KC)
