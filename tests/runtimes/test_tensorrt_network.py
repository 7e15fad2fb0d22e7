"""The worker's other job: what the parser made of a graph. TensorRT 10 is played by a fake."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.runtimes import tensorrt
from edgekd.runtimes.tensorrt_network import ParsedNetwork, Refusal
from edgekd.runtimes.tensorrt_worker import read_network
from tests.conversion.graphs import residual


class Tensor:
    def __init__(self, name: str, dtype: str, shape: tuple[int, ...] | None) -> None:
        self.name, self.dtype, self._shape = name, SimpleNamespace(name=dtype), shape

    @property
    def shape(self) -> tuple[int, ...]:
        if self._shape is None:
            raise ValueError("__len__() should return >= 0")
        return self._shape


class Layer:
    """A layer of the base class, which does not say what an activation does."""

    def __init__(self, kind: str, inputs: list[Tensor | None], outputs: list[Tensor], node: str) -> None:
        self.name, self.metadata = f"layer of {node}", f"[ONNX Layer: {node}]" if node else ""
        self.type: Any = SimpleNamespace(name=kind)
        self._inputs, self._outputs = inputs, outputs
        self.num_inputs, self.num_outputs = len(inputs), len(outputs)

    def get_input(self, index: int) -> Tensor | None:
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self._outputs[index]


class Activation(Layer):
    """The same layer as its own class: `type` is what it does."""

    @property
    def type(self) -> Any:
        return SimpleNamespace(name="RELU")

    @type.setter
    def type(self, value: Any) -> None:
        pass


class Relu(Layer):
    """What TensorRT gives back before its class is changed."""


def fake(layers: list[Layer], parses: bool = True) -> Any:
    error = SimpleNamespace(node_name=lambda: "<3>", node_operator=lambda: "Conv", desc=lambda: "no")

    class Logger:
        WARNING = 2

        def __init__(self) -> None:
            pass

    class Builder:
        def __init__(self, logger: Logger) -> None:
            logger.log(1, "a warning")  # type: ignore[attr-defined]

        def create_network(self, flags: int) -> Any:
            return SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index])

    class Parser:
        num_errors = 1

        def __init__(self, network: Any, logger: Logger) -> None:
            pass

        def parse(self, data: bytes) -> bool:
            return parses

        def get_error(self, index: int) -> Any:
            return error

    return SimpleNamespace(
        __version__="10.9", ILogger=Logger, Builder=Builder, OnnxParser=Parser, IActivationLayer=Activation
    )


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "graph.onnx").write_bytes(b"graph")
    return {"kind": "network", "graph": str(tmp_path / "graph.onnx")}


def test_tensorrt_without_a_gpu_cannot_even_parse(job: dict[str, Any]) -> None:
    found = read_network(fake([]), job, None)
    assert found["status"] == "not-run"
    assert found["note"] == "TensorRT needs a GPU even to parse, and there is none here"
    assert found["layers"] == []


def test_layers_and_tensors_are_told(job: dict[str, Any]) -> None:
    x, y, z = Tensor("x", "INT8", (-1, 3)), Tensor("y", "FLOAT", None), Tensor("z", "FLOAT", (2,))
    layers = [Layer("DEQUANTIZE", [x, None], [y], "<7>"), Layer("ACTIVATION", [y], [z], "")]
    found = read_network(fake(layers), job, 89)
    assert found["layers"] == [
        {
            "name": "layer of <7>",
            "kind": "DEQUANTIZE",
            "nodes": ["<7>"],
            "operation": None,
            "inputs": ["x"],
            "outputs": ["y"],
        },
        {
            "name": "layer of ",
            "kind": "ACTIVATION",
            "nodes": [],
            "operation": "RELU",
            "inputs": ["y"],
            "outputs": ["z"],
        },
    ]
    assert found["tensors"]["x"] == {"dtype": "INT8", "shape": [-1, 3]}
    assert found["tensors"]["y"] == {"dtype": "FLOAT", "shape": None}
    network = ParsedNetwork.of("tensorrt", found)
    assert (network.tool_version, network.messages, network.refused) == ("10.9", ("a warning",), ())


def test_what_is_refused_is_told_by_node(job: dict[str, Any]) -> None:
    network = ParsedNetwork.of("tensorrt", read_network(fake([], parses=False), job, 89))
    assert network.refused == (Refusal("<3>", "Conv", "no"),)
    assert network.layers == ()


def test_the_host_passes_on_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(module: str, job: dict[str, Any], *, timeout_s: float) -> list[str]:
        assert (module, job["kind"]) == ("edgekd.runtimes.tensorrt_worker", "network")
        result = '{"status": "not-run", "note": "TensorRT needs a GPU", "messages": []}'
        Path(job["result"]).write_text(result)
        return []

    monkeypatch.setattr(tensorrt, "start", start)
    monkeypatch.setattr(tensorrt, "_installed", lambda: "tensorrt")
    with pytest.raises(tensorrt.MissingError, match="TensorRT needs a GPU"):
        tensorrt.parse_network(residual())
