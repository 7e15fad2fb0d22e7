"""The schemes that spare some layers of a first one, each prepared with the first one's scales.

Calibration observes the float network, so that the scale of a tensor is the same in every scheme; a variant
is prepared as it would ship, and takes the scales over. The weights are shared with the first network: a
hundred variants take little more memory than one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from edgekd.documents.scheme import LayerPrecision, Scheme
from edgekd.quantization.layers import layers_of, quantizer_at, rounded_tensors, sources_of, weight_bits_of
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.quantization.scheme import Saturation
from edgekd.quantization.spare import Layers


class Variants:
    """A student, the scheme that is started from, and the schemes that spare some of its layers."""

    def __init__(
        self,
        student: nn.Module,
        build: Callable[[Scheme], QuantizedNetwork],
        example_x: Tensor,
        start: Scheme,
        saturation: Saturation,
    ) -> None:
        """Build the first network.

        Args:
            student: the fp32 student, in evaluation.
            build: a scheme -> the student prepared and calibrated by it.
            example_x: a batch (B, ...) on the student's device.
            start: the scheme to start from.
            saturation: that every network gets.
        """
        self._student, self._build, self._example_x = student, build, example_x
        self._start, self._saturation = start, saturation
        self.first = self.built(frozenset())
        self._amax = {
            node: quantizer_at(self.first, path).amax
            for path, nodes in sources_of(self.first).items()
            for node in nodes
        }
        self._weights = {_plain(name): value for name, value in self.first.named_parameters()}
        self._prepared: dict[Layers, QuantizedNetwork] = {}

    @property
    def precision(self) -> LayerPrecision:
        """What a spared layer has: 8 bits where the others have 4, else float."""
        return "int8" if self._start.weight_bits == 4 else "float"

    def layers(self) -> tuple[str, ...]:
        """The layers that can be spared, in the order of the network."""
        if self.precision == "int8":
            return tuple(name for name, bits in weight_bits_of(self.first).items() if bits == 4)
        return layers_of(self.first)

    def alone(self) -> tuple[str, ...]:
        """Those that make a difference without others; an addition between convolutions makes none."""
        return tuple(name for name in self.layers() if self._differs(self.prepared({name})))

    def scheme(self, layers: Collection[str]) -> Scheme:
        """The scheme that spares these layers."""
        exceptions = {**self._start.layers, **dict.fromkeys(sorted(layers), self.precision)}
        return self._start.model_copy(update={"layers": exceptions})

    def built(self, layers: Collection[str]) -> QuantizedNetwork:
        """The network that spares these layers, calibrated anew; in evaluation, rounding."""
        return self._ready(self._build(self.scheme(layers)))

    def prepared(self, layers: Collection[str]) -> QuantizedNetwork:
        """The network that spares these layers, with the scales of the first; in evaluation, rounding."""
        key = frozenset(layers)
        if key not in self._prepared:
            network = prepare(self._student, self._example_x, self.scheme(layers))
            self._share_weights(network)
            scaled = self._take_scales(network)
            self._prepared[key] = self._ready(network) if scaled else self.built(layers)
        return self._prepared[key]

    @torch.no_grad()
    def _take_scales(self, network: QuantizedNetwork) -> bool:
        """Whether the first network has a scale for every tensor; a form of its own has others."""
        sources = sources_of(network)
        if not self._amax.keys() >= {node for nodes in sources.values() for node in nodes}:
            return False
        for path, nodes in sources.items():
            quantizer_at(network, path).amax.copy_(max(self._amax[node] for node in nodes))
        return True

    def _share_weights(self, network: QuantizedNetwork) -> None:
        for name, value in network.named_parameters():
            known = self._weights.get(_plain(name))
            if known is not None and torch.equal(known, value):
                value.data = known.data

    def _differs(self, network: QuantizedNetwork) -> bool:
        """Whether anything is quantized otherwise than in the first; an operation in float does not."""
        return any(view(network) != view(self.first) for view in (weight_bits_of, rounded_tensors))

    def _ready(self, network: QuantizedNetwork) -> QuantizedNetwork:
        network.eval()
        network.set_observing(False)
        network.set_saturation(self._saturation)
        network.set_fake_quantizing(True)
        return network


def _plain(name: str) -> str:
    """A parameter's name whether or not its layer is quantized."""
    path, _, own = name.rpartition(".")
    return f"{path.removesuffix('.op')}.{own}"
