"""PS-KD: what it remembers from epoch to epoch, and how much that counts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from edgekd.distillation.pskd import PSKD
from edgekd.documents.terms import PSKDTerm
from edgekd.errors import UsageError
from tests.distillation.steps import SETTING, make_step, make_survey


def make_pskd(alpha: float = 0.8) -> PSKD:
    term = PSKD(PSKDTerm(kind="pskd", alpha=alpha), SETTING)
    term.prepare(make_survey())
    return term


def test_the_first_epoch_is_cross_entropy() -> None:
    term, step = make_pskd(), make_step(dtype=torch.float32)
    expected = F.cross_entropy(step.student.logits(), step.labels_B)
    found = term(dataclasses.replace(step, epoch=1))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_next_epoch_learns_from_what_it_said_in_the_last() -> None:
    term, first = make_pskd(), make_step(dtype=torch.float32, seed=1)
    term(dataclasses.replace(first, epoch=1, epochs=4))
    second = make_step(dtype=torch.float32, seed=2)
    second = dataclasses.replace(second, labels_B=first.labels_B, indices_B=first.indices_B)
    found = term(dataclasses.replace(second, epoch=2, epochs=4))
    onehot_BK = F.one_hot(first.labels_B, 5)
    target_BK = 0.6 * onehot_BK + 0.4 * first.student.logits().softmax(1)  # alpha 0.8 after half the epochs
    expected = -(target_BK * second.student.logits().log_softmax(1)).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)  # the memory is fp16
    kept_BK = term.before_NK[first.indices_B].float()
    torch.testing.assert_close(kept_BK, second.student.logits().softmax(1), rtol=1e-3, atol=1e-4)


def test_an_example_that_an_epoch_left_out_keeps_its_label() -> None:
    term = make_pskd()
    seen, unseen = make_step(dtype=torch.float32, batch=24).indices_B.split([23, 1])
    whole = make_step(dtype=torch.float32, batch=24)
    term.before_NK[seen] = 0.2
    rows_B = term.rows(dataclasses.replace(whole, epoch=8))
    expected = F.cross_entropy(whole.student.logits(), whole.labels_B, reduction="none")
    assert unseen.tolist() == whole.indices_B[23:].tolist()
    assert rows_B[23].item() == pytest.approx(expected[23].item(), rel=1e-6)
    assert rows_B[:23].tolist() != pytest.approx(expected[:23].tolist(), rel=1e-2)


def test_outside_of_training_nothing_is_remembered() -> None:
    term = make_pskd().eval()
    term(make_step(dtype=torch.float32))
    assert not term.before_NK.any()


def test_the_memory_is_half_as_large_as_float32() -> None:
    term = make_pskd()
    term(make_step(dtype=torch.bfloat16))
    assert (term.before_NK.dtype, tuple(term.before_NK.shape)) == (torch.float16, (24, 5))


def test_a_memory_of_another_data_set() -> None:
    other = dataclasses.replace(make_survey(), labels_N=torch.arange(30) % 5)
    with pytest.raises(UsageError) as caught:
        make_pskd().prepare(other)
    assert str(caught.value) == (
        "term pskd: remembers 24 examples, and the training split has 30\n"
        "  try: build the objective for this task"
    )
