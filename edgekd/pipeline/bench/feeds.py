"""What a graph is fed: its inputs by name, files of a user's, or values that are made up."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekd.errors import UsageError

MADE_UP = 16
"""Batches of made-up inputs."""
MAX_BATCH_ELEMENTS = 2**24
"""Of a batch that is made up: 16 of them in float64 take 2 GiB, and a stranger's graph chooses the shape."""
_HINT = "--inputs takes a .npy, batch first; a graph of several inputs takes a .npz, one array an input"


@dataclass(frozen=True)
class GraphInput:
    """A tensor that a graph is fed."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """Sizes, batch first; 0 where the graph leaves one free."""

    @property
    def batch(self) -> int:
        """The batch that the graph fixes; 0 for a free one."""
        return self.shape[0] if self.shape else 1

    @property
    def fed(self) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
        """What must be the same of two graphs that are fed alike, whatever their batch."""
        return self.name, self.dtype, self.shape[1:]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} ({', '.join(str(size or '?') for size in self.shape)})"


def graph_inputs(model: onnx.ModelProto, where: Path) -> tuple[GraphInput, ...]:
    """The inputs of a graph, without its constants.

    Raises:
        UsageError: one is no tensor of numbers.
    """
    constants = {initializer.name for initializer in model.graph.initializer}
    return tuple(_input(value, where) for value in model.graph.input if value.name not in constants)


def _input(value: onnx.ValueInfoProto, where: Path) -> GraphInput:
    tensor = value.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError, ValueError):
        dtype = np.dtype(object)
    if not value.type.HasField("tensor_type") or dtype.kind not in "fiub":
        raise UsageError(
            f"its input {value.name} is no tensor of numbers",
            where=where,
            hint="bench feeds tensors of numbers",
        )
    return GraphInput(value.name, dtype, tuple(max(0, dim.dim_value) for dim in tensor.shape.dim))


def check_inputs(path: Path, wants: tuple[GraphInput, ...], batch_size: int) -> None:
    """Check that a file of inputs fits a graph and holds a batch.

    Raises:
        UsageError: it does not.
    """
    arrays = _arrays(path)
    if len(wants) == 1 and None in arrays:
        _check_one(arrays[None], wants[0], batch_size, path)
        return
    missing = [one.name for one in wants if one.name not in arrays]
    strange = [str(name) for name in arrays if name not in {one.name for one in wants}]
    if missing or strange:
        named = "; ".join(
            [*(f"{name} is missing" for name in missing), *(f"{name} is no input" for name in strange)]
        )
        raise UsageError(
            f"does not hold the graph's inputs: {named}",
            where=path,
            hint=f"the graph takes {', '.join(map(str, wants))}; {_HINT}",
        )
    counts = {len(arrays[one.name]) if arrays[one.name].ndim else 0 for one in wants}
    if len(counts) != 1 or 0 in counts:
        raise UsageError("holds arrays of different numbers of feeds", where=path, hint=_HINT)
    for one in wants:
        found = arrays[one.name]
        if found.dtype != one.dtype or not _fits(found.shape[1:], one.shape):
            raise UsageError(f"holds {found.dtype} {found.shape} for {one}, feeds first", where=path)


def _arrays(path: Path) -> Mapping[str | None, np.ndarray]:
    """The arrays of a file by name; that of a .npy has none."""
    if not path.is_file():
        raise UsageError("there is no such file of inputs", where=path, hint=_HINT)
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = (
            {None: found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
        )
    except (OSError, ValueError, EOFError, AttributeError, KeyError) as error:
        raise UsageError(f"is no file of numbers: {error}", where=path, hint=_HINT) from None
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise UsageError("is no file of numbers", where=path, hint=_HINT)
    return arrays


def _check_one(x_NX: np.ndarray, wants: GraphInput, batch_size: int, path: Path) -> None:
    if x_NX.ndim < 1 or len(x_NX) == 0:
        raise UsageError("holds no inputs", where=path, hint=_HINT)
    if x_NX.dtype != wants.dtype or not _fits(x_NX.shape[1:], wants.shape[1:]):
        sizes = ", ".join(str(size or "?") for size in wants.shape[1:])
        raise UsageError(
            f"holds {x_NX.dtype} {x_NX.shape}; the graph takes {wants.dtype} (N, {sizes})", where=path
        )
    if len(x_NX) < batch_size:
        raise UsageError(f"holds {len(x_NX)} inputs; a batch has {batch_size}", where=path)


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(
        size in (0, got) for size, got in zip(wanted, found, strict=True)
    )


def made_up(wants: tuple[GraphInput, ...], batch_size: int, stem: Path, where: Path) -> tuple[Path, str]:
    """Standard normal inputs, zeros for integers and truths; the file, and what to say of it.

    Raises:
        UsageError: a shape is too large, or not known.
    """
    chance = np.random.default_rng(0)
    if len(wants) == 1 and wants[0].shape:
        shape = (batch_size, *wants[0].shape[1:])
        _check_size(shape, where)
        path = stem.with_name(stem.name + ".npy")
        np.save(path, _values(chance, (MADE_UP * batch_size, *shape[1:]), wants[0].dtype))
    else:
        path = stem.with_name(stem.name + ".npz")
        for one in wants:
            _check_size(one.shape, where)
        _write_npz(path, {one.name: _values(chance, (MADE_UP, *one.shape), one.dtype) for one in wants})
    kinds = "random (standard normal)" if all(one.dtype.kind == "f" for one in wants) else "random and zeros"
    return path, f"the inputs are {kinds}: latency is measured, accuracy is not"


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As numpy.savez, which takes no array of the name `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _check_size(shape: tuple[int, ...], where: Path) -> None:
    if not all(shape):
        raise UsageError(
            "the shape of an example is not fixed in the graph", where=where, hint=f"give one: {_HINT}"
        )
    if math.prod(shape) > MAX_BATCH_ELEMENTS:
        raise UsageError(
            f"a batch of shape {shape} is too large to make up", where=where, hint=f"give one: {_HINT}"
        )


def _values(chance: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind != "f":
        return np.zeros(shape, dtype)
    return chance.standard_normal(shape).astype(dtype)
