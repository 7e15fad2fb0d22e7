"""What every stage is given: the recipe, where its paths start, the run folder, and someone to tell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgekd.devices.local import LOCAL_ADDRESS
from edgekd.documents.recipe import Recipe, Target
from edgekd.errors import UsageError
from edgekd.extras import require
from edgekd.pipeline.run_folder import Ingredients, RunFolder, Stage


class Listener(Protocol):
    """Hears how a run goes on. The library itself never prints."""

    def stage_started(self, name: str, what: str) -> None:
        """A stage is about to be made."""

    def stage_finished(self, name: str, stage: Stage) -> None:
        """A stage is there, made or found."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def training(self, name: str) -> Any:
        """The edgekd.training.progress.Progress that hears the epochs of a training stage."""


class NotDoneError(Exception):
    """Ends a dry run at the first stage that would have to be made; what follows depends on its result."""


@dataclass(frozen=True)
class Context:
    """What every stage is given."""

    recipe: Recipe
    base_dir: Path
    folder: RunFolder
    listener: Listener
    dry_run: bool = False
    torch_tensorrt: bool = False
    """Whether the student is compiled by Torch-TensorRT too, for the GPU at hand."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where the devices are: profile of a target to address; this machine where none is given."""

    def address_of(self, target: Target) -> str:
        """Where a target is measured."""
        return self.addresses.get(target.profile, LOCAL_ADDRESS)

    def make(self, name: str, what: str, ingredients: Ingredients, work: Callable[[Path], None]) -> Stage:
        """Make or find a stage, and say so.

        Raises:
            NotDoneError: it is a dry run and the stage would have to be made.
        """
        found = self.folder.find(name, ingredients)
        if self.dry_run:
            if found is None:
                raise NotDoneError(name)
            return found
        if found is None:
            self.listener.stage_started(name, what)
        stage = self.folder.make(name, ingredients, work)
        self.listener.stage_finished(name, stage)
        return stage


def section(value: Any, *, without: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """A recipe section as ingredients of a stage, less the keys that do not change its result."""
    data: dict[str, Any] = value.model_dump(mode="json")
    return {key: item for key, item in data.items() if key not in without}


def read_recipe(path: Path) -> tuple[Recipe, str]:
    """A recipe and its text.

    Raises:
        DocumentError: it is missing or not valid.
        UsageError: it is not a .toml file.
    """
    if path.suffix != ".toml":
        raise UsageError("a recipe is a .toml file", where=path, hint="edgekd init digits my.toml writes one")
    recipe = Recipe.read(path)
    return recipe, path.read_text(encoding="utf-8")


def learning_recipe(path: Path) -> tuple[Recipe, str]:
    """A recipe that networks will be trained by, and its text; its folder can be imported from afterwards.

    Raises:
        DocumentError: it is missing or not valid.
        UsageError: it is not a .toml file.
        MissingError: torch is not installed.
    """
    recipe, text = read_recipe(path)
    require("torch", extra="train", for_what="training and exporting")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # where python:package.module:function looks last
    return recipe, text
