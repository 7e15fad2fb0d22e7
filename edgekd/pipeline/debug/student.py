"""The trained student of a run, in torch: its float form, its own int8 graph, and a look inside.

Only this file of `edgekd debug` needs torch, and it is imported late. The networks are built from what
the run folder says; the data are not read.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.divergence.probe import probe
from edgekd.conversion.remove_quantizers import QuantizedTensor, quantized_tensors
from edgekd.conversion.specs import load_spec
from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Augmentation, Recipe
from edgekd.documents.scheme import Scheme
from edgekd.documents.spec import Saturation
from edgekd.errors import ConversionError, RunFolderError
from edgekd.files import sha256_json
from edgekd.pipeline.context import Context
from edgekd.pipeline.debug.quiet import Quiet
from edgekd.pipeline.networks import WEIGHTS
from edgekd.pipeline.quantize.stages import Quantized, load_quantized
from edgekd.pipeline.run_folder import RunFolder, Stage
from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.network import QuantizedNetwork
from edgekd.tasks.task import Split, Task

_CLOSE = 0.2
"""Relative error up to which a tensor of the graph is that of the network."""


@dataclass(frozen=True)
class Trained:
    """A quantized student as a stage left it."""

    float_graph: onnx.ModelProto
    """What it computes without quantizers."""
    graph: onnx.ModelProto
    """Its canonical int8 graph, written anew."""
    quantized: QuantizedNetwork
    """The network."""


def trained_student(run: Path, recipe: Recipe, stages: Mapping[str, Stage], row: str) -> Trained:
    """The student of a row, from its weights.

    Raises:
        RunFolderError: the run does not have them.
        EdgekdError: the network cannot be built, given its weights, or exported.
    """
    task = _task(stages["graphs"], stages["graphs"].json("task.json"))
    context = Context(recipe, run, RunFolder(run, recipe.name), Quiet())
    kept = _kept(stages, row)
    quantized = load_quantized(context, task, stages["student"], kept).eval()
    quantized.set_observing(False)
    with tempfile.TemporaryDirectory(prefix="edgekd-debug-") as folder:
        paths = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        quantized.set_fake_quantizing(False)
        export_fp32(float_form(quantized), task.input, paths[0], opset=load_spec("onnxruntime").opset)
        quantized.set_fake_quantizing(True)
        export_int8(quantized, task.input, paths[1], opset=load_spec("tensorrt").opset)
        return Trained(read_graph(paths[0]), read_graph(paths[1]), quantized)


def float_form(quantized: QuantizedNetwork) -> fx.GraphModule:
    """The student without quantizers: its weights and biases as they are, batch norm folded."""
    graph = copy.deepcopy(quantized.graph).cpu()
    for node in list(graph.graph.nodes):
        module = graph.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(module, WeightQuantizer):
            weight, bias = module.shipped()
            module.op.weight = torch.nn.Parameter(weight.detach())
            module.op.bias = None if bias is None else torch.nn.Parameter(bias.detach())
            graph.set_submodule(node.target, module.op)
            node.args = node.args[:1]
        elif isinstance(module, ActivationQuantizer):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


class InTorch:
    """The fake-quantized student with a look at what its quantizers make."""

    def __init__(self, trained: Trained, saturation: Saturation, x: NDArray[np.float32]) -> None:
        """Find the quantizers of the network in its graph.

        Raises:
            ConversionError: they are not those of the graph.
        """
        self._graph = trained.quantized.graph
        trained.quantized.set_saturation(saturation)
        made = [node.name for node in self._graph.graph.nodes if self._is_quantizer(node)]
        tensors = [one for one in quantized_tensors(trained.graph) if one.kind == "activation"]
        if len(made) != len(tensors):
            raise ConversionError(f"the student has {len(made)} quantizers, its graph {len(tensors)}")
        self._names = dict(zip(made, (one.name for one in tensors), strict=True))
        self._check(trained.graph, tensors, x)

    def run(
        self, x: NDArray[Any], given: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Logits, and what the quantizers make; `given` goes on from a quantizer in the place of that."""
        looking = _Looking(self._graph, self._names, given)
        with torch.no_grad():
            logits: Tensor = looking.run(torch.from_numpy(x))
        return logits.numpy(), looking.made

    def _is_quantizer(self, node: fx.Node) -> bool:
        if node.op != "call_module":
            return False
        return isinstance(self._graph.get_submodule(str(node.target)), ActivationQuantizer)

    def _check(self, graph: onnx.ModelProto, tensors: list[QuantizedTensor], x: NDArray[np.float32]) -> None:
        """The order of the quantizers in the graph is that of the network: their tensors say so."""
        opened = {one.name: one.dequantizers[0].output[0] for one in tensors}
        values = probe(graph, opened.values()).run({graph.graph.input[0].name: x})
        for name, mine in self.run(x, {})[1].items():
            theirs = values[opened[name]]
            alike = mine.shape == theirs.shape
            if not alike or np.linalg.norm(mine - theirs) > _CLOSE * np.linalg.norm(mine):
                raise ConversionError(f"the student's tensor at '{name}' is not the graph's")


class _Looking(fx.Interpreter):
    """Runs a graph, notes what its quantizers make, and goes on with other tensors where they are given."""

    def __init__(
        self, graph: fx.GraphModule, names: Mapping[str, str], given: Mapping[str, NDArray[Any]]
    ) -> None:
        super().__init__(graph)
        self._names, self._given = names, given
        self.made: dict[str, NDArray[Any]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        name = self._names.get(n.name)
        if name is None:
            return value
        self.made[name] = value.numpy()
        return torch.from_numpy(np.array(self._given[name])) if name in self._given else value


def _kept(stages: Mapping[str, Stage], row: str) -> Quantized:
    """The stage whose weights a row was exported from, and its scheme."""
    exported: Mapping[str, Any] = stages["graphs"].file.ingredients.get("quantized", {})
    digest, scheme = exported.get(row, (None, None))
    stage = next((one for one in stages.values() if one.file.files.get(WEIGHTS) == digest), None)
    if digest is None or stage is None or "student" not in stages:
        raise RunFolderError(f"the weights of {row} are not in the run folder")
    return Quantized("ptq", Scheme.model_validate(scheme), stage)


def _task(graphs: Stage, facts: Mapping[str, Any]) -> Task:
    """The task as far as networks are built by it: two examples of zeros stand for its data."""
    input = InputSpec.model_validate(facts["input"])
    nothing = Split(np.zeros((2, *input.shape), np.float32), np.zeros(2, np.int64))
    return Task(
        name="kept",
        classes=tuple(facts["classes"]),
        input=input,
        train=nothing,
        validation=nothing,
        test=nothing,
        augmentation=Augmentation(),
        fingerprint=sha256_json(graphs.file.files),
    )
