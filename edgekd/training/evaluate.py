"""Logits of a network over many examples, in fp32 and eval mode. Axes: N examples, K classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.training.data import Resident

_BATCH = 256


def predict_logits(network: nn.Module, x_NC: Tensor, *, batch_size: int = _BATCH) -> Tensor:
    """Logits (N, K), float32, on the network's device; the network's mode is put back afterwards.

    Always in fp32: it is what is exported, whatever arithmetic the training used.

    Args:
        network: on the same device as the examples.
        x_NC: normalized examples, channels first, float32.
        batch_size: examples a forward pass.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            return torch.cat([network(x_BC).float() for x_BC in torch.split(x_NC, batch_size)])
    finally:
        for module, mode in modes.items():
            module.training = mode


def validate(network: nn.Module, split: Resident) -> tuple[float, float]:
    """Mean cross-entropy in nats, and share of right answers."""
    logits_NK = predict_logits(network, split.x_NC)
    loss = F.cross_entropy(logits_NK, split.y_N)
    top1 = (logits_NK.argmax(1) == split.y_N).double().mean()
    return float(loss), float(top1)
