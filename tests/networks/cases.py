"""One row a built-in network: parameters at 3 channels and 100 classes, and what was published for it."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    parameters: int
    published: str | None
    """Millions, as CRD (RepDistiller) and those who follow it print them."""
    taps: tuple[str, ...]


_THREE = ("stem", "stage1", "stage2", "stage3")
_FOUR = (*_THREE, "stage4")
_END = ("pool", "logits")

CASES = (
    Case("resnet8", 83_892, None, _THREE + _END),
    Case("resnet14", 181_108, None, _THREE + _END),
    Case("resnet20", 278_324, "0.28", _THREE + _END),
    Case("resnet32", 472_756, "0.47", _THREE + _END),
    Case("resnet44", 667_188, "0.67", _THREE + _END),
    Case("resnet56", 861_620, "0.86", _THREE + _END),
    Case("resnet110", 1_736_564, "1.74", _THREE + _END),
    Case("resnet8x4", 1_233_540, "1.23", _THREE + _END),
    Case("resnet32x4", 7_433_860, "7.43", _THREE + _END),
    Case("wrn-16-1", 180_916, None, (*_THREE, "head", *_END)),
    Case("wrn-16-2", 703_284, "0.70", (*_THREE, "head", *_END)),
    Case("wrn-28-2", 1_479_220, None, (*_THREE, "head", *_END)),
    Case("wrn-40-1", 569_780, "0.57", (*_THREE, "head", *_END)),
    Case("wrn-40-2", 2_255_156, "2.26", (*_THREE, "head", *_END)),
    Case("vgg8", 3_965_028, "3.97", _FOUR + _END),
    Case("vgg13", 9_462_180, "9.46", _FOUR + _END),
    Case("mobilenetv2", 812_836, "0.81", (*_FOUR, "head", *_END)),
    Case("shufflenetv1", 949_258, "0.95", _THREE + _END),
    Case("shufflenetv2", 1_355_528, "1.36", (*_THREE, "head", *_END)),
    Case("ds-cnn", 34_020, None, _FOUR + _END),
)
