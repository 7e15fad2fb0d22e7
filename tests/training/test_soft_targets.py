"""Logits of the teachers: cached where the view is fixed, online where it is not, the same in value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.documents.recipe import Augmentation
from edgekd.training.data import Resident
from edgekd.training.evaluate import predict_logits
from edgekd.training.precision import Precision
from edgekd.training.soft_targets import SoftTargets, has_fixed_view
from tests.training.cases import make_network

FP32 = Precision("fp32", channels_last=True)


class Counting(nn.Module):
    """Counts the examples that it is asked about."""

    asked = 0

    def __init__(self) -> None:
        super().__init__()
        self.network = make_network(3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        Counting.asked += len(x_BCHW)  # on the class: a copy of the network must count too
        return self.network(x_BCHW)


@pytest.fixture
def train() -> Resident:
    torch.manual_seed(0)
    return Resident(torch.randn(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64))


@pytest.fixture(autouse=True)
def _reset_the_count() -> None:
    Counting.asked = 0


INDICES_B = torch.tensor([3, 19, 4])


def test_a_fixed_view_is_asked_about_once(train: Resident) -> None:
    soft_targets = SoftTargets({"teacher": Counting()}, train, augmentation=Augmentation(), precision=FP32)
    assert Counting.asked == 20
    soft = soft_targets(INDICES_B, train.x_NC[INDICES_B])
    soft_targets(INDICES_B, train.x_NC[INDICES_B])
    assert Counting.asked == 20
    expected_BK = predict_logits(make_network(3), train.x_NC[INDICES_B])
    torch.testing.assert_close(soft["teacher"], expected_BK)


def test_a_random_view_is_asked_about_itself(train: Resident) -> None:
    augmentation = Augmentation(noise=0.1)
    soft_targets = SoftTargets({"teacher": Counting()}, train, augmentation=augmentation, precision=FP32)
    assert Counting.asked == 0
    view_BC = train.x_NC[INDICES_B] + 1.0
    soft = soft_targets(INDICES_B, view_BC)
    assert Counting.asked == 3
    torch.testing.assert_close(soft["teacher"], predict_logits(make_network(3), view_BC))


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=True)])
def test_no_gradient(train: Resident, augmentation: Augmentation) -> None:
    soft_targets = SoftTargets({"a": make_network(3)}, train, augmentation=augmentation, precision=FP32)
    soft = soft_targets(INDICES_B, train.x_NC[INDICES_B])
    assert not soft["a"].requires_grad
    assert not soft["a"].is_inference()  # such a tensor could not take part in a backward pass


@pytest.mark.parametrize("change", [{"crop": 1}, {"flip": True}, {"rotate_degrees": 5.0}, {"noise": 0.1}])
def test_any_augmentation_makes_the_view_random(change: dict[str, float]) -> None:
    assert not has_fixed_view(Augmentation.model_validate(change))
    assert has_fixed_view(Augmentation())
