"""What a graph is measured with: arrays for its inputs, given or made up, and the graph that takes one.

The kit feeds one input, in batches. The others of a graph become defaults: initializers that are also inputs,
which a runtime may not fold, since a caller could replace them (ONNX IR specification, "Graphs").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgekd.errors import UsageError

Array = npt.NDArray[np.generic]
BATCHES = 8
MAX_BATCH_ELEMENTS = 2**24
"""Of a batch that is made up: a stranger's graph chooses its shape."""
_DEFAULTS_SINCE = 4
"""IR version from which on an initializer that is an input too is a default, and may be replaced."""
_HINT = "give arrays of a fixed shape with --inputs"


@dataclass(frozen=True)
class Feed:
    """Arrays for the inputs of a graph.

    Attributes:
        main: name of the input that is fed.
        batches: examples for it (N, ...), N a multiple of `batch_size`.
        batch_size: examples in one run.
        defaults: arrays for the other inputs.
        random: whether they were made up.
    """

    main: str
    batches: Array
    batch_size: int
    defaults: Mapping[str, Array]
    random: bool

    @property
    def first_batch(self) -> Array:
        """The first batch."""
        return self.batches[: self.batch_size]


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller has to give."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [entry for entry in model.graph.input if entry.name not in constants]


def random_feed(model: onnx.ModelProto, seed: int = 0) -> Feed:
    """Made-up inputs: floats of unit variance, integers of 0 and 1; a free batch axis is 1.

    Raises:
        UsageError: the graph has no input with an axis, or one whose shape or type leaves nothing to guess.
    """
    random = np.random.default_rng(seed)
    entries = inputs_of(model)
    shapes = {entry.name: _shape(entry) for entry in entries}
    main = _main(entries, shapes)
    batch_size = shapes[main][0]
    shapes[main] = (BATCHES * batch_size, *shapes[main][1:])
    arrays = {entry.name: _random(random, entry, shapes[entry.name]) for entry in entries}
    return Feed(main, arrays.pop(main), batch_size, arrays, random=True)


def given_feed(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> Feed:
    """The user's arrays, one for each input, checked against the graph; `""` names that of the only input.

    Raises:
        UsageError: an array is missing, unknown, or not of the type and shape that the graph takes.
    """
    entries = inputs_of(model)
    if set(arrays) == {""} and len(entries) == 1:
        arrays = {entries[0].name: arrays[""]}
    wanted = [entry.name for entry in entries]
    if set(arrays) != set(wanted):
        raise UsageError(
            f"has arrays {_listed(arrays)}; the graph's inputs are {_listed(wanted)}",
            hint="--inputs takes a .npy for a graph with one input, else a .npz with an array for each",
        )
    for entry in entries:
        _check(entry, arrays[entry.name])
    main = _main(entries, {name: array.shape for name, array in arrays.items()})
    axes = next(entry for entry in entries if entry.name == main).type.tensor_type.shape.dim
    batch_size = axes[0].dim_value if len(axes) and axes[0].dim_value > 0 else 1
    batches = arrays[main][: len(arrays[main]) // batch_size * batch_size]
    if not len(batches):
        raise UsageError(f"holds {len(arrays[main])} examples; a batch of '{main}' has {batch_size}")
    others = {name: array for name, array in arrays.items() if name != main}
    return Feed(main, batches, batch_size, others, random=False)


def with_defaults(model: onnx.ModelProto, feed: Feed) -> onnx.ModelProto:
    """A copy of a graph that takes the main input alone."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not feed.defaults:
        return copy
    graph = copy.graph
    if copy.ir_version < _DEFAULTS_SINCE:  # every initializer is listed as an input there, and is no default
        constants = {tensor.name for tensor in graph.initializer}
        kept = [entry for entry in model.graph.input if entry.name not in constants]
        del graph.input[:]
        graph.input.extend(kept)
        copy.ir_version = _DEFAULTS_SINCE
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in feed.defaults.items())
    return copy


def _main(entries: list[onnx.ValueInfoProto], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The input that is fed: the first one of floats with an axis, else the first with an axis."""
    able = [entry for entry in entries if len(shapes[entry.name]) > 0]
    if not able:
        what = "no inputs" if not entries else "no input with an axis"
        raise UsageError(f"the graph has {what}")
    floats = [entry for entry in able if _dtype(entry).kind == "f"]
    return str((floats or able)[0].name)


def _shape(entry: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Shape of an input with 1 for a free batch axis."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        raise UsageError(f"the number of axes of its input '{entry.name}' is free", hint=_HINT)
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    names = [dim.dim_param or "?" for dim in tensor.shape.dim]
    free = [names[axis] for axis, size in enumerate(sizes) if size <= 0 and axis > 0]
    if free:
        raise UsageError(f"axes of its input '{entry.name}' are free: {', '.join(free)}", hint=_HINT)
    shape = tuple(size if size > 0 else 1 for size in sizes)
    if math.prod(shape) > MAX_BATCH_ELEMENTS:
        raise UsageError(f"its input '{entry.name}' of shape {shape} is too large to make up", hint=_HINT)
    return shape


def _dtype(entry: onnx.ValueInfoProto) -> np.dtype[np.generic]:
    kind = entry.type.tensor_type.elem_type
    try:
        dtype: np.dtype[np.generic] = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    except (KeyError, TypeError):
        dtype = np.dtype(object)
    if dtype.kind not in "fiub":
        name = onnx.TensorProto.DataType.Name(kind) if kind in onnx.TensorProto.DataType.values() else kind
        raise UsageError(f"its input '{entry.name}' is of type {name}, for which no array can be made")
    return dtype


def _random(random: np.random.Generator, entry: onnx.ValueInfoProto, shape: tuple[int, ...]) -> Array:
    dtype = _dtype(entry)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def _check(entry: onnx.ValueInfoProto, array: Array) -> None:
    tensor = entry.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim] if tensor.HasField("shape") else list(array.shape)
    fits = array.ndim == len(sizes) and all(
        size <= 0 or size == found for size, found in zip(sizes[1:], array.shape[1:], strict=True)
    )
    if not fits or array.dtype != _dtype(entry):
        wanted = ", ".join(["N", *(str(size) if size > 0 else "?" for size in sizes[1:])])
        found = f"{array.dtype} {array.shape} for '{entry.name}'"
        raise UsageError(f"holds {found}; the graph takes {_dtype(entry)} ({wanted})")


def _listed(names: Mapping[str, Array] | list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
