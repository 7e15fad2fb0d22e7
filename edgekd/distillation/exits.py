"""Multi-exit self-distillation: classifiers on earlier stages, taught by the labels and by the last one.

Formula
    L = sum over exits l of w_l [CE(z_l, y) + T^2 KL(softmax(z / T) || softmax(z_l / T))], averaged over
    examples, the first part over the labeled ones; z are the network's own logits, which receive no gradient
    here.
    An exit on a map: 3x3 convolution, batch norm, ReLU, mean over the map, linear; on a vector: linear.
Source
    Zhang et al., "Be Your Own Teacher", ICCV 2019, arXiv 1905.08094; Teerapittayanon et al., "BranchyNet",
    ICPR 2016; the sum of exits as in later multi-exit encoders.
Shapes
    features (B, C, H, W), series (B, C, L), tokens (B, T, C), whose mean is taken, or vectors (B, C), of the
    student; logits (B, K); any floating dtype, loss in fp32.
Defaults
    All families: label_weight 1, weight 1, w_l = 1, T = 3, exits on all stages but the last.
Traps
    The exits' gradient reaches the stages below them: an exit on the first stage can cost the last one
    accuracy; lower its weight then.
    The exits stay behind when the student ships; student.exit ships the network up to one exit instead.
    No hints between the features, which "Be Your Own Teacher" has too: those are the term fitnet.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.features import CONVOLUTIONS, NORMS, Layout, layout_of
from edgekd.distillation.head import Head
from edgekd.distillation.kd import kd_rows
from edgekd.distillation.labels import UNLABELED
from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Role, Setting, State
from edgekd.distillation.step import Step
from edgekd.distillation.term import Term
from edgekd.documents.base import nearest
from edgekd.documents.terms.own import ExitsTerm
from edgekd.errors import NetworkError, UsageError

_KIND = ExitsTerm.tag
_STATE = f"terms.{_KIND}.exits."
"""Start of the exits' names in the state of an objective."""
_POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def exit_loss(
    exit_BK: Tensor, last_BK: Tensor, labels_B: Tensor, *, temperature: float, standardize: bool = False
) -> Tensor:
    """What one exit costs.

    Args:
        exit_BK: (B, K), any floating dtype, logits of the exit.
        last_BK: (B, K), logits of the network; receives no gradient.
        labels_B: (B,), int64; an unlabeled example counts in the soft targets alone.
        temperature: T > 0, of the soft targets.
        standardize: bring each row of both to mean 0 and deviation 1 for the soft targets.

    Returns:
        A scalar, float32 (float64 for float64 logits), in nats.
    """
    labels = F.cross_entropy(widen(exit_BK), labels_B, ignore_index=UNLABELED, reduction="sum")
    distance_B = kd_rows(exit_BK, last_BK, temperature=temperature, standardize=standardize)
    return labels / (labels_B != UNLABELED).sum().clamp(min=1) + distance_B.mean()


