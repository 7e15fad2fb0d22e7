"""Networks that compute with codebook weights while they learn: their weights, or their points.

Both wrap a network and put decoded weights in the place of its own in every forward pass, in training and in
evaluation; everything else (biases, normalization with its running statistics, dropout) is the network's own.

    UniformNetwork   w_q = Q(w), uniform points; the gradient with respect to w_q is applied to w as it is
    PointNetwork     w fixed, w_q = alpha * p[nearest] + beta;
                     dL/dp_j = sum of alpha_i dL/dw_q,i over the weights i in the bin of point j

Source: Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", ICLR 2018.
Departure: its authors' code sorts the points after each step; here each forward pass sorts them, which is the
same set of points, and a point that overtakes another keeps its own momentum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.documents.base import nearest
from edgekd.errors import UsageError
from edgekd.networks.taps import taps_of
from edgekd.quantization.buckets import join, scale_down, scale_up
from edgekd.quantization.codebook import (
    Codebook,
    Codebooks,
    encode,
    nearest_points,
    uniform_codes,
)
from edgekd.quantization.levels import quantile_points


def coded_parameters(
    network: nn.Module, *, float_ends: bool = False, kept_float: Collection[str] = ()
) -> tuple[str, ...]:
    """Names of the parameters that go into codebooks: those of two or more axes, each shared one once.

    Args:
        network: whose.
        float_ends: leave the first and the last of them in float.
        kept_float: names of others to leave in float.

    Raises:
        UsageError: a name is unknown, or nothing is left.
    """
    names = [name for name, parameter in network.named_parameters() if parameter.ndim > 1]
    for name in kept_float:
        if name not in names:
            raise UsageError(f"there is no weight '{name}' to keep in float{nearest(name, names)}")
    inner = names[1:-1] if float_ends else names
    coded = tuple(name for name in inner if name not in kept_float)
    if not coded:
        raise UsageError(
            f"no weight is left for a codebook: the network has {len(names)}, and all are kept in float"
        )
    return coded


class CodebookNetwork(nn.Module, ABC):
    """A network with codebook weights in place of some of its own."""

    def __init__(self, network: nn.Module, names: Sequence[str], bucket: int | None) -> None:
        """Wrap `network`, which is trained in place; `names` as coded_parameters gives them."""
        super().__init__()
        self.network = network
        self.names = tuple(names)
        self.bucket = bucket

    @property
    def taps(self) -> dict[str, str]:
        """The network's own taps."""
        return {name: f"network.{path}" for name, path in taps_of(self.network).items()}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What of the scheme no tensor's shape shows, for the digest of a training."""
        return {"kind": type(self).__name__, "bucket": self.bucket, "names": list(self.names)}

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Name -> the decoded weight that a forward pass computes with; carries the gradient."""

    @abstractmethod
    def books(self) -> dict[str, Codebook]:
        """Name -> the codebook of its present weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of a batch (B, ...)."""
        logits: Tensor = torch.func.functional_call(self.network, self.weights(), (x,))
        return logits

    def codebooks(self) -> Codebooks:
        """All of the network as it computes now, on the CPU.

        Raises:
            ConversionError: a weight is not float32, or holds a value that is not finite.
        """
        tied = _tied(self.network, self.names)
        taken = {*self.names, *tied}
        state = self.network.state_dict()
        tensors = {name: value.detach().cpu().clone() for name, value in state.items() if name not in taken}
        return Codebooks(self.books(), tensors, tied)

    def _own(self) -> dict[str, Tensor]:
        """Name -> the network's own parameter."""
        own = dict(self.network.named_parameters())
        return {name: own[name] for name in self.names}


class UniformNetwork(CodebookNetwork):
    """Weights that learn behind uniform rounding: what quantized distillation trains."""

    def __init__(self, network: nn.Module, names: Sequence[str], *, levels: int, bucket: int | None) -> None:
        super().__init__(network, names, bucket)
        self.levels = levels

    @property
    def fingerprint(self) -> dict[str, Any]:
        """See CodebookNetwork."""
        return {**super().fingerprint, "levels": self.levels}

    def weights(self) -> dict[str, Tensor]:
        """Rounded weights, whose gradient goes to the weights as it is."""
        return {name: _Through.apply(own, self._rounded(own)) for name, own in self._own().items()}

    def books(self) -> dict[str, Codebook]:
        """Codebooks of the rounded weights."""
        own = self._own().items()
        return {name: encode(w, levels=self.levels, bucket=self.bucket, name=name) for name, w in own}

    @torch.no_grad()
    def _rounded(self, w: Tensor) -> Tensor:
        scaled = scale_down(w, self.bucket)
        values_BS = uniform_codes(scaled.values_BS, self.levels) / (self.levels - 1)
        return join(scale_up(values_BS, scaled.alpha_B, scaled.beta_B), w.shape)


class PointNetwork(CodebookNetwork):
    """Points that learn while the weights stay: what differentiable quantization trains."""

    def __init__(
        self, network: nn.Module, names: Sequence[str], *, levels: Mapping[str, int], bucket: int | None
    ) -> None:
        """Freeze the network's parameters; points start at quantiles. `levels`: name -> how many points."""
        super().__init__(network.requires_grad_(False), names, bucket)
        scaled = {name: scale_down(w, bucket) for name, w in self._own().items()}
        starts = [
            quantile_points(join(one.values_BS, self._own()[name].shape), levels[name])
            for name, one in scaled.items()
        ]
        self.points = nn.ParameterList(starts)

    def weights(self) -> dict[str, Tensor]:
        """Each weight at its nearest point; the gradient goes to the points."""
        return {
            name: _at_nearest(own, points_S.sort().values, self.bucket)
            for (name, own), points_S in zip(self._own().items(), self.points, strict=True)
        }

    def books(self) -> dict[str, Codebook]:
        """Codebooks of the weights at their nearest points."""
        return {
            name: encode(
                own, levels=len(points_S), bucket=self.bucket, points_S=points_S.sort().values, name=name
            )
            for (name, own), points_S in zip(self._own().items(), self.points, strict=True)
        }


class _Through(torch.autograd.Function):
    """The second of two tensors, in the first one's layout and with its gradient."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, rounded: Tensor) -> Tensor:
        return torch.empty_like(w).copy_(rounded)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _at_nearest(w: Tensor, points_S: Tensor, bucket: int | None) -> Tensor:
    scaled = scale_down(w, bucket)
    codes_BS = nearest_points(scaled.values_BS, points_S.detach())
    return join(scale_up(points_S[codes_BS], scaled.alpha_B, scaled.beta_B), w.shape)


def _tied(network: nn.Module, names: Collection[str]) -> dict[str, str]:
    """Further name of a shared parameter -> the one of `names` that it is."""
    first = {id(parameter): name for name, parameter in network.named_parameters() if name in names}
    every = network.named_parameters(remove_duplicate=False)
    return {name: first[id(one)] for name, one in every if id(one) in first and name not in names}
