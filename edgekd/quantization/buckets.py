"""Buckets: a tensor cut into runs of equal length, each brought to [0, 1] by its own range.

    v = (w - beta) / alpha,   alpha = max - min,   beta = min   of the bucket

The elements are taken in row-major order whatever their layout in memory; the last bucket is filled up with
the last element, which moves no range. A bucket of one value has alpha 0, and v = 0.
Source: Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", ICLR 2018.
Axes: B buckets, S elements of a bucket, N elements of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaled:
    """A tensor in buckets, each scaled to [0, 1]."""

    values_BS: Tensor
    """(B, S), float32, in [0, 1]."""
    alpha_B: Tensor
    """(B,), float32: width of each bucket's range."""
    beta_B: Tensor
    """(B,), float32: its lower end."""


def bucket_size(count: int, bucket: int | None) -> int:
    """Elements of a bucket of a tensor of `count` elements; None for `bucket` is the whole tensor."""
    return max(1, count if bucket is None else min(count, bucket))


def cut(w: Tensor, bucket: int | None) -> Tensor:
    """A tensor of any shape as buckets (B, S)."""
    flat_N = w.reshape(-1)
    size = bucket_size(len(flat_N), bucket)
    missing = -len(flat_N) % size
    if missing:
        flat_N = torch.cat([flat_N, flat_N[-1:].expand(missing)])
    return flat_N.view(-1, size)


def join(rows_BS: Tensor, shape: Sequence[int]) -> Tensor:
    """Buckets (B, S) as the tensor of this shape that was cut."""
    return rows_BS.reshape(-1)[: math.prod(shape)].view(torch.Size(shape))


def scale_down(w: Tensor, bucket: int | None) -> Scaled:
    """Cut a float32 tensor into buckets and bring each to [0, 1]; values that are not finite stay so."""
    rows_BS = cut(w.detach(), bucket)
    beta_B1 = rows_BS.amin(dim=1, keepdim=True)
    alpha_B1 = rows_BS.amax(dim=1, keepdim=True) - beta_B1
    divisor_B1 = torch.where(alpha_B1 == 0, torch.ones_like(alpha_B1), alpha_B1)
    return Scaled((rows_BS - beta_B1) / divisor_B1, alpha_B1.squeeze(1), beta_B1.squeeze(1))


def scale_up(values_BS: Tensor, alpha_B: Tensor, beta_B: Tensor) -> Tensor:
    """The inverse, alpha * v + beta: one product and one sum, so that every runtime gets the same bits."""
    return values_BS * alpha_B[:, None] + beta_B[:, None]
