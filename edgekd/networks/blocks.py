"""What several families of networks are made of.

Every built-in network is a chain of named parts, and the names are its taps: stem, stage1 .. stageN, perhaps
head, then pool (the penultimate feature, (N, C)) and logits (N, K). No forward pass looks at a shape, so that
torch.fx can trace it for any batch size; every activation is an nn.ReLU and every residual add a `+`, so that
the quantizer knows them.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn


def chain(**parts: nn.Module) -> nn.Sequential:
    """Named parts, one after the other, with He initialization."""
    network = nn.Sequential(OrderedDict(parts))
    _initialize(network)
    return network


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution that keeps the size (at stride 1), then batch norm."""
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(out_channels)]


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution that keeps the size (at stride 1), batch norm, ReLU."""
    return [*conv_bn(in_channels, out_channels, kernel, stride=stride, groups=groups), nn.ReLU()]


def global_pool() -> nn.Sequential:
    """Mean over the map, whatever its size: (N, C, H, W) -> (N, C)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


class ChannelShuffle(nn.Module):
    """Interleave groups of channels: channel (g, c) moves to (c, g)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.grouping = (groups, channels // groups)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return torch.unflatten(x_NCHW, 1, self.grouping).transpose(1, 2).flatten(1, 2)


def _initialize(network: nn.Module) -> None:
    """He et al. 2015, fan out counted per group: normal with variance 2 / (k k out / groups); biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
