"""Which arithmetic a training uses: fp32 or bf16 autocast, and the memory layout of images.

`auto` is a rule, not a timing, so that a result never depends on how busy a machine was. Where the rule puts
its limits was measured once (2 threads of a CPU with avx512_bf16; forward, backward and step; images/s):

                          fp32    fp32, channels last   bf16, channels last
    resnet8   at  8x8x1   15312         21813                 23414
    wrn-16-2  at  8x8x1    5392          6371                  7350
    wrn-16-2  at 16x16x1   1591          1932                  2320
    resnet8   at 28x28x1   3153          4153                  5641
    resnet8   at 32x32x3   1104          2316                  3703
    wrn-16-2  at 32x32x3    179           454                   967
    timm mobilenetv2_100
              at 32x32x3    750          1413                   627

So images are always channels last; bf16 is taken from 16x16 positions on, where it is worth more than its
rounding, and never on a CPU for depthwise convolutions, whose bf16 kernels are slower there.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Choice = Literal["auto", "fp32", "bf16"]

_MIN_POSITIONS = 16 * 16
_CPU_BF16 = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Precision:
    """Arithmetic and memory layout of a training."""

    dtype: Literal["fp32", "bf16"]
    """Arithmetic of the networks; losses, weights and normalization statistics are always fp32."""
    channels_last: bool
    """Whether images (N, C, H, W) and their convolutions' weights lie channels last in memory."""

    def __str__(self) -> str:
        return f"{self.dtype}, channels last" if self.channels_last else self.dtype

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which a network runs forward."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.dtype == "bf16")

    def lay_out(self, x_BC: Tensor) -> Tensor:
        """A batch in this layout."""
        return x_BC.contiguous(memory_format=torch.channels_last) if self.channels_last else x_BC

    def lay_out_network(self, network: nn.Module) -> None:
        """Bring a network's weights into this layout, in place."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)


def resolve_precision(
    choice: Choice, input_shape: tuple[int, ...], network: nn.Module | None = None
) -> Precision:
    """Settle `auto` for this machine, this input and this network.

    Args:
        choice: what the recipe says.
        input_shape: one example without the batch axis, channels first.
        network: what will be trained; None asks only what the machine offers for such an input.
    """
    channels_last = len(input_shape) == 3
    if choice != "auto":
        return Precision(choice, channels_last)
    positions = math.prod(input_shape[1:])
    if torch.cuda.is_available():
        return Precision("bf16" if torch.cuda.is_bf16_supported() else "fp32", channels_last)
    wanted = positions >= _MIN_POSITIONS and cpu_has_bf16() and not _has_depthwise(network)
    return Precision("bf16" if wanted else "fp32", channels_last)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 natively."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_BF16)


def _has_depthwise(network: nn.Module | None) -> bool:
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    modules = [] if network is None else network.modules()
    return any(
        isinstance(module, convolutions) and 1 < module.groups == module.in_channels for module in modules
    )
