"""Weights in files: safetensors, or a torch file that loads with weights_only=True. No file can run code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  (only the error's class: torch raises it, nothing is unpickled here)

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgekd.errors import NetworkError
from edgekd.files import write_bytes

_WRAPPERS = ("state_dict", "model")
_PREFIX = "module."  # what DataParallel and DDP put before every name
_CLASSES = "classes"


def save_weights(network: nn.Module, path: Path, *, classes: Sequence[str] = ()) -> None:
    """Write the network's parameters and buffers as safetensors, atomically.

    Args:
        network: whose.
        path: the file.
        classes: names of the classes in the order of the logits, kept in the file's metadata.

    Raises:
        StorageError: the file cannot be written.
    """
    # Copies: safetensors takes neither shared nor strided memory (tied weights, channels_last).
    state = network.state_dict()
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    metadata = {_CLASSES: json.dumps(list(classes))} if classes else None
    write_bytes(path, safetensors.torch.save(copies, metadata))


def load_weights(network: nn.Module, path: Path, *, classes: Sequence[str] = ()) -> None:
    """Load weights into the network, in place; every name and shape must fit, or nothing is changed.

    Where `classes` are given and the file says for which classes its weights are, these must be the same.

    Reads .safetensors, anything else as a torch file; takes weights wrapped as {"state_dict": ...} or
    {"model": ...}, and names that all begin with "module.".

    Raises:
        NetworkError: the file is missing, unreadable, or holds other things than tensors; or they do not fit.
    """
    state = _unwrap(_read(path), path)
    _check_classes(path, classes)
    _check_fit(network, state, path)
    _check_finite(state, path)
    network.load_state_dict(state)


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(path.read_bytes())
        return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise NetworkError("there is no such weights file", where=path) from None
    except UnpicklingError as error:
        raise NetworkError(
            "is no file of weights, or holds Python objects besides tensors, which could run code: refused",
            where=path,
            hint="save the weights alone: safetensors.torch.save_file(network.state_dict(), PATH)",
        ) from error
    except Exception as error:  # a parser that is given a damaged file may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise NetworkError(f"cannot be read as weights: {reason}", where=path) from error


def _check_classes(path: Path, classes: Sequence[str]) -> None:
    """See that the file, where it names classes, names these."""
    found = _classes_of(path) if classes else None
    if found is None or list(found) == list(classes):
        return
    pairs = enumerate(zip(found, classes, strict=False))
    place = next((place for place, (own, wanted) in pairs if own != wanted), None)
    if place is None:
        difference = f"it has {len(found)} classes, the task has {len(classes)}"
    else:
        difference = f"its class {place} is '{found[place]}', the task's is '{classes[place]}'"
    raise NetworkError(
        f"was trained for other classes, or in another order: {difference}",
        where=path,
        hint="give weights for the task's classes, in their order",
    )


def _classes_of(path: Path) -> list[str] | None:
    """The names of the classes that a file is for, where it is a .safetensors that says so."""
    if path.suffix != ".safetensors":
        return None
    with safetensors.safe_open(path, framework="pt") as file:
        noted = (file.metadata() or {}).get(_CLASSES)
    try:
        found = json.loads(noted) if noted is not None else None
    except ValueError:
        return None  # someone else's note
    return [str(name) for name in found] if isinstance(found, list) else None


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise NetworkError(f"holds a {type(content).__name__}; named tensors are wanted", where=path)
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise NetworkError(f"'{name}' is a {type(value).__name__}; a tensor is wanted", where=path)
    state = {str(name): value for name, value in content.items()}
    if all(name.startswith(_PREFIX) for name in state):
        return {name.removeprefix(_PREFIX): value for name, value in state.items()}
    return state


def _check_fit(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"'{name}' is {tuple(state[name].shape)} in the file, {tuple(wanted[name].shape)} in the network"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [
        *([f"{len(missing)} missing, first '{missing[0]}'"] if missing else []),
        *([f"{len(unexpected)} unexpected, first '{unexpected[0]}'"] if unexpected else []),
        *([f"{len(shapes)} of another shape, first {shapes[0]}"] if shapes else []),
    ]
    if problems:
        raise NetworkError(
            f"does not fit the network ({len(wanted)} tensors): " + "; ".join(problems),
            where=path,
            hint="check the network's name, its args and the number of classes",
        )


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise NetworkError(f"holds values that are not finite, first in '{bad[0]}'", where=path)
