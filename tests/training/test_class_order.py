"""The order of a teacher's classes: what is refused, what is told, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import NetworkError
from edgekd.training.class_order import check_agreement, near_chance

TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def answers(right: float, *, classes: int = 10, count: int = 1000, seed: int = 0):
    """Labels, and answers that are right in a part of the cases and else any class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return labels, np.where(rng.random(count) < right, labels, rng.integers(0, classes, count))


def check(said, labels, classes=TEN):
    return check_agreement(said, labels, classes, where="w.pt")


def test_a_good_teacher_passes():
    labels, said = answers(0.9)
    agreement = check(said, labels)
    assert agreement.top1 == (said == labels).mean()
    assert agreement.reordered_top1 == pytest.approx(0.91, abs=0.03)
    assert agreement.warnings == ()


def test_a_teacher_in_another_order_is_refused():
    labels, said = answers(1.0)
    its_class = np.array([0, 1, 2, 7, 8, 9, 3, 4, 5, 6])  # the task's class 3 is its class 7, and so on
    with pytest.raises(NetworkError) as caught:
        check(its_class[said], labels)
    as_is = 100 * (labels[1::2] < 3).mean()
    assert str(caught.value) == (
        f"w.pt: its classes seem to be in another order: top-1 {as_is:.1f} % as they stand, 100.0 % after "
        "reordering; class 3 of the task (three) looks like its class 7, class 4 of the task (four) looks "
        "like its class 8, class 5 of the task (five) looks like its class 9 and 4 more\n"
        "  try: bring its outputs into the task's order: zero, one, two, three, four, five, six, seven, ..."
    )


@pytest.mark.parametrize(("classes", "right"), [(10, 0.6), (100, 0.5), (2, 0.9), (3, 0.8)])
def test_a_middling_teacher_in_another_order_is_refused_too(classes, right):
    labels, said = answers(right, classes=classes, count=2000)
    names = tuple(str(label) for label in range(classes))
    assert check(said, labels, names).warnings == ()
    with pytest.raises(NetworkError, match="seem to be in another order"):
        check((said + 1) % classes, labels, names)


def test_two_exchanged_classes_are_told():
    labels, said = answers(1.0)
    said = np.where(said == 3, 7, np.where(said == 7, 3, said))
    agreement = check(said, labels)
    (warning,) = agreement.warnings
    assert warning.startswith("some classes of the teacher may be exchanged: top-1 ")
    assert warning.endswith(
        " after reordering; class 3 of the task (three) looks like its class 7, "
        "class 7 of the task (seven) looks like its class 3"
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("classes", "count"), [(10, 60), (10, 2000), (100, 300), (2, 40)])
def test_a_teacher_that_knows_nothing_is_told_and_not_taken_for_another_order(classes, count, seed):
    labels, said = answers(0.0, classes=classes, count=count, seed=seed)
    agreement = check(said, labels, tuple(str(label) for label in range(classes)))
    assert any("naming the commonest class" in line for line in agreement.warnings)


def test_a_teacher_that_names_one_class_is_told():
    labels, _ = answers(1.0)
    (warning,) = check(np.full_like(labels, 4), labels).warnings
    share, most = (labels == 4).mean(), np.bincount(labels).max() / 1000
    assert warning == (
        f"the teacher is right on {100 * share:.1f} % of 1000 examples; "
        f"naming the commonest class every time gives {100 * most:.1f} %"
    )


@pytest.mark.parametrize(
    ("top1", "told"), [(0.09, True), (0.1, True), (0.12, True), (0.13, False), (0.9, False)]
)
def test_chance_has_a_width(top1, told):
    assert bool(near_chance(top1, 1000, 0.1)) is told  # 3 standard errors are 2.8 points


def test_a_class_that_is_not_among_the_examples_does_not_matter():
    labels, said = answers(0.9, classes=5)
    assert check(said, labels).warnings == ()


def test_a_weak_teacher_is_not_taken_for_one_in_another_order():
    """What it says has a relation to the labels, as an untrained network's has, and no knowledge of them."""
    labels, said = answers(0.0, count=2000)
    related = np.where(np.random.default_rng(1).random(2000) < 0.15, (labels + 1) % 10, said)
    warnings = check(related, labels).warnings
    assert warnings[0].startswith("some classes of the teacher may be exchanged: top-1 ")
    assert "naming the commonest class" in warnings[1]
