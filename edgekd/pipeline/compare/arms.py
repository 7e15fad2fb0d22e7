"""The arms of a comparison, as they are asked for: `kd`, `kd:temperature=2:weight=1`, `kd+nd`, `recipe`.

An arm is an objective with a teacher. Two are controls and always there: `ce`, which learns from the labels
alone, and `random-teacher`, which learns what `kd` does from a teacher that was never trained.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from edgekd.documents.base import nearest
from edgekd.documents.change import change
from edgekd.documents.methods import METHODS, POLICIES
from edgekd.documents.recipe import Distillation, Recipe
from edgekd.documents.terms import Term
from edgekd.errors import DocumentError

CE, KD, RANDOM_TEACHER, RECIPE = "ce", "kd", "random-teacher", "recipe"
CONTROLS = (CE, RANDOM_TEACHER)
GUIDED, GUIDE = "guided", "kd-only"
NAMES = (*METHODS, RANDOM_TEACHER, RECIPE)


@dataclass(frozen=True)
class Arm:
    """One way of training the student."""

    name: str
    """As it was asked for."""
    objective: Distillation
    trained_teacher: bool = True
    """Whether the teacher was trained, or left as it was drawn."""
    guide: Arm | None = None
    """The arm without labels whose answers, beside those of the labels alone, set the weights of this one."""

    def stage(self, seed: int) -> str:
        """Name of the stage of one of its trainings."""
        return f"compare-{re.sub(r'[^A-Za-z0-9.+=_-]+', '-', self.name)[:80]}-seed{seed}"

    def weighted(self, label_weight: float) -> Distillation:
        """The objective with the labels and the teacher at weights that add up to one."""
        terms = (self.objective.terms[0].model_copy(update={"weight": 1 - label_weight}),)
        return self.objective.model_copy(update={"label_weight": label_weight, "terms": terms})


def read_arms(asked: str, recipe: Recipe) -> tuple[Arm, ...]:
    """The controls, then the arms that are asked for, separated by commas, each once.

    Raises:
        DocumentError: with every arm and key that is wrong, a line each.
    """
    reader = _Reader(recipe)
    arms = [reader.arm(name) for name in dict.fromkeys([*CONTROLS, *_split(asked)])]
    if reader.problems:
        raise DocumentError("--terms", reader.problems, hint="edgekd methods list names the methods")
    in_order = [one for arm in arms for one in (arm.guide, arm) if one is not None]
    return tuple({arm.name: arm for arm in in_order}.values())


class _Reader:
    """Reads arms, and collects what is wrong with them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.problems: list[str] = []

    def arm(self, name: str) -> Arm:
        """The arm of a name; one with a problem is not to be used."""
        method = name.partition(":")[0]
        if name == RECIPE:
            return Arm(name, self._recipe.distillation)
        if name == RANDOM_TEACHER:
            return Arm(name, self._in_recipe(self._published(KD)), trained_teacher=False)
        if method == GUIDED and "+" not in name:
            return self._guided(name)
        return Arm(name, self._in_recipe(self._sum(name)))

    def _guided(self, name: str) -> Arm:
        """The arm that finds its weights, and the one from the teacher alone, with the same options."""
        if re.search(r":(kd\.)?(label_)?weight=", name):
            self._problem(name, "its two weights are what it finds; they cannot be set")
        arm = Arm(name, self._in_recipe(self._method(name, arm=name)))
        return replace(arm, guide=Arm(name.replace(GUIDED, GUIDE, 1), arm.weighted(0.0)))

    def _sum(self, name: str) -> Distillation:
        """The union of the methods' terms, with the label_weight of the first.

        Of the terms of one kind, such as the KD that stands in two of the methods, the first one counts.
        """
        parts = re.split(r"\+(?=[A-Za-z])", name)
        methods = [part.partition(":")[0] for part in parts]
        for method in dict.fromkeys(methods):
            if methods.count(method) > 1:
                self._problem(name, f"'{method}' is named twice")
            if len(parts) > 1 and method in (RECIPE, RANDOM_TEACHER, GUIDED):
                self._problem(name, f"'{method}' cannot be combined")
        self._check_kinds(name, dict.fromkeys(methods))
        objectives = [self._method(part, arm=name) for part in parts]
        terms: dict[str, Term] = {}
        for objective in objectives:
            terms |= {term.kind: term for term in objective.terms if term.kind not in terms}
        return objectives[0].model_copy(update={"terms": tuple(terms.values())})

    def _check_kinds(self, name: str, methods: Iterable[str]) -> None:
        """Methods that differ in the keys of one term cannot both count."""
        named: dict[str | None, str] = {}
        for method in methods:
            kind = METHODS[method].kind if method in METHODS else None
            first = named.setdefault(kind, method)
            if kind is not None and first != method:
                self._problem(name, f"'{first}' and '{method}' are one term, '{kind}', with other keys")

    def _method(self, text: str, *, arm: str) -> Distillation:
        """The published objective of one method, with its options."""
        name, *options = text.split(":")
        if name in (RECIPE, RANDOM_TEACHER):
            if options:
                self._problem(arm, f"'{name}' takes no options")
            return Distillation()
        if name not in METHODS:
            policy = f"'{name}' says who teaches, in a recipe, and is no arm"
            unknown = f"there is no method '{name}'{nearest(name, NAMES)}"
            self._problem(arm, policy if name in POLICIES else unknown)
            return Distillation()
        keys = [option.partition("=")[0] for option in options]
        for key in dict.fromkeys(keys):
            if keys.count(key) > 1:
                self._problem(arm, f"{key}: given twice")
        changes = {key: _value(value) for key, _, value in (option.partition("=") for option in options)}
        objective, problems = change(self._published(name), METHODS[name].kind, changes)
        for problem in problems:
            self._problem(arm, problem)
        return objective

    def _published(self, name: str) -> Distillation:
        teacher, student = self._recipe.teacher, self._recipe.student
        return METHODS[name].objective_for(teacher.network, student.network, student.training.epochs)

    def _in_recipe(self, objective: Distillation) -> Distillation:
        """With what is no matter of the method: the part of the data that every arm learns from."""
        return objective.model_copy(update={"data_fraction": self._recipe.distillation.data_fraction})

    def _problem(self, arm: str, what: str) -> None:
        self.problems.append(f"arm '{arm}': {what}")


def _split(asked: str) -> list[str]:
    """The arms between the commas; those within the brackets of a value separate nothing."""
    parts, depth = [""], 0
    for character in asked:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _value(text: str) -> Any:
    """A value as TOML has it; what is none is a string, so that quotes can be left out."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str | list | dict) else text
