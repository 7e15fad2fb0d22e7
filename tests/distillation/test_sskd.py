"""SSKD: which rows are kept, which source a row has, and where nothing may flow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekd.distillation.frozen import Frozen
from edgekd.distillation.frozen_heads import build_head_objective
from edgekd.distillation.objective import build_objective, build_term
from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.sskd import SSKD, kept_rows, own_source, selective_kl, similarities
from edgekd.distillation.step import Answer
from edgekd.documents.recipe import Distillation, KDTerm
from edgekd.documents.terms.pretext import SSKDTerm
from edgekd.errors import UsageError
from tests.distillation.pretext_cases import kept, ranked
from tests.distillation.steps import SETTING, K, make_step

SECTION = SSKDTerm(kind="sskd")
POOL = vector_at(SETTING.student, "pool", wanted_by="sskd")


def build(section: SSKDTerm = SECTION, setting: Setting = SETTING) -> SSKD:
    term = build_term(section, setting)
    assert isinstance(term, SSKD)
    return term.double()


scores = st.integers(1, 12).flatmap(
    lambda rows: st.integers(1, 5).flatmap(
        lambda columns: st.tuples(
            st.lists(
                st.lists(st.integers(0, 3), min_size=columns, max_size=columns), min_size=rows, max_size=rows
            ),
            st.lists(st.integers(0, columns - 1), min_size=rows, max_size=rows),
        )
    )
)


@given(scores, st.floats(0, 1))
def test_kept_are_the_right_rows_and_a_part_of_the_wrong_ones(
    drawn: tuple[list[list[int]], list[int]], ratio: float
) -> None:
    rows, true = drawn
    mask = kept_rows(torch.tensor(rows, dtype=torch.float32), torch.tensor(true), ratio=ratio)
    ranks = ranked(np.array(rows, dtype=float), true)
    wrong = sum(rank > 0 for rank in ranks)
    assert int(mask.sum()) == len(rows) - wrong + int(ratio * wrong)
    assert all(mask[row] for row, rank in enumerate(ranks) if rank == 0)
    assert sorted(kept(ranks, ratio)) == mask.nonzero().flatten().tolist()


def test_of_rows_as_wrong_the_first_are_kept() -> None:
    scores_RC = torch.tensor([[3.0, 2, 1], [1.0, 2, 3], [1.0, 3, 2], [1.0, 3, 2], [2.0, 2, 1]])
    true_R = torch.tensor([0, 0, 2, 2, 1])  # ranks 0, 2, 1, 1, 0: two equal scores are no mistake
    assert kept_rows(scores_RC, true_R, ratio=0.0).tolist() == [True, False, False, False, True]
    assert kept_rows(scores_RC, true_R, ratio=0.5).tolist() == [True, False, True, False, True]
    assert kept_rows(scores_RC, true_R, ratio=0.7).tolist() == [True, False, True, True, True]
    assert kept_rows(scores_RC, true_R, ratio=1.0).all()


def test_a_perfect_teacher_loses_no_row_at_ratio_zero() -> None:
    assert kept_rows(torch.eye(4), torch.arange(4), ratio=0.0).all()


def test_without_a_kept_row_the_loss_is_zero_and_so_is_its_gradient() -> None:
    student_RC = torch.randn(3, 2, requires_grad=True)
    teacher_RC = torch.tensor([[0.0, 1.0]] * 3)
    loss = selective_kl(student_RC, teacher_RC, torch.zeros(3, dtype=torch.int64), temperature=1.0, ratio=0.0)
    loss.backward()
    assert loss.item() == 0
    assert student_RC.grad is not None
    assert student_RC.grad.abs().max() == 0


def test_a_transformed_row_belongs_to_the_example_at_its_place_in_the_view() -> None:
    """Each view of an example has the example's own feature: the row is most similar to that example."""
    feature_BD = torch.eye(5)
    answer = Answer(torch.zeros(20, K), {"pool": feature_BD.repeat(4, 1)}, ("weak", *PRETEXTS))
    scores_RB = similarities(torch.nn.Identity(), answer, POOL)
    assert scores_RB.shape == (15, 5)
    assert scores_RB.argmax(1).tolist() == [row % 5 for row in range(15)]
    assert own_source(scores_RB).tolist() == [row % 5 for row in range(15)]


PRETEXTS = ("pretext1", "pretext2", "pretext3")


