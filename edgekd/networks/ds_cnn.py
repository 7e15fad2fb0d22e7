"""DS-CNN for keyword spotting (Zhang et al. 2017, "Hello Edge", the small one).

A strided 10x4 convolution over (time, frequency), then four depthwise separable blocks of 64 channels. The
padding gives 25x5 on the paper's 49x10 spectra, as its `same` padding does; any spectrum from 8x8 up fits.
The convolutions have no bias because batch norm follows; the paper's have.
"""

from __future__ import annotations

from torch import nn

from edgekd.networks.blocks import chain, conv_bn_relu, global_pool

_WIDTH = 64


def ds_cnn(in_channels: int, num_classes: int) -> nn.Sequential:
    """DS-CNN of 64 channels: spectra (N, C, time, frequency) -> logits (N, K)."""
    stem = nn.Conv2d(in_channels, _WIDTH, (10, 4), stride=2, padding=(5, 1), bias=False)
    return chain(
        stem=nn.Sequential(stem, nn.BatchNorm2d(_WIDTH), nn.ReLU()),
        stage1=_block(),
        stage2=_block(),
        stage3=_block(),
        stage4=_block(),
        pool=global_pool(),
        logits=nn.Linear(_WIDTH, num_classes),
    )


def _block() -> nn.Sequential:
    """3x3 depthwise, then 1x1, each with batch norm and ReLU."""
    return nn.Sequential(*conv_bn_relu(_WIDTH, _WIDTH, 3, groups=_WIDTH), *conv_bn_relu(_WIDTH, _WIDTH, 1))
