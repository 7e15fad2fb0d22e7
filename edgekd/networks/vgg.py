"""VGG for small images (Simonyan and Zisserman 2015), in CRD's CIFAR form: batch norm, one linear layer.

Five blocks of 3x3 convolutions with a 2x2 max pooling before each but the first. The literature pools three
times on 32x32 and four times on 64x64; here a pooling is left out where the shorter side would fall below 3,
which is the same on those two sizes and keeps a map on 8x8. The convolutions keep a bias although batch norm
follows, so that the parameters are the published ones; folding removes it.
"""

from __future__ import annotations

from torch import nn

from edgekd.networks.blocks import chain, global_pool

_WIDTHS = (64, 128, 256, 512, 512)
_SMALLEST_SIDE = 3

# name -> convolutions in each of the five blocks
VGGS: dict[str, tuple[int, int, int, int, int]] = {"vgg8": (1, 1, 1, 1, 1), "vgg13": (2, 2, 2, 2, 2)}


def vgg(name: str, in_channels: int, num_classes: int, side: int) -> nn.Sequential:
    """A network of `VGGS`: (N, C, H, W) -> logits (N, K); `side` is the shorter of H and W, in pixels."""
    parts: dict[str, nn.Module] = {}
    channels = in_channels
    for index, (width, convolutions) in enumerate(zip(_WIDTHS, VGGS[name], strict=True)):
        pooled = index > 0 and side // 2 >= _SMALLEST_SIDE
        side = side // 2 if pooled else side
        parts[f"stage{index}" if index else "stem"] = _block(channels, width, convolutions, pooled)
        channels = width
    return chain(**parts, pool=global_pool(), logits=nn.Linear(channels, num_classes))


def _block(in_channels: int, out_channels: int, convolutions: int, pooled: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2)] if pooled else []
    for index in range(convolutions):
        source = out_channels if index else in_channels
        layers += [nn.Conv2d(source, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)
