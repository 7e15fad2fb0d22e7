"""A graph whose weights are codes and a codebook: small on disk, as large and fast as fp32 once it is loaded.

Every weight in codes is decoded by a few standard operators from constants alone:

    bytes -> bits -> codes -> points -> alpha * point + beta, bucket by bucket -> the weight's shape

A runtime that folds constants does this once, when it loads the graph, and then runs the same kernels in
float32 as for the fp32 graph: no int8 or int4 kernel reads such codes. ONNX Runtime gets the weights bit for
bit as training evaluated them. Batch norms stay operators of their own, for folding them into a weight
would take it off its points; runtimes fold them after decoding.

    packing   size of a code         taken by
    bits      its bits, no padding   ONNX Runtime (1.31.1: folded from its basic optimizations on)
    bytes     one byte               also TensorRT, whose parser has neither BitShift nor UINT4
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

from edgekd.conversion.dialects import write_graph
from edgekd.conversion.to_onnx import onnx_of
from edgekd.documents.common import InputSpec
from edgekd.errors import NetworkError
from edgekd.quantization.codebook import Codebook, Codebooks
from edgekd.quantization.packing import pack
from edgekd.quantization.trace import trace

Packing = Literal["bits", "bytes"]

_DOMAIN = "edgekd"
_PLACEHOLDER = "Codebook"
"""Stands for a decoded weight while the exporter works, so that it is not folded then."""
_EXAMPLES = 2


def export_codebooks(
    network: nn.Module,
    codebooks: Codebooks,
    input: InputSpec,
    path: Path,
    *,
    opset: int,
    packing: Packing = "bits",
) -> None:
    """Write the graph of a network whose weights are in codebooks.

    Args:
        network: the one that the codebooks were made of; left as it is, its own weights are not read.
        codebooks: all of its state.
        input: name and shape of the graph's input.
        path: file to write, atomically.
        opset: ONNX opset, 18 or later.
        packing: how codes lie in the file; see the table above.

    Raises:
        NetworkError: the codebooks are not this network's, or it cannot be traced.
        ConversionError: the graph cannot be written as ONNX.
        StorageError: the file cannot be written.
    """
    device = next(network.parameters()).device
    _check_fit(network, state := codebooks.state())
    traced = trace(network, torch.zeros(_EXAMPLES, *input.shape, device=device)).cpu()
    _load(traced, state)
    decoded = _Decoded(traced, codebooks).eval()
    write_graph(_expanded(onnx_of(decoded, input, opset=opset), codebooks, packing), path)


class _Decoded(nn.Module):
    """The network with a placeholder in the place of each weight that is in codes."""

    def __init__(self, network: fx.GraphModule, codebooks: Codebooks) -> None:
        super().__init__()
        self.network = network
        names = {name: codebooks.tied.get(name, name) for name, _ in network.named_parameters()}
        self._books = {name: book for name, book in names.items() if book in codebooks.books}

    def forward(self, x: Tensor) -> Any:
        own = dict(self.network.named_parameters())
        weights = {
            name: torch.onnx.ops.symbolic(
                f"{_DOMAIN}::{_PLACEHOLDER}",
                (),
                {"name": book},
                dtype=torch.float32,
                shape=own[name].shape,
                version=1,
            )
            for name, book in self._books.items()
        }
        return torch.func.functional_call(self.network, weights, (x,))


def _check_fit(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """See that the codebooks hold the network's state, no more and no less."""
    own = network.state_dict()
    for name in {**own, **state}:
        found, wanted = (_shape(one.get(name)) for one in (state, own))
        if found != wanted:
            raise NetworkError(
                f"the codebooks have {found} there, the network {wanted}",
                where=name,
                hint="give the network that the codebooks were made of",
            )


def _shape(value: Tensor | None) -> str:
    return "nothing" if value is None else f"a tensor {tuple(value.shape)}"


def _load(traced: fx.GraphModule, state: Mapping[str, Tensor]) -> None:
    """Put a state into a traced network, which has only what its operations read, and constants of theirs."""
    for name, value in traced.state_dict(keep_vars=True).items():
        if name in state:
            value.data.copy_(state[name])


def _expanded(model: onnx.ModelProto, codebooks: Codebooks, packing: Packing) -> onnx.ModelProto:
    """The graph with each placeholder replaced by the operators that decode its weight."""
    graph, writer, nodes, renamed = model.graph, _Writer(), [], {}
    for node in graph.node:
        if node.domain == _DOMAIN:
            name = helper.get_node_attr_value(node, "name").decode()
            nodes += writer.decoding(name, codebooks.books[name], packing)
            renamed[node.output[0]] = _decoded_name(name)
        else:
            nodes.append(node)
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    kept = [entry for entry in graph.value_info if entry.name not in renamed]
    opsets = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    for field_, items in ((graph.node, nodes), (graph.value_info, kept), (model.opset_import, opsets)):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        del field_[:]
        field_.extend(copies)
    graph.initializer.extend(writer.constants.values())
    return model


