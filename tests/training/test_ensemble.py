"""Ensembles: the mean of probabilities, the shares, the taps; and how well features fit the labels."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from edgekd.distillation.features import Layout, layout_of
from edgekd.distillation.setting import Role
from edgekd.networks.taps import TapReader, tap_shapes, taps_of
from edgekd.training.ensemble import Ensemble, shares_of
from edgekd.training.transferability import label_fit, transferability
from tests.training.cases import make_network, make_task

X_NC = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def networks(count: int = 3) -> list[nn.Module]:
    return [make_network(seed).eval() for seed in range(count)]


def mean_of_probabilities(members: list[nn.Module], shares: list[float], example: int) -> list[float]:
    """Written out: a softmax for each network, class by class."""
    mean = [0.0, 0.0, 0.0]
    with torch.no_grad():
        for member, share in zip(members, shares, strict=True):
            logits = member(X_NC[example : example + 1])[0].double().tolist()
            total = sum(math.exp(one) for one in logits)
            mean = [
                kept + share / sum(shares) * math.exp(one) / total
                for kept, one in zip(mean, logits, strict=True)
            ]
    return mean


@pytest.mark.parametrize("shares", [[1 / 3, 1 / 3, 1 / 3], [0.5, 0.2, 0.3], [4.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
def test_the_answer_is_the_weighted_mean_of_the_probabilities(shares: list[float]) -> None:
    members = networks()
    with torch.no_grad():
        p_NK = torch.softmax(Ensemble(members, shares)(X_NC), dim=1)
    for example in range(5):
        assert p_NK[example].tolist() == pytest.approx(
            mean_of_probabilities(members, shares, example), abs=1e-6
        )


def test_the_logits_are_logarithms_of_probabilities() -> None:
    with torch.no_grad():
        logits_NK = Ensemble(networks(), [2.0, 3.0, 5.0])(X_NC)
    assert logits_NK.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 5, abs=1e-5)


def test_extreme_logits_stay_finite() -> None:
    class Sure(nn.Module):
        def __init__(self, size: float) -> None:
            super().__init__()
            self.size = nn.Parameter(torch.tensor(size))

        def forward(self, x_NC: Tensor) -> Tensor:
            return torch.stack([self.size, -self.size]).expand(len(x_NC), 2)

    logits_NK = Ensemble([Sure(1e4), Sure(-1e4)], [0.5, 0.5])(X_NC)
    torch.testing.assert_close(logits_NK, torch.full((5, 2), math.log(0.5)))


class Counting(nn.Module):
    """Counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_network(7)
        self.runs = 0

    def forward(self, x_NC: Tensor) -> Tensor:
        self.runs += 1
        return self.inner(x_NC)


def test_a_network_without_a_share_does_not_run_but_for_the_main_one() -> None:
    main, quiet, speaker = Counting(), Counting(), Counting()
    Ensemble([main, quiet, speaker], [0.0, 0.0, 1.0])(X_NC)
    assert (main.runs, quiet.runs, speaker.runs) == (1, 0, 1)


def test_the_taps_are_those_of_the_main_network() -> None:
    main, other = networks(2)
    ensemble = Ensemble([main, other], [0.0, 1.0])
    assert list(taps_of(ensemble)) == list(taps_of(main))
    assert tap_shapes(ensemble, X_NC) == tap_shapes(main, X_NC)
    reader, alone = TapReader(ensemble, ["conv2"]), TapReader(main, ["conv2"])
    with torch.no_grad():
        ensemble(X_NC)
        of_ensemble = reader.take()["conv2"]
        main(X_NC)
    torch.testing.assert_close(of_ensemble, alone.take()["conv2"])


def test_own_taps_may_be_the_network_itself() -> None:
    class Own(nn.Module):
        taps: ClassVar[dict[str, str]] = {"all": ""}

        def __init__(self) -> None:
            super().__init__()
            self.inner = make_network(1)

        def forward(self, x_NC: Tensor) -> Tensor:
            return self.inner(x_NC)

    assert tap_shapes(Ensemble([Own().eval()], [1.0]), X_NC) == {"all": (3,)}


