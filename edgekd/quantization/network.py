"""The quantized network: what is calibrated, fine-tuned and exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx, nn

from edgekd.errors import ConversionError
from edgekd.quantization.batch_norm import folded_norms, is_folded
from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.hard_swish import Int8HardSwish
from edgekd.quantization.scheme import Saturation, activation_scale


class QuantizedNetwork(nn.Module):
    """A network with batch norm folded and fake quantizers in place; made by `prepare`.

    With fake quantization off it computes the folded fp32 network. Weights and biases are parameters to
    train, and so are the scales where the scheme has them learned; else the largest magnitude of each
    activation is a buffer. Either way a state dict carries the scales.
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

    def set_observing(self, on: bool) -> None:
        """Let the scales move in training mode, as the scheme has it; False freezes them.

        Learned scales move by their gradient, others follow the activations. A weight's scale that is not
        learned always follows its weight.
        """
        for module in self._fake_quantizers():
            module.moving = on

    def set_fake_quantizing(self, on: bool) -> None:
        """Round weights and activations to their grids, or compute in float.

        Raises:
            ConversionError: there are no scales yet.
        """
        if on:
            self._require_scales()
        for module in self._fake_quantizers():
            module.quantizing = on

    def unfold_batch_norm(self, network: nn.Module, example_x: Tensor) -> None:
        """Take the batch norms of `network`, which this was prepared from, out of the weights: they learn on.

        In evaluation nothing changes, bit for bit. A layer whose weight is no longer that of `network`, and
        one that is not quantized, stays folded.

        Args:
            network: on this network's device; left as it is.
            example_x: a batch (B, ...) on that device.
        """
        norms = folded_norms(network, example_x)
        for path, module in self.weight_quantizers():
            if path in norms and is_folded(module.op.weight, *norms[path]):
                module.op, module.norm = norms[path]
                module.requires_grad_(True)

    def fold_batch_norm(self) -> None:
        """Fold what was unfolded into the weights again, as it is now."""
        for _, module in self.weight_quantizers():
            if module.norm is not None:
                weight, bias = module.shipped()
                assert bias is not None
                module.op.weight, module.op.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
                module.norm = None

    def set_normalizing(self, on: bool) -> None:
        """Let the statistics of unfolded batch norms move in training mode; False freezes them."""
        for _, module in self.weight_quantizers():
            module.normalizing = on

    def set_saturation(self, saturation: Saturation) -> None:
        """Which artifact's arithmetic to follow (see scheme.py)."""
        for module in self._fake_quantizers():
            module.saturation = saturation

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the shapes of a state dict do not show of how it computes, for the digest of a training."""
        return {
            "bits": {path: module.bits for path, module in self.weight_quantizers()},
            "learned": self.learned,
            "saturation": sorted({module.saturation for module in self._fake_quantizers()}),
        }

    @property
    def learned(self) -> bool:
        """Whether scales are learned rather than followed."""
        return any(quantizer.learned for quantizer in self.quantizers())

    def scales(self) -> dict[str, float]:
        """Scale of every quantized activation, by the place in the network that makes it.

        Raises:
            ConversionError: there are no scales yet.
        """
        self._require_scales()
        scales = {quantizer.label: activation_scale(quantizer.amax) for quantizer in self.quantizers()}
        return {label: float(scale.detach()) for label, scale in scales.items()}

    def _fake_quantizers(self) -> Iterator[ActivationQuantizer | WeightQuantizer | Int8HardSwish]:
        for module in self.graph.modules():
            if isinstance(module, ActivationQuantizer | WeightQuantizer | Int8HardSwish):
                yield module

    def weight_quantizers(self) -> Iterator[tuple[str, WeightQuantizer]]:
        """The quantized layers by their names, in the order of the network."""
        for path, module in self.graph.named_modules():
            if isinstance(module, WeightQuantizer):
                yield path, module

    def _require_scales(self) -> None:
        missing = [quantizer.label for quantizer in self.quantizers() if not quantizer.calibrated]
        if missing:
            raise ConversionError(
                f"{len(missing)} activations have no scale, the first is {missing[0]}",
                hint="calibrate the network, or load a state dict that was saved after calibration",
            )
