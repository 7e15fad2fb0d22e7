"""The training loop: one for teachers, students and quantized students.

The data set lies on the device as tensors; an epoch is a seeded permutation of it. Inside an epoch the host
does not wait for the device. The weights that validate best are the ones that stay; the test split is not
touched.
Axes: B examples of a batch, C channels and the rest of an example, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.distillation.objective import Loss, Objective
from edgekd.distillation.step import Step
from edgekd.documents.recipe import QuantizedTraining, Training
from edgekd.errors import DivergedError
from edgekd.files import sha256_json
from edgekd.tasks.augment import augment
from edgekd.tasks.task import Task
from edgekd.training.checkpoint import Checkpoints
from edgekd.training.data import derive_seed, epoch_order, load_split, share_of, steps_per_epoch
from edgekd.training.evaluate import validate
from edgekd.training.loss_log import LossLog
from edgekd.training.optimizer import build_optimizer
from edgekd.training.precision import Precision
from edgekd.training.progress import Progress
from edgekd.training.result import EpochRecord, TrainingResult
from edgekd.training.schedule import schedule_of
from edgekd.training.soft_targets import SoftTargets, check_classes

Weights = dict[str, Tensor]


class Phases(Protocol):
    """How a network is set before each epoch's training and before its validation."""

    def enter_training(self, network: nn.Module, *, epoch: int) -> None:
        """Before the training of `epoch`, which counts from 1."""

    def enter_validation(self, network: nn.Module) -> None:
        """Before a validation."""


@dataclass(frozen=True)
class Plan:
    """All that a training is made of, but for the devices that it runs on."""

    network: nn.Module
    """Trained in place."""
    task: Task
    section: Training | QuantizedTraining
    objective: Objective
    teachers: Mapping[str, nn.Module]
    """The networks that the objective's sources name."""
    phases: Phases
    precision: Precision
    checkpoint_dir: Path
    seed: int
    starts_trained: bool
    """Whether the network as it came is a candidate too, as epoch 0."""


