"""What the networks that teach make of the batch at hand.

Where the views of an example are the same in every epoch, the networks run once over the training set, and
their answers are kept, unless they would take more than `_MOST_CACHED`. Elsewhere each view is new, and they
run on it; a kept answer would be about another image. Where whole batches come again (training.view_cycle),
as many answers are kept as fit. A teacher may also be answers and no network.
Axes: N training examples, B examples of a batch, V views, R = V x B rows, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.distillation.step import Answer
from edgekd.documents.recipe import Augmentation
from edgekd.documents.views import STRONG, WEAK
from edgekd.errors import NetworkError, UsageError
from edgekd.networks.taps import TapReader
from edgekd.tasks.views import make_views
from edgekd.training.data import Resident
from edgekd.training.evaluate import in_chunks, predict_logits
from edgekd.training.precision import Precision

_MOST_CACHED = 2**30
"""Bytes of kept answers, over all networks."""

Show = Callable[[Tensor], Tensor]
"""A batch (B, C, ...) -> its views (R, C, ...)."""
Batch = tuple[int, int]
"""Which of the batches that come again: the epoch in which it came first, and the step in it."""


def plain_show(views: Sequence[str], device: torch.device) -> Show:
    """Shows a batch in views without augmentation, which are the same each time."""
    generator = torch.Generator(device)
    return partial(make_views, views=views, augmentation=Augmentation(), generator=generator)


class StoredAnswers(nn.Module):
    """A teacher of which only the answers are known; see edgekd/tasks/answers.py.

    A module, so that it can be moved and sent to other processes like a network; it cannot be run.
    """

    views = (WEAK, STRONG)
    """The views that it answers to, with the same answer: another orientation may be another question."""

    def __init__(self, train_NK: Tensor, validation_MK: Tensor) -> None:
        """Keep logits, float32, of the training and of the validation split, in their order."""
        super().__init__()
        self.train_NK: Tensor
        self.validation_MK: Tensor
        self.register_buffer("train_NK", train_NK)
        self.register_buffer("validation_MK", validation_MK)

    def of(self, indices_B: Tensor, views: Sequence[str]) -> Answer:
        """The answer to a batch, in those of the views that it answers to."""
        answered = tuple(view for view in views if view in self.views)
        return Answer(self.train_NK[indices_B].repeat(len(answered), 1), {}, answered)

    def check(self, count: int, validation_count: int) -> None:
        """See that there is an answer for every example.

        Raises:
            UsageError: they are answers to another data set.
        """
        found, wanted = (len(self.train_NK), len(self.validation_MK)), (count, validation_count)
        if found != wanted:
            raise UsageError(
                f"the answers are to {found[0]} training and {found[1]} validation examples; "
                f"the task has {wanted[0]} and {wanted[1]}",
                where="teacher",
            )


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
        logits, features = [], []
        with torch.no_grad(), self._precision.autocast(self._device):
            for part_RC in in_chunks(x_RC):
                logits.append(self.network(part_RC))
                features.append(self._reader.take())
        if len(logits) == 1:
            return Answer(logits[0], features[0], self._views)
        together = {tap: torch.cat([part[tap] for part in features]) for tap in features[0]}
        return Answer(torch.cat(logits), together, self._views)

    def over(self, x_NC: Tensor, show: Show) -> Kept:
        """The answers to all examples in all views."""
        answers = [self(self._precision.lay_out(show(x_BC))) for x_BC in in_chunks(x_NC)]
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
        return _bytes_of(Answer(answer.logits_RK.float(), answer.features)) // 2 * len(x_NC)


def _bytes_of(answer: Answer) -> int:
    rows = [answer.logits_RK, *answer.features.values()]
    return sum(one.numel() * one.element_size() for one in rows)


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
        precision: Callable[[nn.Module], Precision],
    ) -> None:
        """Run the networks over the data at once where the views are fixed, else copy them to its device.

        Args:
            networks: by the names of the objective's sources.
            train: the training split.
            taps: what is read of each network.
            views: the views of a batch, in the order of its rows.
            fixed: shows a batch in its views, where these are the same each time; else None.
            precision: arithmetic of the forward passes of a network.
        """
        self._kept: dict[str, Kept] = {}
        self._recalled: dict[tuple[str, Batch], Answer] = {}
        self._room = _MOST_CACHED
        self._views = views
        self._stored = {
            name: copy.deepcopy(network).to(train.x_NC.device)
            for name, network in networks.items()
            if isinstance(network, StoredAnswers)
        }
        self._online = {
            name: Teaching(network, taps[name], views, device=train.x_NC.device, precision=precision(network))
            for name, network in networks.items()
            if name not in self._stored
        }
        if fixed is None:
            return
        size = sum(teaching.bytes_over(train.x_NC, fixed) for teaching in self._online.values())
        if size <= _MOST_CACHED:
            self._kept = {name: one.over(train.x_NC, fixed) for name, one in self._online.items()}
            self._online = {}

    def __call__(self, indices_B: Tensor, x_RC: Tensor, batch: Batch | None = None) -> dict[str, Answer]:
        """The answer of each network, without gradient.

        Args:
            indices_B: which training examples the batch holds, on their device.
            x_RC: what the student sees of them.
            batch: which of the batches that come again, with the same examples in the same views; None if
                it does not.
        """
        answers = {name: kept.of(indices_B) for name, kept in self._kept.items()}
        answers |= {name: stored.of(indices_B, self._views) for name, stored in self._stored.items()}
        return answers | {name: self._ask(name, x_RC, batch) for name in self._online}

    def _ask(self, name: str, x_RC: Tensor, batch: Batch | None) -> Answer:
        """What a network says, or said when the batch came first."""
        if batch is None:
            return self._online[name](x_RC)
        if (name, batch) in self._recalled:
            return self._recalled[name, batch]
        answer = self._online[name](x_RC)
        size = _bytes_of(answer)
        if size <= self._room:
            self._recalled[name, batch] = answer
            self._room -= size
        return answer


def features_over(network: nn.Module, tap: str, x_NC: Tensor) -> Tensor:
    """Features (N, ...) float32 at a tap for every example as it is, in eval mode."""
    frozen = copy.deepcopy(network).to(x_NC.device).eval()
    reader = TapReader(frozen, [tap])
    rows = []
    with torch.no_grad():
        for x_BC in in_chunks(x_NC):
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
