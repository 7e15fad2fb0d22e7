"""Build a network by its name: built-in, `timm:NAME`, or `python:package.module:function`.

Whatever its origin, a network maps x (N, C, ...) float32 to logits (N, K), which one dry forward pass proves.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgekd.documents.base import nearest
from edgekd.documents.function import PREFIX as PYTHON
from edgekd.documents.function import foreign_code
from edgekd.documents.recipe import Argument
from edgekd.errors import NetworkError
from edgekd.networks.ds_cnn import ds_cnn
from edgekd.networks.mobilenetv2 import mobilenetv2
from edgekd.networks.python_network import python_network
from edgekd.networks.resnet_cifar import RESNETS, resnet
from edgekd.networks.shufflenet import shufflenetv1, shufflenetv2
from edgekd.networks.taps import taps_of
from edgekd.networks.timm_network import PREFIX as TIMM
from edgekd.networks.timm_network import timm_network
from edgekd.networks.vgg import VGGS, vgg
from edgekd.networks.weights import load_weights, save_weights
from edgekd.networks.wrn import wrn

__all__ = ["build_network", "load_weights", "network_names", "save_weights", "taps_of"]

_WRNS = ("wrn-16-1", "wrn-16-2", "wrn-28-2", "wrn-40-1", "wrn-40-2")  # any other wrn-D-K is built too
_SMALLEST_SIDE = 8
_ARGUMENTS = {"mobilenetv2": ("activation",)}
"""Keyword arguments of the built-in networks; the others have none."""


def network_names() -> tuple[str, ...]:
    """The built-in networks; of the WRNs, which take any depth 6n + 4 and any width, the common ones."""
    return (*RESNETS, *_WRNS, *VGGS, "mobilenetv2", "shufflenetv1", "shufflenetv2", "ds-cnn")


def build_network(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    input_shape: tuple[int, ...],
    args: Mapping[str, Argument] = {},
) -> nn.Module:
    """Build a network with random weights, in training mode, on the CPU.

    Args:
        name: a built-in name, `timm:NAME`, or `python:package.module:function`; the function is called with
            in_channels=, num_classes=, input_shape= and the entries of `args`.
        in_channels: channels C of the input.
        num_classes: classes K of the output.
        input_shape: one example without the batch axis, channels first, such as (3, 32, 32).
        args: keyword arguments of a timm or python network; of the built-in ones mobilenetv2 has
            `activation`: relu, silu or hardswish.

    Returns:
        A module: float32 (N, *input_shape) -> logits float32 (N, num_classes).

    Raises:
        NetworkError: the name is unknown, the arguments do not fit, the input is too small or of another
            rank, or the output is not (N, num_classes).
        MissingError: timm is not installed.
    """
    if name.startswith(TIMM):
        network = timm_network(name, in_channels, num_classes, input_shape, args)
    elif name.startswith(PYTHON):
        network = python_network(name, in_channels, num_classes, input_shape, args)
    else:
        network = _built_in(name, in_channels, num_classes, input_shape, args)
    _check_output(network, name, input_shape, num_classes)
    return network


def _built_in(
    name: str, in_channels: int, num_classes: int, input_shape: tuple[int, ...], args: Mapping[str, Argument]
) -> nn.Module:
    _check_request(name, input_shape, args)
    match name:
        case "mobilenetv2":
            return mobilenetv2(in_channels, num_classes, **args)
        case "shufflenetv1":
            return shufflenetv1(in_channels, num_classes)
        case "shufflenetv2":
            return shufflenetv2(in_channels, num_classes)
        case "ds-cnn":
            return ds_cnn(in_channels, num_classes)
        case _ if name in RESNETS:
            return resnet(name, in_channels, num_classes)
        case _ if name in VGGS:
            return vgg(name, in_channels, num_classes, min(input_shape[1:]))
        case _:
            return wrn(name, in_channels, num_classes)


def _check_request(name: str, input_shape: tuple[int, ...], args: Mapping[str, Argument]) -> None:
    names = network_names()
    if name not in names and not name.startswith("wrn-"):
        raise NetworkError(
            f"there is no network '{name}'{nearest(name, names)}",
            hint=f"{', '.join(names)}, another wrn-DEPTH-WIDTH, timm:NAME or python:package.module:function",
        )
    known = _ARGUMENTS.get(name, ())
    if args.keys() - known:
        takes = f"takes {' and '.join(known) or 'no arguments'}"
        raise NetworkError(f"{takes}; given: {', '.join(args)}", where=name)
    if len(input_shape) != 3 or min(input_shape[1:]) < _SMALLEST_SIDE:
        raise NetworkError(
            f"takes images (C, H, W) of at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE}; an example has the shape "
            f"{input_shape}",
            where=name,
            hint="bring a network of your own: python:package.module:function",
        )


def _check_output(network: nn.Module, name: str, input_shape: tuple[int, ...], num_classes: int) -> None:
    """One forward pass of two zero examples, in eval mode, so that no batch-norm statistic moves."""
    network.eval()
    with torch.no_grad(), foreign_code(f"{name} on an input of shape {(2, *input_shape)}", NetworkError):
        output = network(torch.zeros(2, *input_shape))
    network.train()
    if not isinstance(output, Tensor):
        raise NetworkError(f"gives a {type(output).__name__}; a tensor of logits is wanted", where=name)
    if output.shape != (2, num_classes):
        raise NetworkError(
            f"gives {tuple(output.shape)} for an input of shape {(2, *input_shape)}; "
            f"{(2, num_classes)} is wanted",
            where=name,
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkError("has no parameters to train", where=name)
    _check_training(network, name, input_shape)


def _check_training(network: nn.Module, name: str, input_shape: tuple[int, ...]) -> None:
    """Run a copy in training mode, on a batch size that no other check uses: none may be built in."""
    x = torch.zeros(3, *input_shape)
    where = f"{name} in training, on an input of shape {tuple(x.shape)}"
    with torch.no_grad(), torch.random.fork_rng(devices=[]), foreign_code(where, NetworkError):
        copy.deepcopy(network)(x)