class Exits(Term):
    """Classifiers on earlier stages."""

    def __init__(self, section: ExitsTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist, or there is no stage to put an exit on."""
        super().__init__()
        self.section = section
        self.student_taps = section.student_taps or setting.student.stages()[:-1]
        if not self.student_taps:
            raise UsageError(
                "finds no stage before the last one to put an exit on",
                where=f"term {_KIND}",
                hint=f"name student_taps, out of the student's: {', '.join(setting.student.shapes)}",
            )
        layouts = {tap: layout_of(setting.student, tap, wanted_by=_KIND) for tap in self.student_taps}
        heads = {tap: Head(*_layers(one, setting.num_classes)) for tap, one in layouts.items()}
        self.exits = nn.ModuleDict({_key(tap): head for tap, head in heads.items()})
        self._weights = section.exit_weights or (1.0,) * len(heads)
        self.smallest_batch = 2 if any(len(head) > 1 for head in heads.values()) else 1  # batch norm

    def forward(self, step: Step) -> Tensor:
        """Weighted sum of `exit_loss`."""
        logits = [self.exits[_key(tap)](step.student.feature(tap)) for tap in self.student_taps]
        losses = [self._loss(one, step) for one in logits]
        return torch.stack([w * loss for w, loss in zip(self._weights, losses, strict=True)]).sum()

    def _loss(self, exit_BK: Tensor, step: Step) -> Tensor:
        return exit_loss(
            exit_BK,
            step.student.logits(),
            step.labels_B,
            temperature=self.section.temperature,
            standardize=self.section.standardize,
        )


def trained_exit(heads: State, student: Role, tap: str, num_classes: int) -> nn.Sequential:
    """The exit at a tap with the weights that a training left, in eval mode.

    Args:
        heads: state of the objective's heads (TrainingResult.heads).
        student: the network that was trained.
        tap: where the exit is.
        num_classes: K.

    Raises:
        UsageError: the training had no exit there.
    """
    start = f"{_STATE}{_key(tap)}."
    state = {name.removeprefix(start): value for name, value in heads.items() if name.startswith(start)}
    if not state:
        keys = {name.removeprefix(_STATE).split(".")[0] for name in heads if name.startswith(_STATE)}
        there = [one for one in student.shapes if _key(one) in keys]
        raise UsageError(
            f"no exit was trained at the tap '{tap}'{nearest(tap, there)}",
            where="student.exit",
            hint=f"one of {', '.join(there)}" if there else "add a term of the kind 'exits'",
        )
    head = untrained_exit(student, tap, num_classes)
    head.load_state_dict(state)
    return head.eval()


def untrained_exit(student: Role, tap: str, num_classes: int) -> nn.Sequential:
    """An exit for this tap with random weights, as a network of its own.

    Raises:
        UsageError: the student has no such tap.
    """
    return nn.Sequential(*_layers(layout_of(student, tap, wanted_by=_KIND), num_classes))


def early_exit(network: nn.Module, tap: str, head: nn.Module) -> nn.Sequential:
    """A copy of the network up to a tap, with the exit there instead of the rest.

    Args:
        network: layers that run one after the other (nn.Sequential), as those of every built-in network.
        tap: name of the layer after which to leave.
        head: the feature there -> logits (B, K).

    Raises:
        NetworkError: the layers do not run so, there is none of this name, or the logits come before it.
    """
    where = type(network).__name__
    if type(network).forward is not nn.Sequential.forward:
        raise NetworkError(
            "its layers need not run one after the other, so that it cannot end at an exit",
            where=where,
            hint="leave student.exit out, or build the network as an nn.Sequential",
        )
    layers = dict(network._modules)
    names = list(layers)
    before = names[: names.index("logits")] if "logits" in names else names
    if tap not in before:
        raise NetworkError(
            f"has no layer '{tap}' to end at{nearest(tap, before)}",
            where=where,
            hint=f"one of {', '.join(before)}",
        )
    kept = nn.Sequential()
    for name in names[: names.index(tap) + 1]:
        kept.add_module(name, copy.deepcopy(layers[name]))
    kept.add_module("logits", copy.deepcopy(head))
    return kept


class MeanOfTokens(nn.Module):
    """(B, T, C) -> (B, C)."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Mean over the tokens."""
        return x_BTC.mean(dim=1)


class ChannelsFirst(nn.Module):
    """(B, X, C) -> (B, C, X)."""

    def forward(self, x_BXC: Tensor) -> Tensor:
        """Move the channels."""
        return x_BXC.movedim(-1, 1)


def _layers(layout: Layout, num_classes: int) -> list[nn.Module]:
    """An exit on a feature of this layout."""
    width, axes = layout.channels, len(layout.positions)
    classifier = nn.Linear(width, num_classes)
    if not axes:
        return [classifier]
    if layout.channels_last and axes == 1:
        return [MeanOfTokens(), classifier]
    convolution = CONVOLUTIONS[axes](width, width, 3, padding=1, bias=False)
    map_first: list[nn.Module] = [ChannelsFirst()] if layout.channels_last else []
    pool = [_POOLS[axes](1), nn.Flatten(1)]
    return [*map_first, convolution, NORMS[axes](width), nn.ReLU(), *pool, classifier]


def _key(tap: str) -> str:
    """The name of a tap's exit; names of modules have no dots."""
    return tap.replace(".", "_")
