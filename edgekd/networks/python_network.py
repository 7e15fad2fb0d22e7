"""A network of the user's own: `python:package.module:function`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from edgekd.documents.function import call_function
from edgekd.documents.recipe import Argument
from edgekd.errors import NetworkError

_GIVEN = ("in_channels", "num_classes", "input_shape")


def python_network(
    name: str, in_channels: int, num_classes: int, input_shape: tuple[int, ...], args: Mapping[str, Argument]
) -> nn.Module:
    """Call the function with in_channels=, num_classes=, input_shape= and `args`; it returns the network.

    A network that names places for distillation terms has an attribute `taps`: tap name -> submodule path.

    Raises:
        NetworkError: no such module or function, wrong arguments, an error in it, or no nn.Module returned.
    """
    for key in _GIVEN:
        if key in args:
            raise NetworkError(f"args.{key} is set by edgekd from the task; leave it out", where=name)
    given = {"in_channels": in_channels, "num_classes": num_classes, "input_shape": input_shape}
    network = call_function(name, {**given, **args}, raises=NetworkError)
    if not isinstance(network, nn.Module):
        raise NetworkError(f"returns a {type(network).__name__}; a torch.nn.Module is wanted", where=name)
    return network
