"""A graph as a processor with AVX2 and without VNNI runs it, emulated on any machine.

ONNX Runtime is asked for the graph that it runs after its optimizations. That graph is walked node by node:
operators of uint8 activations and int8 weights are done in NumPy, with products that saturate (avx2.products
says how), every other one by ONNX Runtime itself, in a session of that node alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from edgekd.conversion.auditing.optimized import Optimized
from edgekd.conversion.avx2.operators import apply, can_apply
from edgekd.conversion.avx2.risk import name_in, risk_of
from edgekd.conversion.parity import compare_logits
from edgekd.documents.saturation import SaturatedOperator, Saturation
from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import open_session, run_tensors

Array = npt.NDArray[Any]
Counts = dict[int, tuple[int, int]]
"""Pairs of products, and those that were clipped, by number of the node."""


@dataclass(frozen=True)
class Emulated:
    """What a graph gives for some examples: its first output, and what its operators did."""

    logits: Array
    operators: tuple[SaturatedOperator, ...]
    not_emulated: tuple[str, ...]


def measure_saturation(
    model: onnx.ModelProto, x: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64] | None = None
) -> Saturation:
    """What saturation costs a graph, on inputs x (N, ...) with labels (N,).

    Raises:
        ConversionError: ONNX Runtime cannot load the graph or run it on these inputs, it has several inputs,
            an If, a Loop or a Scan, or its first output is no (N, K) of finite numbers.
    """
    emulator = Emulator(model)
    exact, found = emulator.run(x, saturate=False), emulator.run(x, saturate=True)
    return Saturation(
        operators=found.operators,
        not_emulated=found.not_emulated,
        parity=compare_logits(exact.logits, found.logits),
        exact_top1=_top1(exact.logits, labels_N),
        top1=_top1(found.logits, labels_N),
    )


class Emulator:
    """A graph, ready to be run with products as AVX2 makes them, or with exact ones.

    Raises:
        ConversionError: ONNX Runtime cannot load the graph, or it has several inputs, an If, a Loop or a
            Scan.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._optimized = Optimized.of(model, threads=1)
        self._graph = self._optimized.model.graph
        if len(self._optimized.nodes) > len(self._graph.node):
            raise ConversionError("has an If, a Loop or a Scan, which are not emulated")
        self._tensors = {tensor.name: tensor for tensor in self._graph.initializer}
        tensors = self._tensors.items()
        self._constants = {name: np.asarray(numpy_helper.to_array(tensor)) for name, tensor in tensors}
        inputs = [one for one in self._graph.input if one.name not in self._tensors]
        if len(inputs) != 1:
            raise ConversionError(f"has {len(inputs)} inputs; graphs of one input are emulated")
        self._input = inputs[0]
        self._whole = open_session(model)
        nodes = [one.node for one in self._optimized.nodes if risk_of(one.view, one.node) == "unknown"]
        self._unknown = tuple(name_in(self._optimized, node) for node in nodes)
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}

    def run(self, x: npt.NDArray[np.float32], *, saturate: bool, batch_size: int = 64) -> Emulated:
        """Run the graph on inputs (N, ...), `batch_size` at once unless the graph has a batch of its own.

        Raises:
            ConversionError: ONNX Runtime cannot run the graph on these inputs.
        """
        shape = self._input.type.tensor_type.shape.dim
        size = (shape[0].dim_value if shape else 0) or batch_size
        # Inputs that are not this graph's are refused here, by the runtime and in its words.
        run_tensors(self._whole, {self._input.name: x[:size]}, [self._graph.output[0].name])
        counts: Counts = {}
        logits = [self._forward(x[at : at + size], counts, saturate) for at in range(0, len(x), size)]
        return Emulated(np.concatenate(logits), tuple(self._operators(counts)), self._unknown)

    def _forward(self, x: Array, counts: Counts, saturate: bool) -> Array:
        values = {**self._constants, self._input.name: x}
        for index, node in enumerate(self._graph.node):
            inputs = [values[name] if name else None for name in node.input]
            if can_apply(node, inputs):
                answer = apply(node, inputs, saturate=saturate)
                pairs, saturated = counts.get(index, (0, 0))
                counts[index] = pairs + answer.pairs, saturated + answer.saturated
                values[node.output[0]] = answer.y
            else:
                values.update(self._run_node(index, node, values))
        return values[self._graph.output[0].name]

    def _run_node(self, index: int, node: onnx.NodeProto, values: dict[str, Array]) -> dict[str, Array]:
        """Outputs of one node, by ONNX Runtime."""
        names = [name for name in dict.fromkeys(node.input) if name and name not in self._tensors]
        feeds = {name: values[name] for name in names}
        if index not in self._sessions:
            self._sessions[index] = open_session(self._alone(node, feeds), as_written=True)
        return run_tensors(self._sessions[index], feeds, [name for name in node.output if name])

    def _alone(self, node: onnx.NodeProto, feeds: dict[str, Array]) -> onnx.ModelProto:
        """A graph of one node. ONNX Runtime finds the shapes, and the types of the outputs."""
        types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
        graph = helper.make_graph(
            [node],
            "node",
            [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
            [self._tensors[name] for name in dict.fromkeys(node.input) if name in self._tensors],
        )
        model = self._optimized.model
        return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)

    def _operators(self, counts: Counts) -> Iterator[SaturatedOperator]:
        for index, (pairs, saturated) in counts.items():
            node = self._graph.node[index]
            name = name_in(self._optimized, node)
            yield SaturatedOperator(name=name, op_type=node.op_type, pairs=pairs, saturated=saturated)


def _top1(logits_NK: Array, labels_N: npt.NDArray[np.int64] | None) -> float | None:
    return None if labels_N is None else float((logits_NK.argmax(axis=1) == labels_N).mean())
