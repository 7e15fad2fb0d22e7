"""From the stages of a comparison to its findings. Needs no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.common import Interval
from edgekd.documents.comparison import ArmResult, Difference, Finding, SeedResult
from edgekd.pipeline.compare.arms import CE, KD, RANDOM_TEACHER, Arm
from edgekd.pipeline.prove import load_array
from edgekd.pipeline.run_folder import Stage
from edgekd.stats import paired_difference
from edgekd.units import format_points

CORRECT = "correct.npy"
"""In a stage of answers: which answers on the test split are right, (N,) bool."""
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Training:
    """One finished training of an arm."""

    seed: int
    student: Stage
    answers: Stage
    label_weight: float | None = None
    """Factor of the labels where it was found for this seed."""


@dataclass(frozen=True)
class Trained:
    """An arm with all its trainings, in the order of the seeds."""

    arm: Arm
    trainings: tuple[Training, ...]
    heads: tuple[Stage, ...] = ()
    """The heads on the teacher that its terms read."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All its stages."""
        return (*self.heads, *(stage for one in self.trainings for stage in (one.student, one.answers)))

    def correct(self) -> NDArray[np.bool_]:
        """Which answers on the test split are right, seed by seed, (S, N)."""
        return np.stack([correct_in(training.answers) for training in self.trainings])


def correct_in(answers: Stage) -> NDArray[np.bool_]:
    """Which answers on the test split are right, (N,)."""
    correct: NDArray[np.bool_] = load_array(answers.path(CORRECT))
    return correct


def judge(arms: Sequence[Trained]) -> tuple[tuple[ArmResult, ...], tuple[str, ...]]:
    """The results of the arms beside each other, and the flags that they raise."""
    by_name = {trained.arm.name: trained for trained in arms}
    flags = [flag for trained in arms for flag in _flags_of(trained)]
    return tuple(_result(trained, by_name) for trained in arms), (*_control_flags(by_name), *flags)


def _result(trained: Trained, by_name: Mapping[str, Trained]) -> ArmResult:
    seeds = tuple(map(_seed, trained.trainings))
    tops = [one.test_top1 for one in seeds]
    others = [by_name[name] for name in (CE, KD) if name in by_name and name != trained.arm.name]
    return ArmResult(
        name=trained.arm.name,
        teacher=_teacher(trained.arm),
        objective=trained.arm.objective,
        seeds=seeds,
        test_top1=statistics.fmean(tops),
        spread=statistics.stdev(tops) if len(tops) > 1 else None,
        seconds=statistics.fmean(one.seconds for one in seeds),
        head_seconds=sum(stage.file.seconds for stage in trained.heads),
        differences=tuple(difference(trained, other) for other in others),
    )


def difference(trained: Trained, other: Trained) -> Difference:
    """One arm beside another, seed by seed and example by example."""
    found = paired_difference(other.correct(), trained.correct(), (1 + _CONFIDENCE) / 2)
    finding: Finding = "above" if found.lower > 0 else "below" if found.upper < 0 else "cannot tell"
    return Difference(
        to=other.arm.name,
        mean=found.mean,
        interval=Interval(lower=found.lower, upper=found.upper, confidence=_CONFIDENCE),
        degrees=found.degrees,
        seed_error=found.seed_error,
        example_error=found.example_error,
        finding=finding,
    )


def _seed(training: Training) -> SeedResult:
    result: dict[str, Any] = training.student.json("result.json")
    return SeedResult(
        seed=training.seed,
        test_top1=float(correct_in(training.answers).mean()),
        validation_top1=result["validation_top1"],
        best_epoch=result["best_epoch"],
        seconds=sum(record["seconds"] for record in result["history"]),
        label_weight=training.label_weight,
    )


def _teacher(arm: Arm) -> Any:
    if not arm.objective.needs_teacher:
        return "none"
    return "trained" if arm.trained_teacher else "untrained"


def _flags_of(trained: Trained) -> list[str]:
    """What the trainings themselves flagged."""
    return [
        f"{trained.arm.name}, seed {one.seed}: {flag}"
        for one in trained.trainings
        for flag in one.student.json("result.json")["flags"]
    ]


def _control_flags(by_name: Mapping[str, Trained]) -> list[str]:
    """The control of the random-teacher paper: what a trained teacher gives beyond an untrained one."""
    if KD not in by_name or RANDOM_TEACHER not in by_name:
        return []
    beyond = difference(by_name[KD], by_name[RANDOM_TEACHER])
    if beyond.finding == "above":
        return []
    lower, upper = (100 * end for end in (beyond.interval.lower, beyond.interval.upper))
    return [
        f"a trained teacher is not shown to help here: {KD} is at {format_points(beyond.mean)} to "
        f"{RANDOM_TEACHER} ({lower:+.2f} to {upper:+.2f})"
    ]
