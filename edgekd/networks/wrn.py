"""Wide residual networks (Zagoruyko and Komodakis 2016): wrn-D-K has depth D = 6n + 4 and width K.

Pre-activation; the shortcut of a block whose width changes is a 1x1 convolution of the activated input. No
dropout, as in the distillation literature.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from edgekd.errors import NetworkError
from edgekd.networks.blocks import chain, conv_bn_relu, global_pool


def wrn(name: str, in_channels: int, num_classes: int) -> nn.Sequential:
    """Build `wrn-D-K`: (N, C, H, W) -> logits (N, K).

    Raises:
        NetworkError: D is not 6n + 4 with n >= 1, or K is not at least 1.
    """
    blocks, factor = _parse(name)
    widths = (16 * factor, 32 * factor, 64 * factor)
    return chain(
        stem=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
        stage1=_stage(16, widths[0], blocks, stride=1),
        stage2=_stage(widths[0], widths[1], blocks, stride=2),
        stage3=_stage(widths[1], widths[2], blocks, stride=2),
        head=nn.Sequential(nn.BatchNorm2d(widths[2]), nn.ReLU()),
        pool=global_pool(),
        logits=nn.Linear(widths[2], num_classes),
    )


def _parse(name: str) -> tuple[int, int]:
    """Blocks a stage and widening factor of `wrn-D-K`."""
    found = re.fullmatch(r"wrn-(\d{1,4})-(\d{1,3})", name)
    if found is None:
        raise NetworkError(f"'{name}' is no WRN", hint="write wrn-DEPTH-WIDTH, such as wrn-16-2")
    depth, factor = int(found[1]), int(found[2])
    if depth < 10 or (depth - 4) % 6:
        raise NetworkError(
            f"'{name}' has depth {depth}; the depth of a WRN is 6n + 4",
            hint="10, 16, 22, 28, 34 or 40, such as wrn-16-2",
        )
    if factor < 1:
        raise NetworkError(f"'{name}' has width 0", hint="the width is at least 1, such as wrn-16-2")
    return (depth - 4) // 6, factor


class PreActivationBlock(nn.Module):
    """x + conv-bn-relu-conv(relu(bn(x))), for equal widths."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.residual = _residual(channels, channels, stride=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.residual(self.activation(x_NCHW)) + x_NCHW  # type: ignore[no-any-return]


class ProjectionBlock(nn.Module):
    """a = relu(bn(x)); conv1x1(a) + conv-bn-relu-conv(a), where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.residual = _residual(in_channels, out_channels, stride)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        activated_NCHW = self.activation(x_NCHW)
        return self.residual(activated_NCHW) + self.shortcut(activated_NCHW)  # type: ignore[no-any-return]


def _residual(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    last = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(*conv_bn_relu(in_channels, out_channels, 3, stride=stride), last)


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    # wrn-D-1 keeps 16 channels into its first stage, which then needs no projection.
    same = stride == 1 and in_channels == out_channels
    first = PreActivationBlock(out_channels) if same else ProjectionBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(out_channels) for _ in range(blocks - 1)))
