"""The training loop: one for teachers, students and quantized students.

The data set lies on the device as tensors; an epoch is a seeded permutation of it. Inside an epoch the host
does not wait for the device. The weights that validate best are the ones that stay; the test split is not
touched.
Axes: B examples of a batch, C channels and the rest of an example, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.distillation.term import Survey
from edgekd.documents.recipe import Training
from edgekd.errors import DivergedError
from edgekd.files import sha256_json
from edgekd.tasks.views import has_fixed_views, make_views
from edgekd.training.checkpoint import Checkpoints
from edgekd.training.checks import check_objective
from edgekd.training.data import derive_seed, epoch_order, load_split, share_of, steps_per_epoch
from edgekd.training.evaluate import Judgement
from edgekd.training.judging import Judge
from edgekd.training.learner import Learner
from edgekd.training.loss_log import LossLog
from edgekd.training.monitor import imitation_flags
from edgekd.training.optimizer import build_optimizer
from edgekd.training.plan import Plan
from edgekd.training.precision import Precision, resolve_precision
from edgekd.training.progress import Progress
from edgekd.training.result import EpochRecord, TrainingResult
from edgekd.training.schedule import schedule_of
from edgekd.training.sources import (
    Batch,
    Sources,
    StoredAnswers,
    check_classes,
    features_over,
    plain_show,
)

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """What the best epoch leaves."""

    network: Weights
    heads: Weights


class Trainer:
    """A plan on its devices. One a process; with several processes each works on its share of every batch."""

    def __init__(self, fabric: Fabric, plan: Plan) -> None:
        """Move data and networks to the device.

        Raises:
            NetworkError: a network does not give one logit a class.
            UsageError: a term cannot work on these data in these batches.
        """
        self._fabric = fabric
        self._plan = plan
        self._train = load_split(plan.task, plan.task.train, fabric.device)
        self._background_C = torch.from_numpy(plan.task.background).to(fabric.device)
        self._network = plan.network.to(fabric.device)
        self._objective = plan.objective.to(fabric.device)
        plan.precision.lay_out_network(self._network)
        plan.precision.lay_out_network(self._objective)
        self._check_networks()
        self._steps = steps_per_epoch(len(self._train), plan.section.batch_size, processes=fabric.world_size)
        check_objective(plan.objective, plan.task, plan.section, processes=fabric.world_size)
        self._sources = self._open_sources()
        self._objective.prepare(Survey(self._train.y_N, self._features_over))
        self._learner = Learner(self._network, self._objective, plan.precision)
        self._judge = Judge(plan, self._learner, fabric.device)
        self._optimizer = build_optimizer(self._learner, plan.section)
        self._module, self._stepper = fabric.setup(self._learner, self._optimizer)
        self._schedule = schedule_of(plan.section, steps_per_epoch=self._steps)
        self._checkpoints = Checkpoints(plan.checkpoint_dir, form=self._form())

    def run(self, progress: Progress) -> TrainingResult:
        """Train every epoch that is left, and leave the best weights in the network.

        Raises:
            DivergedError: the loss or the validation loss is no longer finite.
            StorageError: a checkpoint cannot be written.
        """
        devices = [self._fabric.device] if self._fabric.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):  # the epochs seed torch for dropout; the caller's survives
                return self._run(progress)
        finally:
            self._learner.release()

    def _run(self, progress: Progress) -> TrainingResult:
        history, best, best_state = self._resume(progress)
        done = resumed_from = history[-1].epoch if history else None
        progress.on_start(self._epochs, done or 0)
        if best is None and self._plan.starts_trained:
            best, best_state = self._as_it_came(), self._state()
            history.append(best)
        judged_on = len(self._plan.task.validation.y)
        flags = imitation_flags(history, judged_on)
        for epoch in range((done or 0) + 1, self._epochs + 1):
            record = self._epoch(epoch, progress)
            history.append(record)
            if best is None or record.is_better_than(best):
                best, best_state = record, self._state()
            self._save(epoch, history, best, best_state)
            progress.on_epoch(record)
            known, flags = flags, imitation_flags(history, judged_on)
            for flag in flags[len(known) :]:
                progress.on_warning(flag)
        assert best is not None, "there is an epoch, or the network as it came"
        self._network.load_state_dict(best_state.network)
        return TrainingResult(
            best, tuple(history), resumed_from, str(self._plan.precision), best_state.heads, flags
        )

    @property
    def _epochs(self) -> int:
        return self._plan.section.epochs

    def _epoch(self, epoch: int, progress: Progress) -> EpochRecord:
        began = time.perf_counter()
        first_step = (epoch - 1) * self._steps
        log = LossLog(
            self._fabric,
            self._objective,
            epoch=epoch,
            epochs=self._epochs,
            first_step=first_step + 1,
            hint=self._hint(),
        )
        rank, processes = self._fabric.global_rank, self._fabric.world_size
        device, seed, drawn = self._fabric.device, self._plan.seed, self._drawn_in(epoch)
        torch.manual_seed(derive_seed(seed, "network", epoch, rank))
        views = torch.Generator(device)
        views.manual_seed(derive_seed(seed, "views", drawn, rank))
        order = epoch_order(len(self._train), steps=self._steps, seed=seed, epoch=drawn, device=device)
        self._objective.train()
        self._plan.phases.enter_training(self._network, epoch=epoch)
        for step, indices_B in enumerate(order):
            mine_B = share_of(indices_B, rank=rank, processes=processes)
            rate = self._schedule.learning_rate(first_step + step)
            batch = (drawn, step) if self._cycle else None
            log.add(self._step(mine_B, rate, views, epoch, batch))
            progress.on_step(step + 1, self._steps)
        loss, parts = log.means()
        judged = self._judged(epoch)
        rate = self._schedule.learning_rate(first_step + self._steps - 1)
        watched = self._judge.watch() if self._fabric.is_global_zero else None
        seconds = time.perf_counter() - began
        return EpochRecord(epoch, rate, loss, parts, judged.loss, judged.top1, seconds, judged.kl, watched)

    @property
    def _cycle(self) -> int:
        """Epochs after which batches come again; 0 for never."""
        return self._plan.section.view_cycle if isinstance(self._plan.section, Training) else 0

    def _drawn_in(self, epoch: int) -> int:
        """The epoch whose order and views this one has: itself, or one that comes again."""
        return (epoch - 1) % self._cycle + 1 if self._cycle else epoch

    def _step(
        self, indices_B: Tensor, rate: float, views: torch.Generator, epoch: int, batch: Batch | None
    ) -> Tensor:
        """One update of the weights; issues work to the device and does not wait for it."""
        x_RC = self._plan.precision.lay_out(self._show(self._train.x_NC[indices_B], views))
        sources = self._sources(indices_B, x_RC, batch)
        labels_B = self._train.y_N[indices_B]
        total, values_P = self._module(x_RC, labels_B, indices_B, sources, epoch=epoch, epochs=self._epochs)
        self._optimizer.zero_grad()
        self._fabric.backward(total)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._stepper.step()
        return values_P  # type: ignore[no-any-return]

    def _show(self, x_BC: Tensor, generator: torch.Generator) -> Tensor:
        augmentation, views = self._plan.task.augmentation, self._objective.views
        return make_views(x_BC, views, augmentation, generator, background_C=self._background_C)

    def _judged(self, epoch: int) -> Judgement:
        """The plan's judgement on the validation split; the first process judges for all.

        Raises:
            DivergedError: the loss is not finite.
        """
        judged: Judgement = Judgement(0.0, 0.0)
        if self._fabric.is_global_zero:
            self._plan.phases.enter_validation(self._network)
            self._objective.eval()
            judged = self._judge.judge()
        judged = self._fabric.broadcast(judged)
        if not math.isfinite(judged.loss):
            raise DivergedError(
                f"the validation loss became {judged.loss:g} after epoch {epoch}", hint=self._hint()
            )
        return judged

    def _open_sources(self) -> Sources:
        views = self._objective.views
        fixed = has_fixed_views(self._plan.task.augmentation, views)
        return Sources(
            self._plan.teachers,
            self._train,
            taps={name: self._objective.source_taps(name) for name in self._plan.teachers},
            views=views,
            fixed=plain_show(views, self._fabric.device) if fixed else None,
            precision=self._precision_of_teacher,
        )

    def _precision_of_teacher(self, network: nn.Module) -> Precision:
        """A network that only runs forward takes what is best for itself: a student may want fp32 alone."""
        section, task = self._plan.section, self._plan.task
        return resolve_precision(section.precision, task.input_shape, network)

    def _features_over(self, source: str, tap: str) -> Tensor:
        return features_over(self._plan.teachers[source], tap, self._train.x_NC)

    def _as_it_came(self) -> EpochRecord:
        began = time.perf_counter()
        judged = self._judged(0)
        seconds = time.perf_counter() - began
        return EpochRecord(0, 0.0, None, {}, judged.loss, judged.top1, seconds, judged.kl)

    def _state(self) -> State:
        """A copy of what the best epoch leaves, on the CPU."""
        return State(_copy(self._network), _copy(self._objective, without=self._objective.memory()))

    def _save(self, epoch: int, history: list[EpochRecord], best: EpochRecord, best_state: State) -> None:
        if self._fabric.is_global_zero:
            state = {
                "network": self._network.state_dict(),
                "objective": self._objective.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "history": [asdict(record) for record in history],
                "best": asdict(best),
                "best_network": best_state.network,
                "best_heads": best_state.heads,
            }
            self._checkpoints.save(epoch, state)

    def _resume(self, progress: Progress) -> tuple[list[EpochRecord], EpochRecord | None, State]:
        state = self._checkpoints.latest(progress.on_warning)
        if state is None:
            return [], None, State({}, {})
        self._network.load_state_dict(state["network"])
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])
        history = [EpochRecord(**record) for record in state["history"]]
        best_state = State(state["best_network"], state["best_heads"])
        return history, EpochRecord(**state["best"]), best_state

    def _form(self) -> str:
        """Digest of what this training is; see Checkpoints."""
        plan = self._plan
        shapes = {name: list(value.shape) for name, value in self._network.state_dict().items()}
        form: dict[str, Any] = {
            "section": plan.section.model_dump(mode="json"),
            "distillation": plan.objective.fingerprint,
            "task": plan.task.fingerprint,
            "augmentation": plan.task.augmentation.model_dump(mode="json"),
            "precision": str(plan.precision),
            "seed": plan.seed,
            "processes": self._fabric.world_size,
            "network": shapes,
            "watched": plan.watch is not None,
            **({"scheme": dict(plan.scheme)} if plan.scheme else {}),
        }
        return sha256_json(form)

    def _check_networks(self) -> None:
        example_BC = self._train.x_NC[:2]
        networks = {"the network that learns": self._network, **self._plan.teachers}
        for role, network in networks.items():
            if isinstance(network, StoredAnswers):
                network.check(len(self._train), len(self._plan.task.validation.y))
                continue
            device = next(network.parameters(), example_BC).device
            check_classes(network, example_BC.to(device), self._plan.task.num_classes, role=role)

    def _hint(self) -> str:
        rate = self._plan.section.learning_rate
        warmup = ", a longer warm-up" if isinstance(self._plan.section, Training) else ""
        return f"a learning_rate below {rate:g}{warmup}, or precision = 'fp32'"


def _copy(module: nn.Module, *, without: Container[str] = ()) -> dict[str, Tensor]:
    state = {name: value for name, value in module.state_dict().items() if name not in without}
    return {name: value.detach().cpu().clone() for name, value in state.items()}
