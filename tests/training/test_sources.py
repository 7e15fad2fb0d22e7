"""Answers of the teachers: kept where the views are fixed, online where they are not, the same in value."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from edgekd.documents.recipe import Augmentation
from edgekd.tasks.views import make_views
from edgekd.training import evaluate, sources
from edgekd.training.data import Resident
from edgekd.training.evaluate import predict_logits
from edgekd.training.precision import Precision
from edgekd.training.sources import Show, Sources, features_over
from tests.training.cases import make_network

FP32 = Precision("fp32", channels_last=True)


class Counting(nn.Module):
    """Counts the examples that it is asked about."""

    asked = 0

    def __init__(self) -> None:
        super().__init__()
        self.network = make_network(3)
        self.taps = {"map": "network.conv2"}

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
VIEWS = ("weak", "pretext1")


def show(views: tuple[str, ...]) -> Show:
    return partial(make_views, views=views, augmentation=Augmentation(), generator=torch.Generator())


def open_sources(
    train: Resident, *, views: tuple[str, ...] = ("weak",), fixed: bool, taps: tuple[str, ...] = ()
) -> Sources:
    return Sources(
        {"teacher": Counting()},
        train,
        taps={"teacher": taps},
        views=views,
        fixed=show(views) if fixed else None,
        precision=lambda network: FP32,
    )


def test_fixed_views_are_asked_about_once(train: Resident) -> None:
    kept = open_sources(train, views=VIEWS, fixed=True, taps=("map",))
    asked = Counting.asked
    rows = show(VIEWS)(train.x_NC[INDICES_B])
    answer = kept(INDICES_B, rows)["teacher"]
    assert Counting.asked == asked
    torch.testing.assert_close(answer.logits_RK, predict_logits(make_network(3), rows))
    online = open_sources(train, views=VIEWS, fixed=False, taps=("map",))(INDICES_B, rows)["teacher"]
    torch.testing.assert_close(answer.features["map"], online.features["map"])
    assert answer.views == online.views == VIEWS


def test_a_random_view_is_asked_about_itself(train: Resident) -> None:
    online = open_sources(train, fixed=False)
    assert Counting.asked == 0
    view_BC = train.x_NC[INDICES_B] + 1.0
    answer = online(INDICES_B, view_BC)["teacher"]
    assert Counting.asked == 3
    torch.testing.assert_close(answer.logits(), predict_logits(make_network(3), view_BC))


def test_what_would_take_too_much_memory_is_not_kept(
    train: Resident, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, features = 20 * 3 * 4, 20 * 8 * 4 * 4 * 4
    for limit, kept in ((logits + features, True), (logits + features - 1, False)):
        monkeypatch.setattr(sources, "_MOST_CACHED", limit)
        opened = open_sources(train, fixed=True, taps=("map",))
        Counting.asked = 0
        opened(INDICES_B, train.x_NC[INDICES_B])
        assert (Counting.asked == 0) == kept


@pytest.mark.parametrize("fixed", [True, False])
def test_no_gradient(train: Resident, fixed: bool) -> None:
    answer = open_sources(train, fixed=fixed)(INDICES_B, train.x_NC[INDICES_B])["teacher"]
    assert not answer.logits_RK.requires_grad
    assert not answer.logits_RK.is_inference()  # such a tensor could not take part in a backward pass


def test_features_of_the_whole_split(train: Resident) -> None:
    network = make_network(3).train()
    expected = network.conv2(torch.relu(network.eval().bn1(network.conv1(train.x_NC))))
    torch.testing.assert_close(features_over(network, "conv2", train.x_NC), expected.detach())


def test_each_network_runs_in_its_own_arithmetic(train: Resident) -> None:
    networks = {"teacher": make_network(3), "other": make_network(4)}
    opened = Sources(
        networks,
        train,
        taps={"teacher": (), "other": ()},
        views=("weak",),
        fixed=None,
        precision=lambda network: (
            Precision("bf16", channels_last=True) if network is networks["other"] else FP32
        ),
    )
    answers = opened(INDICES_B, train.x_NC[INDICES_B])
    assert answers["teacher"].logits_RK.dtype == torch.float32
    assert answers["other"].logits_RK.dtype == torch.bfloat16


def test_rows_in_chunks_are_answered_as_together(train: Resident, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = show(VIEWS)(train.x_NC[INDICES_B])
    expected = open_sources(train, views=VIEWS, fixed=False, taps=("map",))(INDICES_B, rows)["teacher"]
    monkeypatch.setattr(evaluate, "_LEAST_ROWS", 4)
    monkeypatch.setattr(evaluate, "_CPU_POSITIONS", 0)
    found = open_sources(train, views=VIEWS, fixed=False, taps=("map",))(INDICES_B, rows)["teacher"]
    kept = open_sources(train, views=VIEWS, fixed=True, taps=("map",))(INDICES_B, rows)["teacher"]
    for answer in (found, kept):
        torch.testing.assert_close(answer.logits_RK, expected.logits_RK)
        torch.testing.assert_close(answer.features["map"], expected.features["map"])
