"""MobileNetV2 (Sandler et al. 2018) in the CIFAR form of the distillation literature: half width.

CRD (Tian et al. 2020) took this form over from RCO (Jin et al. 2019). It differs from the original: width 0.5
with a head of 1280 all the same, plain ReLU instead of ReLU6, a first block that keeps its 1x1 expansion at
factor 1, and stride 1 instead of 2 in the second group; the stem keeps its stride of 2. As an argument it
takes another activation than ReLU, as later networks of this shape have.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from edgekd.errors import NetworkError
from edgekd.networks.blocks import chain, conv_bn, conv_bn_relu, global_pool

# expansion, channels at full width, blocks, stride
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# A stage is the groups at one size of the map, as CRD takes its features: groups 1-2, 3, 4-5, 6-7.
_STAGES = ((0, 1), (2,), (3, 4), (5, 6))
_STEM = 16
_HEAD = 1280
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish}


def mobilenetv2(in_channels: int, num_classes: int, activation: object = "relu") -> nn.Sequential:
    """Half-width MobileNetV2 with `relu`, `silu` or `hardswish`: (N, C, H, W) -> logits (N, K).

    Raises:
        NetworkError: the activation is none of these.
    """
    if activation not in _ACTIVATIONS:
        message = f"there is no activation {activation!r}; known: {', '.join(_ACTIVATIONS)}"
        raise NetworkError(message, where="mobilenetv2")
    parts: dict[str, nn.Module] = {}
    channels = _STEM
    for number, groups in enumerate(_STAGES, start=1):
        blocks: list[nn.Module] = []
        for group in groups:
            expansion, width, repeats, stride = _GROUPS[group]
            for index in range(repeats):
                blocks.append(_inverted_residual(channels, width // 2, expansion, 1 if index else stride))
                channels = width // 2
        parts[f"stage{number}"] = nn.Sequential(*blocks)
    network = chain(
        stem=nn.Sequential(*conv_bn_relu(in_channels, _STEM, 3, stride=2)),
        **parts,
        head=nn.Sequential(*conv_bn_relu(channels, _HEAD, 1)),
        pool=global_pool(),
        logits=nn.Linear(_HEAD, num_classes),
    )
    _replace_relu(network, _ACTIVATIONS[str(activation)])
    return network


def _replace_relu(network: nn.Module, activation: type[nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, activation())


class Residual(nn.Module):
    """x + branch(x): a linear bottleneck has no activation after the add."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.branch(x_NCHW) + x_NCHW  # type: ignore[no-any-return]


def _inverted_residual(in_channels: int, out_channels: int, expansion: int, stride: int) -> nn.Module:
    """1x1 expansion, 3x3 depthwise, linear 1x1; with a shortcut where the shape stays."""
    hidden = in_channels * expansion
    branch = nn.Sequential(
        *conv_bn_relu(in_channels, hidden, 1),
        *conv_bn_relu(hidden, hidden, 3, stride=stride, groups=hidden),
        *conv_bn(hidden, out_channels, 1),
    )
    return Residual(branch) if stride == 1 and in_channels == out_channels else branch
