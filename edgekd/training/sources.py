"""What the networks that teach make of the batch at hand.

Where the views of an example are the same in every epoch, the networks run once over the training set, and
their answers are kept, unless they would take more than `_MOST_CACHED`. Elsewhere each view is new, and they
run on it; a kept answer would be about another image.
Axes: N training examples, B examples of a batch, V views, R = V x B rows, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.distillation.step import Answer
from edgekd.errors import NetworkError
from edgekd.networks.taps import TapReader
from edgekd.training.data import Resident
from edgekd.training.evaluate import predict_logits
from edgekd.training.precision import Precision

_MOST_CACHED = 512 * 2**20
"""Bytes of kept answers, over all networks."""
_BATCH = 256

Show = Callable[[Tensor], Tensor]
"""A batch (B, C, ...) -> its views (R, C, ...)."""


@dataclass(frozen=True)
class Kept:
    """The answers of one network to every training example."""

    logits_VNK: Tensor
    features_VN: Mapping[str, Tensor]
    views: tuple[str, ...]

    def of(self, indices_B: Tensor) -> Answer:
        """The answer to a batch."""
        features = {tap: rows[:, indices_B].flatten(0, 1) for tap, rows in self.features_VN.items()}
        return Answer(self.logits_VNK[:, indices_B].flatten(0, 1), features, self.views)


class Teaching:
    """One frozen network, with the taps that are read of it."""

    def __init__(
        self,
        network: nn.Module,
        taps: Sequence[str],
        views: tuple[str, ...],
        *,
        device: torch.device,
        precision: Precision,
    ) -> None:
        """Copy the network to the device; the caller's stays as and where it is."""
        self.network = copy.deepcopy(network).to(device).eval().requires_grad_(False)
        precision.lay_out_network(self.network)
        self._reader = TapReader(self.network, taps)
        self._views = views
        self._precision = precision
        self._device = device

    def __call__(self, x_RC: Tensor) -> Answer:
        """The answer to the rows of a batch, without gradient."""
        with torch.no_grad(), self._precision.autocast(self._device):
            logits_RK = self.network(x_RC)
        return Answer(logits_RK, self._reader.take(), self._views)

    def over(self, x_NC: Tensor, show: Show) -> Kept:
        """The answers to all examples in all views."""
        answers = [self(self._precision.lay_out(show(x_BC))) for x_BC in torch.split(x_NC, _BATCH)]
        count = len(self._views)
        logits = torch.cat([torch.unflatten(one.logits_RK.float(), 0, (count, -1)) for one in answers], dim=1)
        features = {
            tap: torch.cat([torch.unflatten(one.features[tap], 0, (count, -1)) for one in answers], dim=1)
            for tap in answers[0].features
        }
        return Kept(logits, features, self._views)

    def bytes_over(self, x_NC: Tensor, show: Show) -> int:
        """How much `over` would keep."""
        answer = self(self._precision.lay_out(show(x_NC[:2])))
        rows = [answer.logits_RK.float(), *answer.features.values()]
        return sum(one.numel() * one.element_size() for one in rows) // 2 * len(x_NC)


class Sources:
    """The teaching networks, frozen: call it with the batch's indices and its rows."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        train: Resident,
        *,
        taps: Mapping[str, Sequence[str]],
        views: tuple[str, ...],
        fixed: Show | None,
        precision: Precision,
    ) -> None:
        """Run the networks over the data at once where the views are fixed, else copy them to its device.

        Args:
            networks: by the names of the objective's sources.
            train: the training split.
            taps: what is read of each network.
            views: the views of a batch, in the order of its rows.
            fixed: shows a batch in its views, where these are the same each time; else None.
            precision: arithmetic of the forward passes.
        """
        self._kept: dict[str, Kept] = {}
        self._online = {
            name: Teaching(network, taps[name], views, device=train.x_NC.device, precision=precision)
            for name, network in networks.items()
        }
        if fixed is None:
            return
        size = sum(teaching.bytes_over(train.x_NC, fixed) for teaching in self._online.values())
        if size <= _MOST_CACHED:
            self._kept = {name: one.over(train.x_NC, fixed) for name, one in self._online.items()}
            self._online = {}

    def __call__(self, indices_B: Tensor, x_RC: Tensor) -> dict[str, Answer]:
        """The answer of each network, without gradient.

        Args:
            indices_B: which training examples the batch holds, on their device.
            x_RC: what the student sees of them.
        """
        answers = {name: kept.of(indices_B) for name, kept in self._kept.items()}
        return answers | {name: teaching(x_RC) for name, teaching in self._online.items()}


def features_over(network: nn.Module, tap: str, x_NC: Tensor) -> Tensor:
    """Features (N, ...) float32 at a tap for every example as it is, in eval mode."""
    frozen = copy.deepcopy(network).to(x_NC.device).eval()
    reader = TapReader(frozen, [tap])
    rows = []
    with torch.no_grad():
        for x_BC in torch.split(x_NC, _BATCH):
            frozen(x_BC)
            rows.append(reader.take()[tap].float())
    return torch.cat(rows)


def check_classes(network: nn.Module, example_BC: Tensor, num_classes: int, *, role: str) -> None:
    """See that a network gives one logit a class.

    Raises:
        NetworkError: its answer to `example_BC` has another shape.
    """
    found = tuple(predict_logits(network, example_BC).shape)
    if found != (len(example_BC), num_classes):
        raise NetworkError(
            f"gives an output of shape {found} for {len(example_BC)} examples; "
            f"the task has {num_classes} classes",
            where=role,
            hint="choose a network, or weights, made for the classes of the task",
        )
