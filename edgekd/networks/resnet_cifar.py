"""ResNets for small images (He et al. 2016, section 4.2), and the x4 widths of the distillation literature.

A 3x3 stem, three stages of n blocks with two 3x3 convolutions each, depth 6n + 2; the second and the third
stage halve the map. Where the shape changes the shortcut is a 1x1 convolution with batch norm (option B of
the paper), as in CRD (Tian et al. 2020) and all that compare themselves with it; the paper padded with zeros.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.networks.blocks import chain, conv_bn, conv_bn_relu, global_pool

_PLAIN = (16, 16, 32, 64)
_X4 = (32, 64, 128, 256)

# name -> depth, channels of the stem and of the three stages
RESNETS: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "resnet8": (8, _PLAIN),
    "resnet14": (14, _PLAIN),
    "resnet20": (20, _PLAIN),
    "resnet32": (32, _PLAIN),
    "resnet44": (44, _PLAIN),
    "resnet56": (56, _PLAIN),
    "resnet110": (110, _PLAIN),
    "resnet8x4": (8, _X4),
    "resnet32x4": (32, _X4),
}


def resnet(name: str, in_channels: int, num_classes: int) -> nn.Sequential:
    """A network of `RESNETS`: (N, C, H, W) -> logits (N, K)."""
    depth, (stem, *widths) = RESNETS[name]
    blocks = (depth - 2) // 6
    return chain(
        stem=nn.Sequential(*conv_bn_relu(in_channels, stem, 3)),
        stage1=_stage(stem, widths[0], blocks, stride=1),
        stage2=_stage(widths[0], widths[1], blocks, stride=2),
        stage3=_stage(widths[1], widths[2], blocks, stride=2),
        pool=global_pool(),
        logits=nn.Linear(widths[2], num_classes),
    )


class BasicBlock(nn.Module):
    """relu(conv-bn-relu-conv-bn(x) + shortcut(x))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        first = conv_bn_relu(in_channels, out_channels, 3, stride=stride)
        self.residual = nn.Sequential(*first, *conv_bn(out_channels, out_channels, 3))
        same = stride == 1 and in_channels == out_channels
        projection = () if same else conv_bn(in_channels, out_channels, 1, stride=stride)
        self.shortcut = nn.Sequential(*projection)
        self.relu = nn.ReLU()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.relu(self.residual(x_NCHW) + self.shortcut(x_NCHW))  # type: ignore[no-any-return]


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