@pytest.mark.parametrize(
    ("nearest", "power", "shares"),
    [
        (False, 0.0, [1 / 3, 1 / 3, 1 / 3]),
        (False, 1.0, [0.6 / 0.8, 0.2 / 0.8, 0.0]),
        (False, 2.0, [0.9, 0.1, 0.0]),
        (True, 1.0, [1.0, 0.0, 0.0]),
    ],
)
def test_shares_follow_the_scores(nearest: bool, power: float, shares: list[float]) -> None:
    assert shares_of([0.6, 0.2, -0.1], nearest=nearest, power=power) == pytest.approx(shares)


def test_where_no_network_fits_all_count_alike() -> None:
    assert shares_of([-0.1, 0.0], nearest=False, power=3.0) == [0.5, 0.5]
    assert shares_of([-0.1, -0.2], nearest=True, power=3.0) == [1.0, 0.0]


def rank_correlation(features: np.ndarray, labels: np.ndarray) -> float:
    """Pair by pair: distance of standardized features, and whether the labels differ."""
    z = (features - features.mean(axis=0)) / features.std(axis=0)
    distances, differ = [], []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            distances.append(1 - np.corrcoef(z[i], z[j])[0, 1])
            differ.append(float(labels[i] != labels[j]))
    return float(spearmanr(distances, differ)[0])


@pytest.mark.parametrize("signal", [0.0, 1.0, 5.0])
def test_the_fit_is_a_rank_correlation_over_pairs(signal: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 40)
    features = rng.normal(size=(40, 6)) + signal * rng.normal(size=(4, 6))[labels]
    assert label_fit(features, labels) == pytest.approx(rank_correlation(features, labels), abs=1e-9)


def test_better_features_fit_better() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 80)
    noise, centers = rng.normal(size=(80, 6)), rng.normal(size=(4, 6))[labels]
    fits = [label_fit(noise + signal * centers, labels) for signal in (0.0, 1.0, 3.0)]
    assert fits == sorted(fits)
    assert abs(fits[0]) < 0.1
    assert fits[2] > 0.5


def test_what_does_not_vary_fits_nothing() -> None:
    labels = np.arange(6) % 2
    assert label_fit(np.ones((6, 3)), labels) == 0.0
    assert label_fit(np.random.default_rng(0).normal(size=(6, 3)), labels * 0) == 0.0


def test_a_network_is_scored_on_validation_examples_at_its_pool() -> None:
    task = make_task()

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.Flatten()
            self.head = nn.Linear(64, 3)

        def forward(self, x_NC: Tensor) -> Tensor:
            return self.head(self.pool(x_NC))

    x = task.normalize(task.validation.x).reshape(40, 64).astype(np.float64)
    assert transferability(Pooled(), task, seed=0) == pytest.approx(
        rank_correlation(x, task.validation.y), abs=1e-6
    )


def test_without_a_pool_the_logits_are_scored() -> None:
    task, network = make_task(), make_network().eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(task.normalize(task.validation.x))).double().numpy()
    assert transferability(network, task, seed=0) == pytest.approx(
        rank_correlation(logits, task.validation.y), abs=1e-6
    )


def test_maps_lie_as_those_of_the_main_network() -> None:
    class ChannelsLast(nn.Module):
        output_fmt = "NHWC"

        def __init__(self) -> None:
            super().__init__()
            self.stage1 = nn.Identity()

        def forward(self, x_BCHW: Tensor) -> Tensor:
            return self.stage1(x_BCHW.movedim(1, -1)).mean((1, 2))

    x_BCHW = torch.randn(2, 3, 4, 5)
    for network in (ChannelsLast(), Ensemble([ChannelsLast(), ChannelsLast()], [0.5, 0.5])):
        role = Role("teacher", network, tap_shapes(network, x_BCHW), taps_of(network))
        assert layout_of(role, "stage1", wanted_by="at") == Layout(3, (4, 5), channels_last=True)
