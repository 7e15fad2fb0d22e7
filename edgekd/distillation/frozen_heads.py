"""What the heads on the frozen teacher learn by, before the student: the teacher stands in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import assert_never

from torch import Tensor

from edgekd.distillation.frozen import HeadTerm
from edgekd.distillation.hsakd import HSAKDHead
from edgekd.distillation.objective import Objective, Part, check_term
from edgekd.distillation.setting import Setting, State
from edgekd.distillation.sskd import SSKDHead
from edgekd.distillation.step import TEACHER
from edgekd.documents.recipe import Distillation
from edgekd.documents.terms.pretext import HSAKDTerm, SSKDTerm
from edgekd.errors import UsageError

HeadedTerm = SSKDTerm | HSAKDTerm


def headed_terms(distillation: Distillation) -> list[HeadedTerm]:
    """The terms of an objective that need a head on the frozen teacher, one of a kind.

    Raises:
        UsageError: two of a kind ask for different heads.
    """
    found: dict[str, HeadedTerm] = {}
    for section in distillation.terms:
        if not isinstance(section, SSKDTerm | HSAKDTerm) or not (section.weight and section.needs_head):
            continue
        first = found.setdefault(section.kind, section)
        if first.head() != section.head():
            raise UsageError(
                "stands twice in the objective, and asks for two different heads on the teacher",
                where=f"term {section.kind}",
                hint="give both the same head_training and the same taps of the teacher",
            )
    return list(found.values())


def build_head_objective(section: HeadedTerm, setting: Setting) -> Objective:
    """What the head of a term learns by on the frozen teacher, with constant weight.

    Args:
        section: the term's.
        setting: that of the student's training; its teacher is needed, its student is not.

    Raises:
        UsageError: there is no teacher, or it or the task lacks a tap or a view.
    """
    teacher = setting.source(TEACHER, wanted_by=section.kind)
    setting = dataclasses.replace(setting, student=teacher)
    term = _head_term(section, setting)
    check_term(term, section.kind, setting)
    constant = section.without_schedule().model_copy(update={"weight": 1.0})
    return Objective([Part(section.kind, 1.0, term, constant)])


def head_state(section: HeadedTerm, state: State) -> dict[str, Tensor]:
    """The head's part of the state of its objective."""
    prefix = f"terms.{section.kind}.head."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def untrained_heads(distillation: Distillation, setting: Setting) -> Mapping[str, State]:
    """Heads as they come, by kind: enough to find what would keep an objective from being built.

    Raises:
        UsageError: there is no teacher, or it or the task lacks a tap or a view.
    """
    return {
        section.kind: head_state(section, build_head_objective(section, setting).state_dict())
        for section in headed_terms(distillation)
    }


def _head_term(section: HeadedTerm, setting: Setting) -> HeadTerm:
    match section:
        case SSKDTerm():
            return SSKDHead(section, setting)
        case HSAKDTerm():
            return HSAKDHead(section, setting)
        case _:
            assert_never(section)
