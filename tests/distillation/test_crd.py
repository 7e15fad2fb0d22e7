"""CRD: whom it contrasts with, what it remembers, and how it says that a memory does not fit."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distillation.crd import CRD, crd_rows, similarities
from edgekd.distillation.negatives import OtherClasses
from edgekd.distillation.term import Survey
from edgekd.documents.terms import CRDTerm
from edgekd.errors import UsageError
from tests.distillation.contrastive_cases import embedded
from tests.distillation.steps import LABELS_N, SETTING, N, NumpyStep, make_step, make_survey, parameters_of

UNEVEN_N = torch.tensor([2, 0, 1, 0, 2, 2, 0, 2, 2, 1])
"""Three of class 0, two of class 1, five of class 2; none of class 3."""


def make_crd(**keys: object) -> CRD:
    torch.manual_seed(0)
    term = CRD(CRDTerm.model_validate({"kind": "crd", "dimension": 16, **keys}), SETTING)
    term.prepare(make_survey())
    return term.double()


def drawn(labels_N: Tensor, asked: int, labels_B: list[int]) -> list[list[int]]:
    numbers_BK, counts_BK = OtherClasses.among(labels_N, 4, asked=asked).draw(torch.tensor(labels_B))
    return [row[kept].tolist() for row, kept in zip(numbers_BK, counts_BK, strict=True)]


def test_all_examples_of_other_classes_are_used_where_no_more_are_asked_for() -> None:
    for asked in (8, 100):
        rows = drawn(UNEVEN_N, asked, [0, 1, 2])
        assert [sorted(row) for row in rows] == [
            [0, 2, 4, 5, 7, 8, 9],
            [0, 1, 3, 4, 5, 6, 7, 8],
            [1, 2, 3, 6, 9],
        ]


def test_a_class_with_few_others_gets_each_of_them_and_the_rest_get_as_many_as_asked_for() -> None:
    torch.manual_seed(0)
    one_of_two, one_of_one, one_of_zero = drawn(UNEVEN_N, 6, [2, 1, 0])
    assert sorted(one_of_two) == [1, 2, 3, 6, 9]
    assert len(one_of_one) == len(one_of_zero) == 6
    assert {int(UNEVEN_N[number]) for number in one_of_one} <= {0, 2}
    assert {int(UNEVEN_N[number]) for number in one_of_zero} <= {1, 2}
    counts = OtherClasses.among(UNEVEN_N, 4, asked=6).count(torch.tensor([2, 1, 0]))
    assert counts.tolist() == [5, 6, 6]


@pytest.mark.parametrize("label", [0, 1, 2])
def test_draws_every_example_of_other_classes_equally_often(label: int) -> None:
    torch.manual_seed(label)
    draws = 4 * 4000
    rows = drawn(UNEVEN_N, 4, [label] * 4000)
    found = Counter(number for row in rows for number in row)
    others = [number for number in range(10) if UNEVEN_N[number] != label]
    assert sorted(found) == others
    expected = draws / len(others)
    chi_square = sum((found[number] - expected) ** 2 / expected for number in others)
    assert chi_square < 26.1  # 0.999 quantile for 8 - 1 degrees of freedom is 24.3, for 7 and 5 less


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    def draw(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return drawn(UNEVEN_N, 4, [0, 1, 2, 2])

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("count", [7, 300], ids=["all products", "rows"])
def test_both_ways_to_the_similarities_agree(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    bank_ND = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    anchors_BD = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    numbers_BK = torch.randint(count, (3, 5), generator=generator)
    found_BK = similarities(anchors_BD, bank_ND, numbers_BK)
    kept_ND = bank_ND.clone()
    bank_ND.zero_()  # the memory moves on before the gradient is asked for
    slopes_BK = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    (found_BK * slopes_BK).sum().backward()
    for b in range(3):
        rows = [kept_ND[number] for number in numbers_BK[b].tolist()]
        products = [float(row @ anchors_BD[b].detach()) for row in rows]
        gradient = sum(slope * row for slope, row in zip(slopes_BK[b], rows, strict=True))
        assert found_BK[b].tolist() == pytest.approx(products)
        assert anchors_BD.grad is not None
        assert anchors_BD.grad[b].tolist() == pytest.approx(gradient.tolist())  # type: ignore[union-attr]


def test_takes_the_way_of_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *pair: taken.append("rows") or bmm(*pair))
    numbers_BK = torch.zeros(2, 10, dtype=torch.int64)
    anchors_BD = torch.ones(2, 8)
    similarities(anchors_BD, torch.ones(16, 8), numbers_BK)  # 16 x (2 + 8) numbers against 2 x 10 x 8
    assert taken == []
    similarities(anchors_BD, torch.ones(17, 8), numbers_BK)
    assert taken == ["rows"]


def test_drawn_negatives_enter_the_formula() -> None:
    term, step = make_crd(negatives=7, temperature=0.3), make_step()
    state, seen = parameters_of(term), NumpyStep(step)
    torch.manual_seed(5)
    value = term(step).item()
    torch.manual_seed(5)
    numbers_BK, counts_BK = OtherClasses.among(LABELS_N, 5, asked=7).draw(step.labels_B)
    assert counts_BK.all()
    total = 0.0
    for side, other, feature_BC in (
        ("student", "teacher", seen.student.feature("pool")),
        ("teacher", "student", seen.teacher.feature("pool")),
    ):
        anchors_BD, bank_ND = embedded(feature_BC, state, side), state[f"{other}.bank_ND"]
        own_B = [np.exp(a @ bank_ND[i] / 0.3) for a, i in zip(anchors_BD, seen.indices, strict=True)]
        others_BK = np.exp(np.einsum("bd,bkd->bk", anchors_BD, bank_ND[numbers_BK.numpy()]) / 0.3)
        constant = N * np.concatenate([np.array(own_B)[:, None], others_BK], axis=1).mean()
        share = 7 / N
        total -= np.mean([np.log(p / constant / (p / constant + share + 1e-7)) for p in own_B])
        total -= np.mean(np.log(share / (others_BK / constant + share + 1e-7)).sum(axis=1))
    assert value == pytest.approx(total)


def test_draws_anew_in_each_step() -> None:
    term, step = make_crd(negatives=7).eval(), make_step()
    torch.manual_seed(0)
    assert term(step).item() != term(step).item()


def test_remembers_the_batch_after_the_step() -> None:
    term, step = make_crd(momentum=0.25), make_step()
    before, seen = parameters_of(term), NumpyStep(step)
    term(step)
    after = parameters_of(term)
    for side, feature_BC in (
        ("student", seen.student.feature("pool")),
        ("teacher", seen.teacher.feature("pool")),
    ):
        bank, fresh_BD = before[f"{side}.bank_ND"].copy(), embedded(feature_BC, before, side)
        for number, fresh_D in zip(seen.indices, fresh_BD, strict=True):
            mixed_D = 0.25 * bank[number] + 0.75 * fresh_D
            bank[number] = mixed_D / np.sqrt((mixed_D**2).sum())
        np.testing.assert_allclose(after[f"{side}.bank_ND"], bank, rtol=1e-12)


def test_the_first_batch_fixes_the_constants() -> None:
    term = make_crd()
    assert float(term.student.constant) == 0
    term(make_step())
    first = float(term.student.constant), float(term.teacher.constant)
    assert min(first) > 0
    term(make_step(seed=1))
    assert (float(term.student.constant), float(term.teacher.constant)) == first


def test_outside_of_training_nothing_is_remembered() -> None:
    term = make_crd().eval()
    before = parameters_of(term)
    term(make_step())
    after = parameters_of(term)
    assert all((before[name] == after[name]).all() for name in before)


def test_the_memory_is_float32_under_bf16() -> None:
    term = make_crd().float()
    term(make_step(dtype=torch.bfloat16))
    lengths_N = term.student.bank_ND[make_step().indices_B].norm(dim=1)
    assert term.student.bank_ND.dtype == torch.float32
    torch.testing.assert_close(lengths_N, torch.ones_like(lengths_N), rtol=1e-6, atol=0)


def test_starts_from_rows_of_length_one_on_average() -> None:
    bank_ND = make_crd(dimension=128).student.bank_ND
    assert float(bank_ND.abs().max()) <= 1 / np.sqrt(128 / 3)
    assert float(bank_ND.square().sum(dim=1).mean()) == pytest.approx(1, abs=0.05)


def test_many_small_scores_keep_their_sum_in_float32() -> None:
    scores_BK = torch.full((1, 16385), 1 / 50_000)
    counts_BK = torch.ones_like(scores_BK, dtype=torch.bool)
    share = 16384 / 50_000
    found = crd_rows(scores_BK, counts_BK, torch.tensor([share]))
    positive = np.log((2e-5 + share + 1e-7) / 2e-5)
    assert float(found) == pytest.approx(positive + 16384 * np.log1p((2e-5 + 1e-7) / share), rel=1e-6)


def test_a_memory_of_another_data_set() -> None:
    other = dataclasses.replace(make_survey(), labels_N=torch.arange(30) % 5)
    with pytest.raises(UsageError) as caught:
        make_crd().prepare(other)
    assert str(caught.value) == (
        "term crd: remembers 24 examples, and the training split has 30\n"
        "  try: build the objective for this task"
    )


def test_examples_of_a_single_class() -> None:
    survey = Survey(torch.full((N,), 3), make_survey().features)
    with pytest.raises(UsageError) as caught:
        make_crd().prepare(survey)
    assert str(caught.value) == (
        "term crd: contrasts an example with those of other classes, and all are of one\n"
        "  try: leave the term out, or check the labels"
    )