class Trainer:
    """A plan on its devices. One a process; with several processes each works on its share of every batch."""

    def __init__(self, fabric: Fabric, plan: Plan) -> None:
        """Move data and networks to the device.

        Raises:
            NetworkError: a network does not give one logit a class.
        """
        self._fabric = fabric
        self._plan = plan
        self._train = load_split(plan.task, plan.task.train, fabric.device)
        self._validation = load_split(plan.task, plan.task.validation, fabric.device)
        self._background_C = torch.from_numpy(plan.task.background).to(fabric.device)
        self._network = plan.network.to(fabric.device)
        plan.precision.lay_out_network(self._network)
        self._check_networks()
        self._soft_targets = SoftTargets(
            plan.teachers, self._train, augmentation=plan.task.augmentation, precision=plan.precision
        )
        self._optimizer = build_optimizer(self._network, plan.section)
        self._module, self._stepper = fabric.setup(self._network, self._optimizer)
        self._steps = steps_per_epoch(len(self._train), plan.section.batch_size, processes=fabric.world_size)
        self._schedule = schedule_of(plan.section, steps_per_epoch=self._steps)
        self._checkpoints = Checkpoints(plan.checkpoint_dir, form=self._form())

    def run(self, progress: Progress) -> TrainingResult:
        """Train every epoch that is left, and leave the best weights in the network.

        Raises:
            DivergedError: the loss or the validation loss is no longer finite.
            StorageError: a checkpoint cannot be written.
        """
        devices = [self._fabric.device] if self._fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # the epochs seed torch for dropout; the caller's state survives
            return self._run(progress)

    def _run(self, progress: Progress) -> TrainingResult:
        history, best, best_weights = self._resume(progress)
        done = resumed_from = history[-1].epoch if history else None
        progress.on_start(self._plan.section.epochs, done or 0)
        if best is None and self._plan.starts_trained:
            best, best_weights = self._as_it_came(), self.weights()
            history.append(best)
        for epoch in range((done or 0) + 1, self._plan.section.epochs + 1):
            record = self._epoch(epoch, progress)
            history.append(record)
            if best is None or record.is_better_than(best):
                best, best_weights = record, self.weights()
            self._save(epoch, history, best, best_weights)
            progress.on_epoch(record)
        assert best is not None, "there is an epoch, or the network as it came"
        self._network.load_state_dict(best_weights)
        return TrainingResult(best, tuple(history), resumed_from, str(self._plan.precision))

    def _epoch(self, epoch: int, progress: Progress) -> EpochRecord:
        began = time.perf_counter()
        first_step = (epoch - 1) * self._steps
        log = LossLog(
            self._fabric, self._plan.objective, epoch=epoch, first_step=first_step + 1, hint=self._hint()
        )
        rank, processes = self._fabric.global_rank, self._fabric.world_size
        torch.manual_seed(derive_seed(self._plan.seed, "network", epoch, rank))
        views = torch.Generator(self._fabric.device)
        views.manual_seed(derive_seed(self._plan.seed, "views", epoch, rank))
        order = epoch_order(len(self._train), steps=self._steps, seed=self._plan.seed, epoch=epoch)
        self._plan.phases.enter_training(self._network, epoch=epoch)
        for step, indices_B in enumerate(order):
            mine_B = share_of(indices_B, rank=rank, processes=processes).to(self._fabric.device)
            log.add(self._step(mine_B, self._schedule.learning_rate(first_step + step), views))
            progress.on_step(step + 1, self._steps)
        loss, parts = log.means()
        validation_loss, validation_top1 = self._validate(epoch)
        learning_rate = self._schedule.learning_rate(first_step + self._steps - 1)
        seconds = time.perf_counter() - began
        return EpochRecord(epoch, learning_rate, loss, parts, validation_loss, validation_top1, seconds)

    def _step(self, indices_B: Tensor, learning_rate: float, views: torch.Generator) -> Loss:
        """One update of the weights; issues work to the device and does not wait for it."""
        precision = self._plan.precision
        x_BC = augment(
            self._train.x_NC[indices_B], self._plan.task.augmentation, views, background_C=self._background_C
        )
        x_BC = precision.lay_out(x_BC)
        with precision.autocast(self._fabric.device):
            logits_BK = self._module(x_BC)
        soft = self._soft_targets(indices_B, x_BC)
        loss = self._plan.objective(Step(logits_BK, self._train.y_N[indices_B], soft))
        self._optimizer.zero_grad()
        self._fabric.backward(loss.total)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._stepper.step()
        return loss

    def _validate(self, epoch: int) -> tuple[float, float]:
        """Loss and top-1 of the validation split; the first process judges for all.

        Raises:
            DivergedError: the loss is not finite.
        """
        judged = (0.0, 0.0)
        if self._fabric.is_global_zero:
            self._plan.phases.enter_validation(self._network)
            judged = validate(self._network, self._validation)
        loss, top1 = self._fabric.broadcast(judged)
        if not math.isfinite(loss):
            raise DivergedError(f"the validation loss became {loss:g} after epoch {epoch}", hint=self._hint())
        return loss, top1

    def _as_it_came(self) -> EpochRecord:
        began = time.perf_counter()
        loss, top1 = self._validate(0)
        return EpochRecord(0, 0.0, None, {}, loss, top1, time.perf_counter() - began)

    def weights(self) -> Weights:
        """A copy of the network's state on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self._network.state_dict().items()}

    def _save(self, epoch: int, history: list[EpochRecord], best: EpochRecord, best_weights: Weights) -> None:
        if self._fabric.is_global_zero:
            state = {
                "network": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "history": [asdict(record) for record in history],
                "best": asdict(best),
                "best_network": best_weights,
            }
            self._checkpoints.save(epoch, state)

    def _resume(self, progress: Progress) -> tuple[list[EpochRecord], EpochRecord | None, Weights]:
        state = self._checkpoints.latest(progress.on_warning)
        if state is None:
            return [], None, {}
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        history = [EpochRecord(**record) for record in state["history"]]
        return history, EpochRecord(**state["best"]), state["best_network"]

    def _form(self) -> str:
        """Digest of what this training is; see Checkpoints."""
        plan = self._plan
        shapes = {name: list(value.shape) for name, value in self._network.state_dict().items()}
        form: dict[str, Any] = {
            "section": plan.section.model_dump(mode="json"),
            "parts": [[part.name, part.weight, repr(part.term)] for part in plan.objective.parts],
            "task": plan.task.fingerprint,
            "augmentation": plan.task.augmentation.model_dump(mode="json"),
            "precision": str(plan.precision),
            "seed": plan.seed,
            "processes": self._fabric.world_size,
            "network": shapes,
        }
        return sha256_json(form)

    def _check_networks(self) -> None:
        example_BC = self._train.x_NC[:2]
        networks = {"the network that learns": self._network, **self._plan.teachers}
        for role, network in networks.items():
            device = next(network.parameters(), example_BC).device
            check_classes(network, example_BC.to(device), self._plan.task.num_classes, role=role)

    def _hint(self) -> str:
        rate = self._plan.section.learning_rate
        warmup = ", a longer warm-up" if isinstance(self._plan.section, Training) else ""
        return f"a learning_rate below {rate:g}{warmup}, or precision = 'fp32'"
