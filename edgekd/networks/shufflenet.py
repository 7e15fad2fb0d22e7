"""ShuffleNets for small images: V1 with three groups (Zhang et al. 2018), V2 at width 1 (Ma et al. 2018).

The CIFAR form of CRD (Tian et al. 2020): a 1x1 stem of 24 channels without pooling instead of a strided 3x3
one, then three stages that halve the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.networks.blocks import ChannelShuffle, chain, conv_bn, conv_bn_relu, global_pool

_STEM = 24
_GROUPS = 3
_V1_STAGES = ((240, 4), (480, 8), (960, 4))  # channels, blocks
_V2_STAGES = ((116, 4), (232, 8), (464, 4))
_V2_HEAD = 1024


def shufflenetv1(in_channels: int, num_classes: int) -> nn.Sequential:
    """ShuffleNetV1 with 3 groups: (N, C, H, W) -> logits (N, K)."""
    parts: dict[str, nn.Module] = {}
    channels = _STEM
    for number, (width, blocks) in enumerate(_V1_STAGES, start=1):
        # The first convolution of all has too few channels to be grouped.
        groups = 1 if channels == _STEM else _GROUPS
        first = V1Down(channels, width, groups)
        parts[f"stage{number}"] = nn.Sequential(first, *(V1Block(width) for _ in range(blocks - 1)))
        channels = width
    return chain(
        stem=nn.Sequential(*conv_bn_relu(in_channels, _STEM, 1)),
        **parts,
        pool=global_pool(),
        logits=nn.Linear(channels, num_classes),
    )


def shufflenetv2(in_channels: int, num_classes: int) -> nn.Sequential:
    """ShuffleNetV2 x1: (N, C, H, W) -> logits (N, K)."""
    parts: dict[str, nn.Module] = {}
    channels = _STEM
    for number, (width, blocks) in enumerate(_V2_STAGES, start=1):
        first = V2Down(channels, width)
        parts[f"stage{number}"] = nn.Sequential(first, *(V2Block(width) for _ in range(blocks - 1)))
        channels = width
    return chain(
        stem=nn.Sequential(*conv_bn_relu(in_channels, _STEM, 1)),
        **parts,
        head=nn.Sequential(*conv_bn_relu(channels, _V2_HEAD, 1)),
        pool=global_pool(),
        logits=nn.Linear(_V2_HEAD, num_classes),
    )


class V1Block(nn.Module):
    """relu(branch(x) + x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _v1_branch(channels, channels, stride=1, groups=_GROUPS)
        self.relu = nn.ReLU()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.relu(self.branch(x_NCHW) + x_NCHW)  # type: ignore[no-any-return]


class V1Down(nn.Module):
    """relu(concat(branch(x), average pooling of x)): half the map, more channels."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.branch = _v1_branch(in_channels, out_channels - in_channels, stride=2, groups=groups)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2)."""
        return self.relu(torch.cat([self.branch(x_NCHW), self.shortcut(x_NCHW)], dim=1))  # type: ignore[no-any-return]


def _v1_branch(in_channels: int, out_channels: int, stride: int, groups: int) -> nn.Sequential:
    """Grouped 1x1 to a quarter, shuffle, 3x3 depthwise, grouped 1x1."""
    hidden = out_channels // 4
    return nn.Sequential(
        *conv_bn_relu(in_channels, hidden, 1, groups=groups),
        *([ChannelShuffle(hidden, groups)] if groups > 1 else []),
        *conv_bn_relu(hidden, hidden, 3, stride=stride, groups=hidden),
        *conv_bn(hidden, out_channels, 1, groups=_GROUPS),
    )


class V2Block(nn.Module):
    """shuffle(concat(one half of the channels, branch(the other half)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = _v2_branch(half, half, stride=1)
        self.shuffle = ChannelShuffle(channels, 2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        kept_NCHW, worked_NCHW = x_NCHW.chunk(2, dim=1)
        return self.shuffle(torch.cat([kept_NCHW, self.branch(worked_NCHW)], dim=1))  # type: ignore[no-any-return]


class V2Down(nn.Module):
    """shuffle(concat(strided shortcut of all channels, strided branch of all channels))."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.shortcut = nn.Sequential(
            *conv_bn(in_channels, in_channels, 3, stride=2, groups=in_channels),
            *conv_bn_relu(in_channels, half, 1),
        )
        self.branch = _v2_branch(in_channels, half, stride=2)
        self.shuffle = ChannelShuffle(out_channels, 2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2)."""
        return self.shuffle(torch.cat([self.shortcut(x_NCHW), self.branch(x_NCHW)], dim=1))  # type: ignore[no-any-return]


def _v2_branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """1x1, 3x3 depthwise without activation, 1x1."""
    return nn.Sequential(
        *conv_bn_relu(in_channels, out_channels, 1),
        *conv_bn(out_channels, out_channels, 3, stride=stride, groups=out_channels),
        *conv_bn_relu(out_channels, out_channels, 1),
    )
