"""A tensor as codes: a point of a small codebook for each weight, and a range for each bucket.

    w_i = alpha_b * point[code_i] + beta_b,   b the bucket of i

The points are either uniform, j / (S - 1) for j = 0 .. S - 1, or learned. A code is that of the nearest
point; of two that are equally near, the even one if they are uniform, the higher one if they are learned.
Decoding is this one product and sum in float32: training, file and graph all do it, and get the same bits.
Source: Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", ICLR 2018.
Departures: biases, normalization parameters and other tensors of one axis stay in float, since they weigh
next to nothing; a bucket of one value is kept exactly.
Axes: N elements of a tensor, B buckets, S points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgekd.errors import ConversionError
from edgekd.quantization.buckets import Scaled, bucket_size, cut, join, scale_down, scale_up

MAX_LEVELS = 256
"""Most points of a tensor: a code is a byte at most."""


@dataclass(frozen=True)
class Codebook:
    """One tensor in codes."""

    shape: tuple[int, ...]
    bucket: int
    """Elements of a bucket; the last one may hold fewer."""
    levels: int
    """How many points S there are, 2 to 256."""
    codes_N: Tensor
    """(N,), uint8, each below `levels`."""
    points_S: Tensor | None
    """(S,), float32, ascending; None for uniform points."""
    alpha_B: Tensor
    """(B,), float32: width of each bucket's range."""
    beta_B: Tensor
    """(B,), float32: its lower end."""

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return bits_of(self.levels)

    def decode(self) -> Tensor:
        """The tensor, float32, of the codebook's shape."""
        codes_BS = cut(self.codes_N, self.bucket)
        points_S = uniform_points(self.levels) if self.points_S is None else self.points_S
        return join(scale_up(points_S[codes_BS.long()], self.alpha_B, self.beta_B), self.shape)


@dataclass(frozen=True)
class Codebooks:
    """A whole network's state: what is in codes, and what stays as it is."""

    books: Mapping[str, Codebook]
    """Name of a parameter -> its codebook."""
    tensors: Mapping[str, Tensor]
    """Every other parameter and buffer, batch-norm statistics included."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Further name of a shared parameter -> its name in `books`."""

    def state(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name, for load_state_dict of the network that this was made of."""
        decoded = {name: book.decode() for name, book in self.books.items()}
        return {**self.tensors, **decoded, **{name: decoded[first] for name, first in self.tied.items()}}


def bits_of(levels: int) -> int:
    """Bits of a code that tells `levels` points apart."""
    return max(1, (levels - 1).bit_length())


def uniform_points(levels: int) -> Tensor:
    """0, 1 / (S - 1), ..., 1 as (S,), float32."""
    return torch.arange(levels, dtype=torch.float32) / (levels - 1)


def uniform_codes(values_BS: Tensor, levels: int) -> Tensor:
    """Codes of the nearest uniform points of values in [0, 1]: whole numbers, float32, half to even."""
    return torch.round(values_BS * (levels - 1))


def nearest_points(values_BS: Tensor, points_S: Tensor) -> Tensor:
    """Index of the nearest of ascending points, int64; the higher of two that are equally near."""
    between_S = (points_S[1:] + points_S[:-1]) / 2
    return torch.bucketize(values_BS, between_S, right=True)


def encode(
    w: Tensor, *, levels: int, bucket: int | None, points_S: Tensor | None = None, name: str
) -> Codebook:
    """The codes of a tensor.

    Args:
        w: float32, any shape, finite.
        levels: how many points.
        bucket: elements of a bucket; None is the whole tensor.
        points_S: learned points, (S,), ascending; None for uniform ones.
        name: of the tensor, for errors.

    Raises:
        ConversionError: the tensor is not float32, holds a value that is not finite, or spans too much.
    """
    _check(w, name)
    scaled = scale_down(w.cpu(), bucket)
    if not torch.isfinite(scaled.alpha_B).all():
        raise ConversionError("its values lie further apart than float32 can say", where=name)
    points_S = None if points_S is None else points_S.detach().cpu().clone()
    return Codebook(
        shape=tuple(w.shape),
        bucket=bucket_size(w.numel(), bucket),
        levels=levels,
        codes_N=_codes(scaled, levels, points_S).reshape(-1)[: w.numel()].clone(),
        points_S=points_S,
        alpha_B=scaled.alpha_B.clone(),
        beta_B=scaled.beta_B.clone(),
    )


def _codes(scaled: Scaled, levels: int, points_S: Tensor | None) -> Tensor:
    if points_S is None:
        return uniform_codes(scaled.values_BS, levels).to(torch.uint8)
    return nearest_points(scaled.values_BS, points_S).to(torch.uint8)


def _check(w: Tensor, name: str) -> None:
    if w.dtype != torch.float32:
        raise ConversionError(f"is {str(w.dtype).removeprefix('torch.')}; float32 is wanted", where=name)
    if not torch.isfinite(w).all():
        raise ConversionError("holds a value that is not finite", where=name)
