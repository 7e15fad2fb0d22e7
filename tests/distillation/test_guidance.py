"""The closed-form weight: against a search, a least-squares fit, and its limits."""

import numpy as np
import pytest

from edgekd.distillation.guidance import closed_form_weight


def answers(rng, labels_N, sharpness):
    logits_NK = rng.normal(size=(len(labels_N), 4))
    logits_NK[np.arange(len(labels_N)), labels_N] += sharpness
    odds_NK = np.exp(logits_NK)
    return odds_NK / odds_NK.sum(axis=1, keepdims=True)


def squared_error(weight, f_label_NK, f_kd_NK, onehot_NK):
    total = 0.0
    for label_K, kd_K, y_K in zip(f_label_NK, f_kd_NK, onehot_NK, strict=True):
        for label, kd, y in zip(label_K, kd_K, y_K, strict=True):
            total += (weight * label + (1 - weight) * kd - y) ** 2
    return total


@pytest.mark.parametrize("seed", range(5))
def test_no_other_weight_fits_better(seed):
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, 60)
    onehot_NK = np.eye(4)[labels_N]
    students = answers(rng, labels_N, 2.0), answers(rng, labels_N, 2.5)
    found = closed_form_weight(*students, onehot_NK)
    assert 0 < found < 1
    least = squared_error(found, *students, onehot_NK)
    for weight in np.linspace(0, 1, 101):
        assert least <= squared_error(weight, *students, onehot_NK) + 1e-12


def test_it_is_the_slope_of_a_least_squares_fit():
    rng = np.random.default_rng(7)
    labels_N = rng.integers(0, 4, 80)
    onehot_NK = np.eye(4)[labels_N]
    f_label_NK, f_kd_NK = answers(rng, labels_N, 1.5), answers(rng, labels_N, 1.5)
    column = (f_label_NK - f_kd_NK).reshape(-1, 1)
    slope, *_ = np.linalg.lstsq(column, (onehot_NK - f_kd_NK).ravel(), rcond=None)
    assert closed_form_weight(f_label_NK, f_kd_NK, onehot_NK) == pytest.approx(slope[0])


def test_a_student_that_is_right_gets_all_the_weight():
    onehot_NK = np.eye(3)[[0, 1, 2, 0]]
    wrong_NK = np.roll(onehot_NK, 1, axis=1)
    assert closed_form_weight(onehot_NK, wrong_NK, onehot_NK) == 1.0
    assert closed_form_weight(wrong_NK, onehot_NK, onehot_NK) == 0.0


@pytest.mark.parametrize(("of_labels", "of_teacher", "weight"), [(0.6, 0.4, 1.0), (0.4, 0.6, 0.0)])
def test_a_weight_outside_of_0_and_1_is_cut_off(of_labels, of_teacher, weight):
    """Both are too unsure: the best mixture would go beyond the surer one."""
    onehot_NK = np.array([[1.0, 0.0]])
    students = (np.array([[sure, 1 - sure]]) for sure in (of_labels, of_teacher))
    assert closed_form_weight(*students, onehot_NK) == weight


def test_students_that_answer_alike_leave_the_labels_alone():
    same_NK = np.full((5, 2), 0.5, dtype=np.float16)
    assert closed_form_weight(same_NK, same_NK, np.eye(2)[[0, 1, 0, 1, 0]]) == 1.0


def test_half_precision_answers_are_widened_first():
    rng = np.random.default_rng(3)
    labels_N = rng.integers(0, 4, 5000)
    onehot_NK = np.eye(4)[labels_N]
    f_label_NK, f_kd_NK = answers(rng, labels_N, 2.0), answers(rng, labels_N, 2.5)
    exact = closed_form_weight(f_label_NK, f_kd_NK, onehot_NK)
    halved = closed_form_weight(f_label_NK.astype(np.float16), f_kd_NK.astype(np.float16), onehot_NK)
    assert halved == pytest.approx(exact, abs=1e-3)
