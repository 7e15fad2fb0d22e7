"""Set the activation scales from data: one pass of the float network over the examples, then a calibrator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.documents.quantization import Calibrator
from edgekd.errors import DataError
from edgekd.quantization.calibrators import PERCENTILE, reach
from edgekd.quantization.fake_quant import ActivationQuantizer
from edgekd.quantization.histogram import Magnitudes
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.scheme import CODE_MAX, SMALLEST_AMAX, Saturation, code_range

_ENOUGH = math.ceil(1 / (1 - PERCENTILE) - 1e-6)
"""Values of a tensor below which its 99.99th percentile is its largest value."""


def calibrate(
    quantized: QuantizedNetwork,
    batches: Iterable[Tensor],
    calibrator: Calibrator = "max",
    *,
    saturation: Saturation = "s8",
) -> tuple[str, ...]:
    """Observe every activation of the float network over all batches, and set the scales anew.

    Leaves observing and fake quantizing off and the mode (training, evaluation) as it was.

    Args:
        quantized: the network.
        batches: tensors (B, ...) on its device, normalized as in training, without augmentation; read once.
        calibrator: how to choose a scale (see calibrators.py).
        saturation: whose codes the scales are for. `s8` is right for every artifact: where codes reach 255,
            values beyond the reach still have codes. `u8` spends those codes on smaller steps instead: a
            tensor that is never negative is rounded half as coarsely, and int8 clips the upper half of it.

    Returns:
        What the user should know, a line each.

    Raises:
        DataError: there is no batch, or a tensor takes a value that is not finite (names the first).
    """
    was_training = quantized.training
    quantized.eval().set_fake_quantizing(False)
    quantized.set_observing(False)
    try:
        found = _observe(quantized, batches, binned=calibrator != "max")
    finally:
        quantized.train(was_training)
    _check_finite(found)
    for quantizer, magnitudes in found.items():
        _set_scale(quantizer, magnitudes, calibrator, saturation)
    return tuple(_notes(found)) if calibrator == "percentile" else ()


def _set_scale(
    quantizer: ActivationQuantizer, magnitudes: Magnitudes, calibrator: Calibrator, saturation: Saturation
) -> None:
    _, codes = code_range(saturation, non_negative=quantizer.non_negative)
    reached = reach(magnitudes, calibrator, codes=codes)
    with torch.no_grad():
        quantizer.amax.fill_(max(reached * CODE_MAX / codes, SMALLEST_AMAX))


@torch.no_grad()
def _observe(
    quantized: QuantizedNetwork, batches: Iterable[Tensor], *, binned: bool
) -> dict[ActivationQuantizer, Magnitudes]:
    found = {quantizer: Magnitudes() for quantizer in quantized.quantizers()}
    count = 0
    with _each_input(found, lambda quantizer, x: found[quantizer].add(x, binned=binned)):
        for x in batches:
            count += len(x)
            if len(x):
                quantized(x)
    if count == 0:
        raise DataError("there are no examples to calibrate with")
    return found


@contextmanager
def _each_input(
    quantizers: Iterable[ActivationQuantizer], take: Callable[[ActivationQuantizer, Tensor], None]
) -> Iterator[None]:
    """While the block lasts, `take` gets every tensor that a quantizer reads, but not its repeats."""

    def hook(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        assert isinstance(module, ActivationQuantizer)
        if not options.get("repeated"):
            take(module, args[0])

    handles = [quantizer.register_forward_pre_hook(hook, with_kwargs=True) for quantizer in quantizers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_finite(found: dict[ActivationQuantizer, Magnitudes]) -> None:
    for quantizer, magnitudes in found.items():
        if not math.isfinite(magnitudes.amax):
            raise DataError(
                f"calibration: {quantizer.label} takes the value {magnitudes.amax}",
                hint="look for NaN or infinity in the training examples, or train at a lower learning rate",
            )


def _notes(found: dict[ActivationQuantizer, Magnitudes]) -> Iterator[str]:
    few = [
        quantizer.label
        for quantizer, magnitudes in found.items()
        if magnitudes.amax and int(magnitudes.counts.sum()) < _ENOUGH
    ]
    if few:
        yield (
            f"percentile: {len(few)} of {len(found)} activations took fewer than {_ENOUGH} values, of which "
            f"the {100 * PERCENTILE:g}th percentile is the largest (first {few[0]}): give more examples"
        )
