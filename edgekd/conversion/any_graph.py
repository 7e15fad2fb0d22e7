"""Read a graph to look at, more kindly than one that shall be shipped.

Two things that read_graph refuses can still be audited: inputs whose number of axes is free, which runtimes
take though ONNX's checker does not, and weights of more than 2 GiB, which stay where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekd.errors import BundleError
from edgekd.runtimes.graph_file import TooLargeError, load_graph, load_structure


@dataclass(frozen=True)
class AnyGraph:
    """A graph that was read.

    Attributes:
        model: with its weights inside, or where `whole` is false without the large ones.
        whole: whether a runtime can be given it.
    """

    model: onnx.ModelProto
    whole: bool


def read_any_graph(path: Path) -> AnyGraph:
    """Read and check an ONNX file.

    Raises:
        BundleError: the file is missing or no valid ONNX graph, or its external data is missing or lies
            outside the file's folder.
    """
    try:
        found = AnyGraph(load_graph(path), whole=True)
    except TooLargeError:
        found = AnyGraph(load_structure(path), whole=False)
    try:
        onnx.checker.check_model(_checkable(found))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = lines[0] if lines else type(error).__name__
        raise BundleError(f"is not a valid ONNX graph: {why}", where=path) from None
    return found


def _checkable(found: AnyGraph) -> onnx.ModelProto:
    """The graph, or a copy of it with what the checker insists on in the place of what is free."""
    free = [value for value in _ends(found.model) if _has_free_rank(value)]
    if found.whole and not free:
        return found.model
    copy = onnx.ModelProto()
    copy.CopyFrom(found.model)
    for value in _ends(copy):
        if _has_free_rank(value):
            value.type.tensor_type.shape.dim.add()
    for tensor in copy.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            kind, name = tensor.data_type, tensor.name
            tensor.Clear()
            tensor.CopyFrom(onnx.TensorProto(name=name, data_type=kind, dims=[0]))
    return copy


def _ends(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output]


def _has_free_rank(value: onnx.ValueInfoProto) -> bool:
    kind = value.type
    return kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape")
