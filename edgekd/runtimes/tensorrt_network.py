"""What TensorRT's parser makes of a graph, by its network definition: layers, and the tensors between them.

No engine is built for it, so which kernels the builder would choose is not in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: TensorRT's name for it.
        kind: its type, such as CONVOLUTION.
        nodes: names of the ONNX nodes that it stands for.
        operation: what an ELEMENTWISE or ACTIVATION does, such as SUM or RELU.
        inputs: names of the tensors that it reads.
        outputs: names of the tensors that it makes.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    operation: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A node that the parser refused, and why."""

    node: str
    operator: str
    why: str


@dataclass(frozen=True)
class ParsedNetwork:
    """A network definition.

    Attributes:
        tool: tensorrt or tensorrt-rtx.
        tool_version: its version.
        layers: every layer, in the parser's order; none where it refused the graph.
        dtypes: tensor name to element type, such as INT8.
        refused: what the parser refused.
        messages: its warnings and errors.
    """

    tool: str
    tool_version: str
    layers: tuple[Layer, ...]
    dtypes: Mapping[str, str] = field(repr=False)
    refused: tuple[Refusal, ...] = ()
    messages: tuple[str, ...] = ()

    @classmethod
    def of(cls, tool: str, result: Mapping[str, Any]) -> ParsedNetwork:
        """From a worker's result."""
        layers = tuple(
            Layer(
                name=layer["name"],
                kind=layer["kind"],
                nodes=tuple(layer["nodes"]),
                operation=layer["operation"],
                inputs=tuple(layer["inputs"]),
                outputs=tuple(layer["outputs"]),
            )
            for layer in result["layers"]
        )
        dtypes = {name: tensor["dtype"] for name, tensor in result["tensors"].items()}
        refused = tuple(Refusal(one["node"], one["operator"], one["why"]) for one in result["refused"])
        messages = tuple(result["messages"])
        return cls(tool, result["tool_version"], layers, dtypes, refused, messages)

    def maker(self, tensor: str) -> Layer | None:
        """The layer that makes a tensor; None for an input of the network."""
        return self._makers.get(tensor)

    def readers(self, tensor: str) -> list[Layer]:
        """The layers that read a tensor."""
        return self._readers.get(tensor, [])

    def layers_of(self, node: str) -> list[Layer]:
        """The layers that stand for an ONNX node."""
        return self._layers_of.get(node, [])

    @cached_property
    def _makers(self) -> dict[str, Layer]:
        return {name: layer for layer in self.layers for name in layer.outputs}

    @cached_property
    def _readers(self) -> dict[str, list[Layer]]:
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for name in dict.fromkeys(layer.inputs):
                found.setdefault(name, []).append(layer)
        return found

    @cached_property
    def _layers_of(self) -> dict[str, list[Layer]]:
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for node in layer.nodes:
                found.setdefault(node, []).append(layer)
        return found