@dataclass
class _Writer:
    """Writes nodes and constants; equal constants are one."""

    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _known: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def decoding(self, name: str, book: Codebook, packing: Packing) -> list[onnx.NodeProto]:
        """The operators that yield a weight; between them short names, which the file is full of."""
        steps = list(self._steps(name, book, packing))
        nodes, source = [], self._codes(name, book, packing)
        stem = f"c{len(self.constants)}"
        for number, (op_type, inputs, attributes) in enumerate(steps, start=1):
            output = _decoded_name(name) if number == len(steps) else f"{stem}.{number}"
            sources = [source if one is _FLOWS else one for one in inputs]
            nodes.append(helper.make_node(op_type, sources, [output], **attributes))
            source = output
        return nodes

    def _steps(self, name: str, book: Codebook, packing: Packing) -> Iterator[_Step]:
        if _is_packed(book, packing):
            yield from self._unpacking(book)
        yield from self._points(name, book)
        yield from self._scaling(name, book)

    def _unpacking(self, book: Codebook) -> Iterator[_Step]:
        """A stream of bits (bytes, 1) to codes (N, 1) in float."""
        count, bits = len(book.codes_N), book.bits
        yield "BitShift", [_FLOWS, self.shared(np.arange(8, dtype=np.uint8))], {"direction": "RIGHT"}
        yield "BitwiseAnd", [_FLOWS, self.shared(np.uint8(1))], {}
        if count * bits % 8:
            yield "Reshape", [_FLOWS, self.shared(_int64(-1))], {}
            yield from self._first(count * bits)
        yield "Reshape", [_FLOWS, self.shared(_int64(-1, bits))], {}
        yield "Cast", [_FLOWS], {"to": onnx.TensorProto.FLOAT}
        yield "MatMul", [_FLOWS, self.shared(2.0 ** np.arange(bits, dtype=np.float32)[:, None])], {}

    def _points(self, name: str, book: Codebook) -> Iterator[_Step]:
        """Codes to values in [0, 1] or at learned points, (N,)."""
        if book.points_S is None:
            yield "Cast", [_FLOWS], {"to": onnx.TensorProto.FLOAT}
            yield "Div", [_FLOWS, self.shared(np.float32(book.levels - 1))], {}
        else:
            yield "Cast", [_FLOWS], {"to": onnx.TensorProto.INT32}
            yield "Gather", [self.own(f"{name}/points", book.points_S.numpy()), _FLOWS], {}
        yield "Reshape", [_FLOWS, self.shared(_int64(-1))], {}

    def _scaling(self, name: str, book: Codebook) -> Iterator[_Step]:
        """Values (N,) to the weight."""
        count = len(book.codes_N)
        missing = -count % book.bucket
        if missing:
            yield "Pad", [_FLOWS, self.shared(_int64(0, missing))], {}
        yield "Reshape", [_FLOWS, self.shared(_int64(-1, book.bucket))], {}
        yield "Mul", [_FLOWS, self.own(f"{name}/alpha", book.alpha_B.numpy()[:, None])], {}
        yield "Add", [_FLOWS, self.own(f"{name}/beta", book.beta_B.numpy()[:, None])], {}
        if missing:
            yield "Reshape", [_FLOWS, self.shared(_int64(-1))], {}
            yield from self._first(count)
        yield "Reshape", [_FLOWS, self.shared(_int64(*book.shape))], {}

    def _first(self, count: int) -> Iterator[_Step]:
        yield "Slice", [_FLOWS, self.shared(_int64(0)), self.shared(_int64(count))], {}

    def _codes(self, name: str, book: Codebook, packing: Packing) -> str:
        codes_N = book.codes_N.numpy()
        packed = pack(codes_N, book.bits)[:, None] if _is_packed(book, packing) else codes_N
        return self.own(f"{name}/codes", packed)

    def own(self, name: str, value: np.ndarray) -> str:
        """A constant of one weight."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def shared(self, value: np.ndarray | np.generic) -> str:
        """A constant that other weights may have too."""
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.own(f"c.{len(self._known)}", array)
        return self._known[key]


_FLOWS = "<the tensor of the step before>"
_Step = tuple[str, list[str], dict[str, Any]]
"""Operator, inputs, attributes."""


def _decoded_name(name: str) -> str:
    """What the decoded weight is called: the exporter's own names have no stroke in them."""
    return f"{name}/decoded"


def _int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _is_packed(book: Codebook, packing: Packing) -> bool:
    return packing == "bits" and book.bits < 8 and math.prod(book.shape) > 0
