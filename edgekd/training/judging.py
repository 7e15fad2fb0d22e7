"""What decides which epoch is the best, on the validation split, and what is noted beside it.

Axes: N examples of a split, B examples of a batch, R rows (views x examples), K classes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgekd.distillation.exits import early_exit, trained_exit
from edgekd.distillation.step import TEACHER
from edgekd.training.data import load_split
from edgekd.training.evaluate import Judgement, judge, predict_logits
from edgekd.training.learner import Learner
from edgekd.training.plan import Plan
from edgekd.training.setting import setting_of
from edgekd.training.sources import StoredAnswers, plain_show


class Judge:
    """Judges a network that learns, or an objective whose heads learn on a frozen network."""

    def __init__(self, plan: Plan, learner: Learner, device: torch.device) -> None:
        """Put the splits on the device, and ask the teacher about the validation examples."""
        self._plan, self._learner, self._device = plan, learner, device
        self._validation = load_split(plan.task, plan.task.validation, device)
        self._watched = None if plan.watch is None else load_split(plan.task, plan.watch, device)
        self._teacher_logits_NK = self._logits_of_teacher()
        network, exits = learner.network, plan.exit is not None
        self._role = setting_of(network, {}, plan.task).student if exits else None

    def judge(self) -> Judgement:
        """The judgement of an epoch, by what the plan names."""
        return self._of_network() if self._plan.judged_by == "network" else self._of_objective()

    def watch(self) -> float | None:
        """Top-1 on the watched split; None where nothing is watched."""
        if self._watched is None:
            return None
        return judge(predict_logits(self._shipped(), self._watched.x_NC), self._watched).top1

    def _of_network(self) -> Judgement:
        """Loss and top-1 of what will ship of the network, and how closely it follows the teacher."""
        logits_NK = predict_logits(self._shipped(), self._validation.x_NC)
        return judge(logits_NK, self._validation, self._teacher_logits_NK)

    def _of_objective(self) -> Judgement:
        """Value of the objective, in views without augmentation."""
        total, count = 0.0, len(self._validation)
        show = plain_show(self._learner.objective.views, self._device)
        order_N = torch.arange(count, device=self._device)
        with torch.no_grad():
            for indices_B in torch.split(order_N, self._plan.section.batch_size):
                x_RC = self._plan.precision.lay_out(show(self._validation.x_NC[indices_B]))
                labels_B = self._validation.y_N[indices_B]
                loss, _ = self._learner(x_RC, labels_B, indices_B, {}, epoch=1, epochs=1)
                total += float(loss) * len(indices_B)
        return Judgement(total / count, None)

    def _shipped(self) -> nn.Module:
        network, tap = self._learner.network, self._plan.exit
        if tap is None or self._role is None:
            return network
        heads = self._learner.objective.state_dict()
        head = trained_exit(heads, self._role, tap, self._plan.task.num_classes)
        return early_exit(network, tap, head.to(self._device))

    def _logits_of_teacher(self) -> Tensor | None:
        teacher = self._plan.teachers.get(TEACHER)
        if teacher is None:
            return None
        frozen = copy.deepcopy(teacher).to(self._device)
        if isinstance(frozen, StoredAnswers):
            return frozen.validation_MK
        return predict_logits(frozen, self._validation.x_NC)
