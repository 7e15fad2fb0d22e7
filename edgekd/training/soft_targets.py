"""Logits of the networks that teach, on the batch at hand.

Without augmentation every epoch shows the same view of an example, and the teachers run once over the
training set. With augmentation each view is new, so they run on it; a cached answer would be about another
image.
Axes: N training examples, B examples of a batch, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgekd.documents.recipe import Augmentation
from edgekd.errors import NetworkError
from edgekd.training.data import Resident
from edgekd.training.evaluate import predict_logits
from edgekd.training.precision import Precision


def has_fixed_view(augmentation: Augmentation) -> bool:
    """Whether an example looks the same in every epoch."""
    return augmentation == Augmentation()


class SoftTargets:
    """The teaching networks, frozen: call it with the batch's indices and its view."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        train: Resident,
        *,
        augmentation: Augmentation,
        precision: Precision,
    ) -> None:
        """Run the networks over the data at once where the view is fixed, else copy them to its device."""
        self._precision = precision
        self._device = train.x_NC.device
        frozen = {name: self._freeze(network) for name, network in networks.items()}
        self._cached: dict[str, Tensor] = {}
        self._online: dict[str, nn.Module] = {}
        if has_fixed_view(augmentation):
            x_NC = precision.lay_out(train.x_NC)
            self._cached = {name: predict_logits(network, x_NC) for name, network in frozen.items()}
        else:
            self._online = frozen

    def __call__(self, indices_B: Tensor, view_BC: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) of each network, without gradient.

        Args:
            indices_B: which training examples the batch holds, on their device.
            view_BC: what the student sees of them.
        """
        soft = {name: logits_NK[indices_B] for name, logits_NK in self._cached.items()}
        with torch.no_grad(), self._precision.autocast(self._device):
            soft |= {name: network(view_BC) for name, network in self._online.items()}
        return soft

    def _freeze(self, network: nn.Module) -> nn.Module:
        """A copy that only answers; the caller's network stays as and where it is."""
        frozen = copy.deepcopy(network).to(self._device).eval().requires_grad_(False)
        self._precision.lay_out_network(frozen)
        return frozen


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
