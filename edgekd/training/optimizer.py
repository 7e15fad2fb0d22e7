"""The optimizer, and which parameters decay.

Weight decay on batch-norm factors, biases and quantization scales only distorts them, so every parameter of
at most one axis, and every parameter called a scale, has none.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from edgekd.documents.recipe import QuantizedTraining, Training


def build_optimizer(network: nn.Module, section: Training | QuantizedTraining) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW, over two groups: with and without weight decay.

    The fused kernels update all parameters in one call; the learning rate is set before each step.
    """
    groups = parameter_groups(network, weight_decay=section.weight_decay)
    if section.optimizer == "adamw":
        return AdamW(groups, lr=section.learning_rate, fused=True)
    nesterov = section.momentum > 0  # Nesterov's form is defined for a momentum only
    return SGD(groups, lr=section.learning_rate, momentum=section.momentum, nesterov=nesterov, fused=True)


def parameter_groups(network: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups, without empty ones."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (decayed if _decays(name, parameter) else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith("scale")
