"""What it costs to spare layers: latency, measured side by side on the runtime here, or bytes of the weights.

A layer in float costs more than its arithmetic: its neighbors' codes have to be opened before it and closed
behind it, and what was fused falls apart. So the graph with that layer in float is run beside the one without
it. Needs torch.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.partly_float import partly_float
from edgekd.conversion.specs import load_spec, spec_of
from edgekd.conversion.to_onnx import export_int8
from edgekd.devices.local import LocalDevice
from edgekd.documents.common import InputSpec, Interval
from edgekd.documents.measurement import Latency, Ratio
from edgekd.documents.recipe import Measuring
from edgekd.documents.sensitivity import Cost
from edgekd.documents.spec import Int8Dialect
from edgekd.measure.latency import measure_latency
from edgekd.quantization.fake_quant import WeightQuantizer
from edgekd.quantization.layers import is_quantizer, quantizer_at, rounded_tensors, tensor_of, weight_bits_of
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.sensitivity import NOTHING
from edgekd.quantization.spare import Layers

CONFIDENCE = 0.95
"""One-sided confidence of a cost's interval."""
_START = "start"
_OWN = "own"


def short(measuring: Measuring) -> Measuring:
    """A quick look at many graphs: enough to tell costs of a few percent apart."""
    return Measuring(
        processes=3,
        threads=measuring.threads,
        warmup_s=0.03,
        max_warmup_s=0.2,
        min_time_s=0.06,
        min_samples=40,
    )


class LatencyCosts:
    """Measures graphs in which some layers are in float; a `Measure`."""

    def __init__(
        self,
        input: InputSpec,
        x_NC: NDArray[np.float32],
        dialect: Int8Dialect,
        measuring: Measuring,
        rewrites: Mapping[str, bool] = {},
    ) -> None:
        """Prepare to measure.

        Args:
            input: of the graphs.
            x_NC: normalized examples to feed.
            dialect: of ONNX Runtime on this machine.
            measuring: how long.
            rewrites: the start's choices of rewrites.
        """
        self._input, self._x_NC, self._dialect, self._measuring = input, x_NC, dialect, measuring
        self._rewrites = rewrites
        self._canonical: onnx.ModelProto | None = None
        self.warnings: tuple[str, ...] = ()
        """What makes the figures less certain, a line each."""

    def __call__(self, networks: Mapping[Layers, QuantizedNetwork]) -> dict[Layers, Cost]:
        """Costs beside the network in which nothing is spared, which is among them."""
        with tempfile.TemporaryDirectory(prefix="edgekd-costs-") as name:
            folder = Path(name)
            names = {layers: str(number) if layers else _START for number, layers in enumerate(networks)}
            paths = {names[layers]: folder / f"{names[layers]}.onnx" for layers in networks}
            for layers, network in networks.items():
                write_graph(self._graph(networks[NOTHING], network, folder), paths[names[layers]])
            np.save(folder / "inputs.npy", self._x_NC)
            result = measure_latency(
                LocalDevice(),
                paths,
                runtime="onnxruntime",
                inputs=folder / "inputs.npy",
                measuring=self._measuring,
                confidence=CONFIDENCE,
                reference=_START,
                session_options=spec_of(self._dialect).session_options,
                cold_starts=0,
            )
        self.warnings = tuple(dict.fromkeys((*self.warnings, *result.warnings)))
        ratios = {ratio.name: ratio for ratio in result.ratios}
        return {layers: _cost(result.latencies[name], ratios.get(name)) for layers, name in names.items()}

    def _graph(self, first: QuantizedNetwork, network: QuantizedNetwork, folder: Path) -> onnx.ModelProto:
        if self._canonical is None:
            path = folder / "canonical.onnx"
            export_int8(timing_twin(first), self._input, path, opset=load_spec("tensorrt").opset)
            self._canonical = onnx.load(path)
        spared = as_spared(self._canonical, first, network)
        return to_dialect(spared, self._dialect, self._rewrites)


def as_spared(
    canonical: onnx.ModelProto, first: QuantizedNetwork, network: QuantizedNetwork
) -> onnx.ModelProto:
    """The canonical graph of a network in which some layers of the first one are in float.

    Args:
        canonical: of the first one's timing twin.
        first: the network in which nothing is spared.
        network: the other one, prepared from the same student.
    """
    freed = rounded_tensors(first) - rounded_tensors(network)
    layers = weight_bits_of(first).keys() - weight_bits_of(network).keys()
    return partly_float(canonical, quantizers=[f"{_OWN}.{tensor}" for tensor in freed], layers=layers)


def weight_costs(networks: Mapping[Layers, QuantizedNetwork]) -> dict[Layers, Cost]:
    """Bytes of the weights beside the network in which nothing is spared; a `Measure`."""
    start = _weight_bytes(networks[NOTHING])
    return {
        layers: Cost(what="weights", ratio=_weight_bytes(network) / start)
        for layers, network in networks.items()
    }


def _weight_bytes(network: QuantizedNetwork) -> float:
    modules = [module for module in network.graph.modules() if isinstance(module, WeightQuantizer)]
    rounded = {id(module.op.weight): module.op.weight.numel() * module.bits / 8 for module in modules}
    every = {id(value): value.numel() * 4.0 for value in network.parameters()}
    return sum({**every, **rounded}.values())


def _cost(latency: Latency, ratio: Ratio | None) -> Cost:
    """The start itself has no ratio: it is what the others are measured by."""
    one = Interval(lower=1.0, upper=1.0, confidence=round(2 * CONFIDENCE - 1, 12))
    return Cost(
        what="latency",
        ratio=1.0 if ratio is None else ratio.value,
        interval=one if ratio is None else ratio.interval,
        samples=latency.samples,
        processes=latency.processes,
    )


@torch.no_grad()
def timing_twin(network: QuantizedNetwork) -> QuantizedNetwork:
    """A copy with a quantizer of its own, and a scale like no other, for every tensor that is rounded.

    For timing alone: kernels take as long whatever the scales are, but the exporter merges those that are
    equal, and then nobody could tell tensors apart.
    """
    twin = copy.deepcopy(network)
    calls = [node for node in twin.graph.graph.nodes if is_quantizer(twin, node)]
    for number, node in enumerate(calls):
        own = copy.deepcopy(quantizer_at(twin, str(node.target)))
        own.amax.fill_(1 + number / 1024)
        path = f"{_OWN}.{tensor_of(twin, node)}"
        twin.graph.add_submodule(path, own)
        node.target = path
    for number, module in enumerate(twin.graph.modules()):
        if isinstance(module, WeightQuantizer):
            module.op.weight.mul_(1 + number / 1024)
    twin.graph.recompile()
    return twin
