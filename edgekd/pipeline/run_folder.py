"""The run folder: finished stages kept under a key made of everything that they depend on.

RUN/run.json                 what this folder is: name, recipe, the current stages
RUN/recipe.toml              the recipe as the user wrote it
RUN/recipe.resolved.json     the same with every default filled in
RUN/stages/NAME-KEY/         a finished stage: its files and stage.json, which lists their digests
RUN/stages/NAME-KEY.work/    a stage under way: its checkpoints survive kill -9
RUN/bundles/PROFILE/RUNTIME/ what travels
RUN/report.json, report.md   the verdict and what it rests on
RUN/comparison.json, .md, .svg    the arms of `edgekd compare` side by side
RUN/arms.json, .md, .svg     those of `edgekd quantize --arms`
RUN/debug.json, debug.md     where a graph parts from what was trained, by `edgekd debug`
RUN/sensitivity.json         what `edgekd sensitivity` found
RUN/scheme.toml              the scheme that it found: to edit, never removed, not written over once edited
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgekd.documents.run import RunIndex, StageFile
from edgekd.errors import DocumentError, RunFolderError, StorageError
from edgekd.files import sha256_file, sha256_json, write_text

RUN_FILE = "run.json"
_STAGE_FILE = "stage.json"
_REPORTS = (
    *("report.json", "report.md"),
    *("comparison.json", "comparison.md", "comparison.svg"),
    *("arms.json", "arms.md", "arms.svg"),
    *("debug.json", "debug.md"),
    "sensitivity.json",
)

Ingredients = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A finished stage and its folder."""

    folder: Path
    file: StageFile
    reused: bool = False

    @property
    def digest(self) -> str:
        """Digest of the result's files: what later stages depend on."""
        return sha256_json(self.file.files)

    def path(self, name: str) -> Path:
        """A file of the result."""
        return self.folder / name

    def json(self, name: str) -> Any:
        """A JSON file of the result."""
        return json.loads(self.path(name).read_text())


