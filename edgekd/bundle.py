"""The bundle: one folder that travels to a device and tells a stranger all that is needed to run the student.

model.onnx  manifest.json  spec.json  recipe.json  evaluation/{inputs,labels}.npy  kit/
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edgekd.documents.manifest import Manifest
from edgekd.documents.recipe import Recipe
from edgekd.documents.spec import Spec
from edgekd.errors import BundleError, DocumentError, StorageError
from edgekd.files import sha256_file
from edgekd.shipped import shipped

MANIFEST = "manifest.json"


def write_bundle(
    folder: Path,
    *,
    graph: Path,
    inputs: Path,
    labels: Path,
    spec: Spec,
    recipe: Recipe,
    manifest: Manifest,
) -> Manifest:
    """Write a whole bundle; an older one of the same place is moved away first.

    Killed between the two moves there is no bundle, never half of one; the next run writes it again.

    `manifest.files` is filled in here with the digest of everything that lies beside the graph.

    Raises:
        StorageError: the disk is full or the folder is not writable.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            _fill(new, graph=graph, inputs=inputs, labels=labels)
            spec.write(new / "spec.json")
            recipe.write(new / "recipe.json")
            manifest = manifest.model_copy(update={"files": _digests(new, exclude=manifest.graph)})
            manifest.write(new / MANIFEST)
            if folder.exists():
                folder.replace(Path(scratch) / "old")
            new.replace(folder)
    except OSError as error:
        raise StorageError(
            f"cannot write the bundle: {error.strerror or error}", where=folder, hint="free some space"
        ) from error
    return manifest


def read_bundle(folder: Path) -> Manifest:
    """Read a bundle and check that it is whole: every file is there, with its digest, and nothing else.

    Raises:
        BundleError: there is no bundle, or it is incomplete or altered; names the first such file.
        DocumentError: the manifest is not valid.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"is no bundle: it holds no {MANIFEST}", where=folder, hint="point to RUN/bundles/PROFILE/RUNTIME"
        )
    manifest = Manifest.read(folder / MANIFEST)
    for name, digest in {manifest.graph: manifest.sha256, **manifest.files}.items():
        _check_file(folder, name, digest)
    strangers = set(_digests(folder, exclude=manifest.graph)) - set(manifest.files) - {MANIFEST}
    if strangers:
        raise BundleError(
            f"{sorted(strangers)[0]} is not in the manifest", where=folder, hint="export the bundle again"
        )
    return manifest


def is_current(folder: Path, manifest: Manifest) -> bool:
    """Whether a whole bundle with this manifest and this version of the kit is there already."""
    try:
        found = read_bundle(folder)
    except (BundleError, DocumentError):
        return False
    kit = {f"kit/{name}": digest for name, digest in _digests(shipped("export", "kit")).items()}
    same_kit = kit == {name: digest for name, digest in found.files.items() if name.startswith("kit/")}
    return same_kit and found.model_copy(update={"files": {}}) == manifest.model_copy(update={"files": {}})


def _fill(folder: Path, *, graph: Path, inputs: Path, labels: Path) -> None:
    (folder / "evaluation").mkdir(parents=True)
    shutil.copyfile(graph, folder / "model.onnx")
    shutil.copyfile(inputs, folder / "evaluation" / "inputs.npy")
    shutil.copyfile(labels, folder / "evaluation" / "labels.npy")
    shutil.copytree(shipped("export", "kit"), folder / "kit", ignore=shutil.ignore_patterns("__pycache__"))


def _digests(folder: Path, *, exclude: str = "") -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = [path.relative_to(folder).as_posix() for path in files]
    return {name: sha256_file(folder / name) for name in names if name not in (exclude, MANIFEST)}


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{name} is missing", where=folder, hint="copy the whole folder again")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{name} points outside the bundle", where=folder)
    if sha256_file(path) != digest:
        raise BundleError(
            f"{name} is not the file that was exported: its digest differs from the manifest's",
            where=folder,
            hint="copy the whole folder again, or export it anew",
        )
