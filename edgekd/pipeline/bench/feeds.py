"""What a graph is fed: its inputs by name, files of a user's, or values that are made up."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekd.errors import UsageError
from edgekd.files import sha256_json, write_bytes

MADE_UP = 16
"""Most batches of made-up inputs."""
MADE_UP_ELEMENTS = 2**24
"""Most numbers in all of them, 128 MiB in float64: a stranger's graph chooses the shape, a board gets it."""
_ARCHIVE = b"PK"
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
        UsageError: one is no tensor of numbers, or its rank is not known.
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
            f"its input {value.name} is {_kind(value)}",
            where=where,
            hint="bench feeds tensors of truths, integers, float16, float32 or float64",
        )
    if not tensor.HasField("shape"):
        raise UsageError(
            f"its input {value.name} has no shape", where=where, hint="export it with the rank of each input"
        )
    return GraphInput(value.name, dtype, tuple(max(0, dim.dim_value) for dim in tensor.shape.dim))


def _kind(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return f"a {(value.type.WhichOneof('value') or 'value').removesuffix('_type')}, no tensor"
    return f"a tensor of {onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)}"


def input_like(path: Path) -> GraphInput:
    """The input of which a .npy holds examples, batch first.

    Raises:
        UsageError: it is no .npy of numbers.
    """
    found = _arrays(path).get(None)
    if found is None or found.ndim < 1 or len(found) == 0:
        raise UsageError("holds no inputs", where=path, hint=_HINT)
    return GraphInput("input", found.dtype, (0, *found.shape[1:]))


def check_inputs(path: Path, wants: tuple[GraphInput, ...], batch_size: int) -> None:
    """Check that a file of inputs fits a graph and holds a batch.

    Raises:
        UsageError: it does not.
    """
    arrays = _arrays(path)
    if len(wants) == 1 and None in arrays:
        _check_one(arrays[None], wants[0], batch_size, path)
        return
    if not wants:
        raise UsageError("the graph takes no inputs", where=path, hint="leave --inputs out")
    if None in arrays:
        raise UsageError(
            f"holds one array; the graph takes {', '.join(map(str, wants))}", where=path, hint=_HINT
        )
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
        arrays = _load(path)
    except (OSError, ValueError, EOFError, AttributeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"is no file of numbers: {_first_sentence(error)}", where=path, hint=_HINT) from None
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise UsageError("is no file of numbers", where=path, hint=_HINT)
    return arrays


def _load(path: Path) -> Mapping[str | None, np.ndarray]:
    with path.open("rb") as file:  # numpy leaves that of a damaged archive open
        if file.read(len(_ARCHIVE)) == _ARCHIVE:
            file.seek(0)
            with np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
    return {None: np.load(path, mmap_mode="r", allow_pickle=False)}


def _first_sentence(error: Exception) -> str:
    """Of what numpy says: it goes on to advise how to load the file unsafely."""
    return str(error).partition(". ")[0]


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


def made_up(wants: tuple[GraphInput, ...], batch_size: int, folder: Path, where: str) -> tuple[Path, str]:
    """Standard normal inputs, zeros for integers and truths; the file in `folder`, and what to say of it.

    Graphs that are fed alike share a file, which is whole or absent: several devices are fed at once.

    Raises:
        UsageError: a shape is too large, or not known.
        StorageError: there is no space for the file.
    """
    one_array = len(wants) == 1 and bool(wants[0].shape)
    shapes = [(batch_size, *wants[0].shape[1:])] if one_array else [one.shape for one in wants]
    batches = _batches(shapes, where)
    key = sha256_json([*map(str, wants), shapes, batches])[:16]
    path = folder / f"inputs-{key}.{'npy' if one_array else 'npz'}"
    if not path.exists():
        chance = np.random.default_rng(0)
        if one_array:
            shape = (batches * batch_size, *shapes[0][1:])
            write_bytes(path, _npy(_values(chance, shape, wants[0].dtype)))
        else:
            feeds = {one.name: _values(chance, (batches, *one.shape), one.dtype) for one in wants}
            write_bytes(path, _npz(feeds))
    return path, _what_they_are(wants)


def _what_they_are(wants: tuple[GraphInput, ...]) -> str:
    if not wants:
        return "the graph takes no inputs: latency is measured, accuracy is not"
    floats = [one.dtype.kind == "f" for one in wants]
    kinds = "random (standard normal)" if all(floats) else "random and zeros" if any(floats) else "zeros"
    return f"the inputs are {kinds}: latency is measured, accuracy is not"


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=False)
    return content.getvalue()


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As numpy.savez, which takes no array of the name `file`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", _npy(array))
    return content.getvalue()


def _batches(shapes: Sequence[tuple[int, ...]], where: str) -> int:
    """How many batches are made up: as many as fit into MADE_UP_ELEMENTS, MADE_UP at most."""
    hint = f"give one: {_HINT}"
    for shape in shapes:
        if not all(shape):
            raise UsageError("the shape of an example is not fixed in the graph", where=where, hint=hint)
        if math.prod(shape) > MADE_UP_ELEMENTS:
            raise UsageError(f"a batch of shape {shape} is too large to make up", where=where, hint=hint)
    elements = sum(map(math.prod, shapes))
    return max(1, min(MADE_UP, MADE_UP_ELEMENTS // max(1, elements)))


def _values(chance: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind != "f":
        return np.zeros(shape, dtype)
    return chance.standard_normal(shape).astype(dtype)
