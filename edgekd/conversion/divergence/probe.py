"""Look into a graph while it runs: a copy that gives chosen tensors, run node by node as it is written.

A tensor that becomes an output can no longer be fused away, so a probed graph is never optimized: its
figures are those of the operators as they stand there, every QuantizeLinear and DequantizeLinear
included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from edgekd.conversion.graph_view import GraphView
from edgekd.errors import DataError, UsageError
from edgekd.runtimes.onnxruntime import open_session, run_tensors

Values = dict[str, np.ndarray]
"""Tensors by name."""

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True)
class Probe:
    """A graph that runs as it is written and gives tensors from within."""

    session: onnxruntime.InferenceSession
    names: tuple[str, ...]

    def run(self, feeds: Mapping[str, np.ndarray]) -> Values:
        """The tensors for given inputs.

        Raises:
            ConversionError: ONNX Runtime cannot run the graph on them.
        """
        return run_tensors(self.session, feeds, self.names)


def probe(model: onnx.ModelProto, names: Iterable[str]) -> Probe:
    """Open a copy of a graph whose outputs are the named tensors.

    Args:
        model: the graph with its weights inside.
        names: tensors that nodes of it make, inputs of it, or constants.

    Raises:
        ConversionError: ONNX Runtime refuses the graph.
    """
    wanted = tuple(dict.fromkeys(names))
    return Probe(open_session(with_outputs(model, wanted), as_written=True), wanted)


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of a graph that gives these tensors in the place of its outputs; their types are inferred."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def input_of(model: onnx.ModelProto, where: str) -> onnx.ValueInfoProto:
    """The one input of a graph; initializers that are listed as inputs are none.

    Raises:
        UsageError: it has none, or several.
    """
    constants = GraphView.of(model.graph).initializers
    inputs = [entry for entry in model.graph.input if entry.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(f"'{entry.name}'" for entry in inputs)
        found = f"{len(inputs)} inputs: {names}" if inputs else "no input"
        raise UsageError(f"has {found}; graphs of one input can be compared", where=where)
    return inputs[0]


def input_shape(entry: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Sizes of a graph's input, None for an axis that is open; None where not even the rank is declared."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim)


def like(value: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A tensor in the shape of another one: without channels that only fill up, or with zeros for them."""
    if value.size > other.size:
        value = value[:, : other.shape[1]]
    elif value.size < other.size:
        rest = [(0, 0)] * (value.ndim - 2)
        value = np.pad(value, [(0, 0), (0, other.shape[1] - value.shape[1]), *rest])
    return value.reshape(other.shape)


def as_input(x: np.ndarray, session: onnxruntime.InferenceSession, name: str) -> np.ndarray:
    """Examples in the float type that an input of a session takes."""
    taken = next(entry.type for entry in session.get_inputs() if entry.name == name)
    return x.astype(_FLOATS[taken]) if taken in _FLOATS and np.issubdtype(x.dtype, np.floating) else x


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The number of examples that a graph takes at a time; None where it takes any."""
    constants = GraphView.of(model.graph).initializers
    shapes = (input_shape(entry) for entry in model.graph.input if entry.name not in constants)
    return next((shape[0] for shape in shapes if shape), None)


def check_examples(x: np.ndarray, entry: onnx.ValueInfoProto, where: str) -> None:
    """Check that examples fit the input of a graph.

    Raises:
        UsageError: their shape or type is another one.
        DataError: a value is not finite, or all are the same.
    """
    shape, given = input_shape(entry), "x".join(map(str, x.shape[1:]))
    wants_float = entry.type.tensor_type.elem_type in (1, 10, 11, 16)
    if wants_float != np.issubdtype(x.dtype, np.floating):
        kind = onnx.TensorProto.DataType.Name(entry.type.tensor_type.elem_type).lower()
        raise UsageError(f"the inputs are {x.dtype}; the graph takes {kind}", where=where)
    if wants_float and not np.isfinite(x).all():
        raise DataError("the inputs hold values that are not finite numbers", where=where)
    fits = shape is None or (
        len(shape) == x.ndim
        and all(size in (None, length) for size, length in zip(shape[1:], x.shape[1:], strict=True))
    )
    if not fits:
        assert shape is not None
        wanted = "x".join("?" if size is None else str(size) for size in shape[1:])
        raise UsageError(f"an example of the inputs is {given}; the graph takes {wanted}", where=where)
    if x.size and (x == x.flat[0]).all():
        raise DataError(f"the inputs hold one value only, {x.flat[0]:g}", where=where)