def test_the_similarities_of_views_in_another_order_are_the_same() -> None:
    step, term = make_step(), build()
    stacked = step.student.of(*PRETEXTS, "strong", "weak")
    expected = similarities(term.student_head, step.student, POOL)
    torch.testing.assert_close(similarities(term.student_head, stacked, POOL), expected)


def test_the_teachers_head_does_not_learn_and_stays_in_evaluation_mode() -> None:
    term, step = build(), make_step()
    term.train()
    term(step).backward()
    assert isinstance(term.teacher_head, Frozen)
    assert not any(module.training for module in term.teacher_head.modules())
    assert [one.grad for one in term.teacher_head.parameters()] == [None] * 4
    assert not any(one.requires_grad for one in term.teacher_head.parameters())
    assert not term.teacher_head(step.sources["teacher"].feature("pool")).requires_grad


def test_with_the_labels_alone_it_is_the_cross_entropy_of_the_weak_views() -> None:
    step = make_step()
    logits_BK, labels_B = step.student.logits("weak"), step.labels_B
    expected = torch.nn.functional.cross_entropy(logits_BK, labels_B).item()
    without = Distillation(
        label_weight=1.0, terms=(KDTerm(weight=0.0), SECTION.model_copy(update={"weight": 0.0}))
    )
    objective = build_objective(without, SETTING)
    assert objective.views == ("weak",)
    assert objective(step)[0].item() == pytest.approx(expected, rel=1e-12)
    later = SECTION.model_copy(update={"start_epoch": 4})
    objective = build_objective(Distillation(label_weight=1.0, terms=(later,)), SETTING)
    assert objective.views == ("weak", *PRETEXTS)
    assert objective(step)[0].item() == pytest.approx(expected, rel=1e-12)  # this is epoch 3


def test_without_similarities_there_is_no_head() -> None:
    section = SSKDTerm(kind="sskd", similarity_weight=0.0)
    term = build(section, dataclasses.replace(SETTING, heads={}))
    assert not list(term.parameters())
    assert (term.student_taps, term.source_taps) == ((), ())


def test_without_its_head_it_says_what_to_do() -> None:
    with pytest.raises(UsageError) as caught:
        build(setting=dataclasses.replace(SETTING, heads={}))
    assert str(caught.value) == (
        "term sskd: needs a head that was trained on the frozen teacher, and there is none\n"
        "  try: edgekd distill trains it; in Python: edgekd.training.heads.train_heads"
    )


def test_a_head_of_another_teacher_is_refused() -> None:
    state = {name: value[:3] for name, value in SETTING.heads["sskd"].items()}
    with pytest.raises(UsageError) as caught:
        build(setting=dataclasses.replace(SETTING, heads={"sskd": state}))
    assert str(caught.value) == (
        "term sskd: the head on the teacher was trained for other taps, another teacher or other classes\n"
        "  try: train it again with this section, this teacher and this task"
    )


def test_the_head_learns_to_find_the_source_of_a_transformed_example() -> None:
    torch.manual_seed(0)
    objective = build_head_objective(SECTION, SETTING).double()
    step = make_step()
    (term,) = objective.terms.values()
    weights = {name: value.numpy() for name, value in term.head.state_dict().items()}

    def embedded(view: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        feature = step.student.feature("pool", view).detach().numpy()
        hidden = np.maximum(feature @ weights["0.weight"].T + weights["0.bias"], 0)
        rows = hidden @ weights["2.weight"].T + weights["2.bias"]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    plain, losses = embedded("weak"), []
    for view in PRETEXTS:
        for example, row in enumerate(embedded(view)):
            cosines = plain @ row
            losses.append(np.log(np.exp(cosines).sum()) - cosines[example])
    total, _ = objective(dataclasses.replace(step, sources={}))
    assert total.item() == pytest.approx(np.mean(losses), rel=1e-10)
    total.backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in term.head.parameters())


def test_equal_heads_and_features_give_zero() -> None:
    term, step = build(), make_step()
    term.student_head.load_state_dict(term.teacher_head.head.state_dict())
    same = dataclasses.replace(step, student=step.sources["teacher"])
    assert term(same).item() == pytest.approx(0, abs=1e-12)
    assert term(step).item() > 0.01


def test_no_value_is_read_back_by_the_host() -> None:
    """On the meta device there are no values: whatever asks for one fails."""
    true_R = torch.zeros(6, dtype=torch.int64, device="meta")
    rows: list[Tensor] = [torch.zeros(6, 4, device="meta") for _ in range(2)]
    assert selective_kl(rows[0], rows[1], true_R, temperature=1.0, ratio=0.5).device.type == "meta"
