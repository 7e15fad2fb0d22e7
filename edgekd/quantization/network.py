"""The quantized network: what is calibrated, fine-tuned and exported."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, fx, nn

from edgekd.errors import ConversionError
from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.observer import Watching
from edgekd.quantization.scheme import Saturation, activation_scale


class QuantizedNetwork(nn.Module):
    """A network with batch norm folded and fake quantizers in place; made by `prepare`.

    With fake quantization off it computes the folded fp32 network. Weights and biases are parameters to
    train; the largest magnitude of each activation is a buffer, so that a state dict carries the scales.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of a batch (B, ...)."""
        logits = self.graph(x)
        assert isinstance(logits, Tensor)
        return logits

    def quantizers(self) -> Iterator[ActivationQuantizer]:
        """The quantizers of activations, in the order of the graph."""
        for module in self.graph.modules():
            if isinstance(module, ActivationQuantizer):
                yield module

    def watch(self, watching: Watching) -> None:
        """Whether and how the largest magnitudes are followed; calibration's own switch."""
        for quantizer in self.quantizers():
            quantizer.watching = watching

    def set_observing(self, on: bool) -> None:
        """Follow activations with a moving average while in training mode; False freezes the scales."""
        self.watch("following" if on else "off")

    def set_fake_quantizing(self, on: bool) -> None:
        """Round weights and activations to the int8 grid, or compute in float.

        Raises:
            ConversionError: there are no scales yet.
        """
        if on:
            self._require_scales()
        for module in self.graph.modules():
            if isinstance(module, ActivationQuantizer | WeightQuantizer):
                module.quantizing = on

    def set_saturation(self, saturation: Saturation) -> None:
        """Which artifact's arithmetic to follow (see scheme.py)."""
        for module in self.graph.modules():
            if isinstance(module, ActivationQuantizer | WeightQuantizer):
                module.saturation = saturation

    def scales(self) -> dict[str, float]:
        """Scale of every quantized activation, by the place in the network that makes it.

        Raises:
            ConversionError: there are no scales yet.
        """
        self._require_scales()
        return {quantizer.label: float(activation_scale(quantizer.amax)) for quantizer in self.quantizers()}

    def _require_scales(self) -> None:
        missing = [quantizer.label for quantizer in self.quantizers() if not quantizer.calibrated]
        if missing:
            raise ConversionError(
                f"{len(missing)} activations have no scale, the first is {missing[0]}",
                hint="calibrate the network, or load a state dict that was saved after calibration",
            )