class RunFolder:
    """A run folder, held by this process alone while the `with` block lasts.

    Raises:
        RunFolderError: the folder holds something else, or another process is at work in it.

    `recipe_sha256` is the digest of the recipe that is followed now; None goes on with the folder's own.
    """

    def __init__(
        self, path: Path, name: str, *, recipe_sha256: str | None = None, fresh: bool = False
    ) -> None:
        self.path = path
        self.name = name
        self._recipe_sha256 = recipe_sha256
        self._fresh = fresh
        self._lock: int | None = None
        self._current: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._claim()
        self._lock = _take_lock(self.path)
        if self._fresh:
            for part in ("stages", "bundles"):
                shutil.rmtree(self.path / part, ignore_errors=True)
            self._forget()
        else:
            self._take_up(RunIndex.read(self.path / RUN_FILE))
        return self

    def _take_up(self, index: RunIndex) -> None:
        try:
            self._refuse_other_name(index)
        except RunFolderError:
            self.__exit__(None, None, None)
            raise
        self._current = dict(index.stages)
        if self._recipe_sha256 not in (None, index.recipe_sha256):
            self._forget()
        self._recipe_sha256 = self._recipe_sha256 or index.recipe_sha256

    def _forget(self) -> None:
        """No stage is current, and there is no verdict: finished stages are found again by their keys."""
        self._current = {}
        for report in _REPORTS:
            (self.path / report).unlink(missing_ok=True)
        self._write_index()

    def _write_index(self) -> None:
        index = RunIndex(name=self.name, recipe_sha256=self._recipe_sha256, stages=self._current)
        index.write(self.path / RUN_FILE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)  # the kernel drops the lock with the descriptor, also after kill -9
            self._lock = None

    def check(self) -> None:
        """What would keep a run from starting here; writes nothing."""
        self._refuse_strangers()
        if (self.path / RUN_FILE).exists() and not self._fresh:
            self._refuse_other_name(RunIndex.read(self.path / RUN_FILE))

    def _refuse_strangers(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError("is a file", where=self.path, hint="choose another folder with --out")
        # A hidden file is a lock, or what a killed process left of a write.
        others = self.path.is_dir() and [one for one in self.path.iterdir() if not one.name.startswith(".")]
        if others and not (self.path / RUN_FILE).exists():
            raise RunFolderError(
                "holds other files and is no run folder",
                where=self.path,
                hint="choose a new folder with --out",
            )

    def _refuse_other_name(self, index: RunIndex) -> None:
        if index.name != self.name:
            raise RunFolderError(
                f"holds the run of another recipe, '{index.name}'",
                where=self.path,
                hint="choose another folder with --out, or --fresh",
            )

    def find(self, name: str, ingredients: Ingredients) -> Stage | None:
        """A finished stage with these ingredients, its files checked against their digests."""
        key = sha256_json({"stage": name, **ingredients})
        return read_stage(self._stage_folder(name, key))

    def make(self, name: str, ingredients: Ingredients, work: Callable[[Path], None]) -> Stage:
        """The stage with these ingredients: found, or made by `work` in a folder that outlives it."""
        stage = self.find(name, ingredients)
        if stage is None:
            stage = self._make(name, ingredients, work)
        self._record(name, stage.folder.name)
        return stage

    def _record(self, name: str, folder: str) -> None:
        """Note the stage's current result; a new one makes the results that followed the old one stale."""
        if self._current.get(name) == folder:
            return
        names = list(self._current)
        for stale in names[names.index(name) :] if name in names else ():
            del self._current[stale]
        self._current[name] = folder
        self._write_index()

    def _make(self, name: str, ingredients: Ingredients, work: Callable[[Path], None]) -> Stage:
        key = sha256_json({"stage": name, **ingredients})
        folder = self._stage_folder(name, key)
        scratch = folder.with_name(folder.name + ".work")
        scratch.mkdir(parents=True, exist_ok=True)
        _clear(scratch)
        began = time.monotonic()
        work(scratch)
        shutil.rmtree(scratch / "checkpoints", ignore_errors=True)
        file = StageFile(
            name=name,
            key=key,
            ingredients=dict(ingredients),
            seconds=round(time.monotonic() - began, 3),
            files=_digests(scratch),
        )
        file.write(scratch / _STAGE_FILE)
        shutil.rmtree(folder, ignore_errors=True)  # only a damaged result can be there
        scratch.replace(folder)
        return Stage(folder, file)

    def _stage_folder(self, name: str, key: str) -> Path:
        return self.path / "stages" / f"{name}-{key[:16]}"

    def _claim(self) -> None:
        """Create the folder, or accept one that is empty or a run folder already."""
        self._refuse_strangers()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / RUN_FILE).exists():
                RunIndex(name=self.name).write(self.path / RUN_FILE)
        except OSError as error:
            raise StorageError(
                f"cannot create the run folder: {error.strerror}",
                where=self.path,
                hint="choose another with --out",
            ) from error


def _clear(scratch: Path) -> None:
    """Only checkpoints outlive an interruption: anything else would become part of the result."""
    for path in scratch.iterdir():
        if path.name == "checkpoints":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def read_stage(folder: Path) -> Stage | None:
    """A finished stage, or None when it is missing or any of its files is not what was written."""
    if not (folder / _STAGE_FILE).is_file():
        return None
    try:
        file = StageFile.read(folder / _STAGE_FILE)
        whole = _digests(folder) == file.files
    except (DocumentError, OSError):
        return None
    return Stage(folder, file, reused=True) if whole else None


def read_run(path: Path) -> tuple[RunIndex, dict[str, Stage]]:
    """A run folder's index and its current stages, for commands that only read.

    Raises:
        RunFolderError: it is no run folder, or a stage is missing or damaged.
    """
    if not (path / RUN_FILE).is_file():
        raise RunFolderError(
            "is no run folder", where=path, hint="edgekd compress RECIPE --out RUN makes one"
        )
    index = RunIndex.read(path / RUN_FILE)
    stages = {name: read_stage(path / "stages" / folder) for name, folder in index.stages.items()}
    damaged = [name for name, stage in stages.items() if stage is None]
    if damaged:
        raise RunFolderError(
            f"the stage {damaged[0]} is missing or was altered", where=path, hint="run edgekd compress again"
        )
    return index, {name: stage for name, stage in stages.items() if stage is not None}


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return {name: sha256_file(folder / name) for name in names if name != _STAGE_FILE}


def _take_lock(path: Path) -> int:
    handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 64).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise RunFolderError(
            f"process {holder} is at work in this folder",
            where=path,
            hint="wait for it, end it, or choose another folder with --out",
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def keep_recipe(path: Path, text: str, resolved_json: str) -> None:
    """Keep the recipe as it was written and as it was resolved."""
    write_text(path / "recipe.toml", text)
    write_text(path / "recipe.resolved.json", resolved_json)
