"""Set the activation scales from data: the largest magnitude that each tensor takes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from edgekd.errors import DataError
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.scheme import SMALLEST_AMAX


def calibrate(quantized: QuantizedNetwork, batches: Iterable[Tensor]) -> None:
    """Measure every activation of the float network over all batches, and set the scales anew.

    Leaves observing and fake quantizing off and the mode (training, evaluation) as it was.

    Args:
        quantized: the network.
        batches: tensors (B, ...) on its device, normalized as in training, without augmentation.

    Raises:
        DataError: there is no batch, or a tensor takes a value that is not finite (names the first).
    """
    was_training = quantized.training
    quantized.eval().set_fake_quantizing(False)
    for quantizer in quantized.quantizers():
        quantizer.amax.zero_()
    quantized.watch("calibrating")
    try:
        count = _run(quantized, batches)
    finally:
        quantized.watch("off")
        quantized.train(was_training)
    if count == 0:
        raise DataError("there are no examples to calibrate with")
    _check_finite(quantized)
    for quantizer in quantized.quantizers():
        quantizer.amax.clamp_(min=SMALLEST_AMAX)


@torch.no_grad()
def _run(quantized: QuantizedNetwork, batches: Iterable[Tensor]) -> int:
    count = 0
    for x in batches:
        quantized(x)
        count += len(x)
    return count


def _check_finite(quantized: QuantizedNetwork) -> None:
    for quantizer in quantized.quantizers():
        if not torch.isfinite(quantizer.amax):
            raise DataError(
                f"calibration: {quantizer.label} takes the value {float(quantizer.amax)}",
                hint="look for NaN or infinity in the training examples, or train at a lower learning rate",
            )
