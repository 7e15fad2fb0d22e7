"""A network of timm's: `timm:NAME`, with random weights. Nothing is downloaded."""

from __future__ import annotations

import types
from collections.abc import Mapping

from torch import nn

from edgekd.documents.base import nearest
from edgekd.documents.function import foreign_code
from edgekd.documents.recipe import Argument
from edgekd.errors import MissingError, NetworkError

PREFIX = "timm:"

_GIVEN = ("pretrained", "in_chans", "num_classes", "img_size")


def timm_network(
    name: str, in_channels: int, num_classes: int, input_shape: tuple[int, ...], args: Mapping[str, Argument]
) -> nn.Module:
    """`timm.create_model` with the task's channels, classes and, where the network wants it, image size.

    Raises:
        MissingError: timm is not installed.
        NetworkError: timm has no such network, does not take these arguments, or the input is no image.
    """
    timm = _import_timm()
    timm_name = name.removeprefix(PREFIX)
    _check_request(timm, timm_name, input_shape, args)
    given: dict[str, object] = {"in_chans": in_channels, "num_classes": num_classes}
    if timm.get_pretrained_cfg(timm_name).fixed_input_size:  # as in a ViT, whose positions depend on it
        given["img_size"] = input_shape[1:]
    with foreign_code(name, NetworkError):
        network = timm.create_model(timm_name, pretrained=False, **given, **args)
    assert isinstance(network, nn.Module)
    return network


def _import_timm() -> types.ModuleType:
    try:
        import timm  # an extra, and slow to import
    except ImportError as error:
        raise MissingError(f"timm cannot be imported: {error}", hint="pip install 'edgekd[timm]'") from error
    return timm  # type: ignore[no-any-return]


def _check_request(
    timm: types.ModuleType, timm_name: str, input_shape: tuple[int, ...], args: Mapping[str, Argument]
) -> None:
    where = PREFIX + timm_name
    if not timm.is_model(timm_name):
        raise NetworkError(
            f"timm {timm.__version__} has no '{timm_name}'{nearest(timm_name, timm.list_models())}",
            where=where,
            hint="python -c \"import timm; print(timm.list_models('*resnet*'))\" lists names",
        )
    if len(input_shape) != 3:
        raise NetworkError(f"takes images (C, H, W); an example has the shape {input_shape}", where=where)
    for key in _GIVEN:
        if key in args:
            hint = "give trained weights as a file: weights = ..." if key == "pretrained" else None
            raise NetworkError(f"args.{key} is set by edgekd; leave it out", where=where, hint=hint)
