"""Read an ONNX file that a stranger may have written.

An ONNX file can name other files for its weights, and a runtime that is given the path follows those names.
Here the names are checked first and the weights are then taken into the graph, so that a runtime is only ever
given bytes. Source of the format: ONNX IR specification, "External Tensor Data".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import load_external_data_for_tensor

from edgekd.errors import BundleError

MAX_GRAPH_BYTES = 2**31 - 1
"""Most that a graph and its external data may weigh together: what one protobuf message can hold."""
SMALL_TENSOR_BYTES = 2**16
"""Most that load_structure takes in of one tensor: scales and zero points, but no weights."""


class TooLargeError(BundleError):
    """A graph and its external data are more than one message can hold."""


def load_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with all its weights.

    Raises:
        BundleError: the file is missing, too large or no ONNX graph, or its external data is missing or lies
            outside the file's folder.
    """
    model = _parse(path)
    _take_in_external_data(model, path, MAX_GRAPH_BYTES)
    return model


def load_structure(path: Path) -> onnx.ModelProto:
    """Read an ONNX file of any size with its small tensors; large ones that lie outside of it stay there.

    Raises:
        BundleError: as load_graph, but for the size.
    """
    model = _parse(path)
    _take_in_external_data(model, path, SMALL_TENSOR_BYTES)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(_read(path))
    except DecodeError:
        raise BundleError("is not an ONNX graph: it is damaged or of another kind", where=path) from None
    if not model.HasField("graph") or not model.graph.node:
        raise BundleError("is not an ONNX graph: it has no nodes", where=path)
    return model


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_GRAPH_BYTES:
            raise BundleError("is larger than 2 GiB, which no ONNX graph can be", where=path)
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError("there is no such graph", where=path) from None
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror or error}", where=path) from None


def _take_in_external_data(model: onnx.ModelProto, path: Path, most: int) -> None:
    """Take in the tensors of at most `most` bytes; with MAX_GRAPH_BYTES, all of them or none."""
    tensors = [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    budget = MAX_GRAPH_BYTES - (model.ByteSize() if tensors else 0)
    for tensor in tensors:
        size = _check_external(tensor, path)
        if most < MAX_GRAPH_BYTES and size > most:
            continue
        budget -= size
        if budget < 0:
            raise TooLargeError("is larger than 2 GiB with its external data", where=path)
        try:
            load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
            raise BundleError(_problem(tensor, f"cannot be read: {error}"), where=path) from None
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_external(tensor: onnx.TensorProto, path: Path) -> int:
    """Number of bytes of a tensor's external data, once it is sure that it lies in the graph's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    windows = PureWindowsPath(location)
    if not location or "\0" in location or windows.drive or windows.root:
        raise BundleError(_problem(tensor, f"is at {location!r}, which is no relative path"), where=path)
    file = path.parent / location
    folder = path.parent.resolve()
    if ".." in windows.parts or not file.resolve().is_relative_to(folder):
        raise BundleError(_problem(tensor, f"is at {location!r}, outside the graph's folder"), where=path)
    if not file.is_file():
        raise BundleError(_problem(tensor, f"is missing: there is no file {location!r}"), where=path)
    return _check_extent(tensor, entries, file.stat().st_size, path)


def _check_extent(tensor: onnx.TensorProto, entries: dict[str, str], size: int, path: Path) -> int:
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size - offset)
    except ValueError:
        raise BundleError(_problem(tensor, "has an offset or length that is no number"), where=path) from None
    if offset < 0 or length < 0 or offset + length > size:
        raise BundleError(_problem(tensor, f"ends after its file's {size} bytes"), where=path)
    return length


def _problem(tensor: onnx.TensorProto, what: str) -> str:
    return f"external data of '{tensor.name}' {what}"


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
            yield from (sparse.values, sparse.indices)
        for graph in [attribute.g, *attribute.graphs]:
            yield from _graph_tensors(graph)
