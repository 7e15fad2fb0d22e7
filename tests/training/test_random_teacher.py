"""The random teacher: no weight learns, and batch normalization has the statistics of the data."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekd.training.random_teacher import estimate_statistics
from tests.training.cases import make_network, make_task, same_weights

TASK = make_task(train=256)


def test_the_statistics_are_those_of_the_training_examples() -> None:
    network = make_network()
    estimate_statistics(network, TASK, seed=0)
    x_NC = torch.from_numpy(TASK.normalize(TASK.train.x))
    first_NCHW = network.conv1(x_NC).detach().double().numpy()
    mean, variance = first_NCHW.mean(axis=(0, 2, 3)), first_NCHW.var(axis=(0, 2, 3))
    np.testing.assert_allclose(network.bn1.running_mean.numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(network.bn1.running_var.numpy(), variance, rtol=2e-2)


def test_no_weight_changes_and_the_modes_are_put_back() -> None:
    network, before = make_network(), make_network()
    network.train()
    network.bn1.eval()
    network.bn2.momentum = 0.3
    estimate_statistics(network, TASK, seed=0)
    assert [network.training, network.bn1.training, network.bn2.training] == [True, False, True]
    assert (network.bn1.momentum, network.bn2.momentum) == (0.1, 0.3)
    for one, other in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_answers_vary_with_the_example() -> None:
    """Each feature has its full deviation, which fresh statistics would not give it."""
    network = make_network().eval()
    x_NC = torch.from_numpy(TASK.normalize(TASK.test.x)) * 1e-3

    def spread() -> float:
        with torch.no_grad():
            return float(network(x_NC).std(dim=0).mean())

    estimate_statistics(network, TASK, seed=0)
    assert spread() > 0
    network.bn1.reset_running_stats()
    with torch.no_grad():
        network.conv1.weight.mul_(1e-4)
    fresh = spread()
    estimate_statistics(network, TASK, seed=0)
    assert spread() > 2 * fresh


def test_the_same_seed_gives_the_same_teacher() -> None:
    one, again, other = make_network(), make_network(), make_network()
    large = make_task(train=2500)
    for network, seed in ((one, 1), (again, 1), (other, 2)):
        estimate_statistics(network, large, seed=seed)
    assert same_weights(one, again)
    assert not same_weights(one, other)


def test_a_network_without_batch_normalization_is_left_alone() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    estimate_statistics(network, TASK, seed=0)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_a_network_saw_before_is_forgotten() -> None:
    network, fresh = make_network(), make_network()
    network.train()
    network(torch.full((4, 1, 8, 8), 50.0))
    estimate_statistics(network, TASK, seed=0)
    estimate_statistics(fresh, TASK, seed=0)
    assert same_weights(network, fresh)
