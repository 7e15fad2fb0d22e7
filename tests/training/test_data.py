"""The order of an epoch, its batches, and the seeds behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.training import data
from edgekd.training.data import derive_seed, epoch_order, load_split, share_of, steps_per_epoch
from tests.training.cases import make_task


def test_every_example_once_an_epoch() -> None:
    order = epoch_order(103, steps=4, seed=0, epoch=1)
    assert torch.cat(order).sort().values.tolist() == list(range(103))
    assert [len(indices_B) for indices_B in order] == [26, 26, 26, 25]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(epoch_order(50, steps=2, seed=seed, epoch=epoch)).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


@pytest.mark.parametrize(
    ("count", "batch_size", "processes", "steps"),
    [(256, 128, 1, 2), (257, 128, 1, 3), (100, 128, 1, 1), (3, 2, 1, 1), (2, 2, 1, 1), (9, 4, 2, 2)],
)
def test_no_process_gets_a_single_example(count: int, batch_size: int, processes: int, steps: int) -> None:
    assert steps_per_epoch(count, batch_size, processes=processes) == steps
    order = epoch_order(count, steps=steps, seed=0, epoch=1)
    for rank in range(processes):
        shares = [share_of(indices_B, rank=rank, processes=processes) for indices_B in order]
        assert all(len(share) >= 2 for share in shares)


def test_processes_share_a_batch_without_overlap() -> None:
    indices_B = torch.arange(9)
    shares = [share_of(indices_B, rank=rank, processes=2).tolist() for rank in range(2)]
    assert shares == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derive_seed(0, purpose, epoch, 0) for purpose in ("views", "network") for epoch in range(100)}
    assert len(seeds) == 200
    assert derive_seed(0, "views", 1, 0) == 21669125783534230


def test_split_is_normalized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_PART", 7)  # 40 examples, the last part is not full
    task = make_task()
    split = load_split(task, task.validation, torch.device("cpu"))
    expected = (task.validation.x.astype(np.float64) - 110.0) / 50.0
    assert split.x_NC.dtype == torch.float32
    np.testing.assert_allclose(split.x_NC.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert split.y_N.tolist() == task.validation.y.tolist()
