"""Taps: the named places of a network whose features a distillation term reads.

stem, stage1 .. stageN, pool (the penultimate feature, (N, C)) and logits, as far as the network has them; of
timm's transformers also qkv, the last attention's queries, keys and values in one projection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.errors import NetworkError

# Where timm's families keep the feature that the classifier reads; the first that a network has is its pool.
_TIMM_POOLS = ("flatten", "head_drop", "head.drop", "head.global_pool", "global_pool")


def taps_of(network: nn.Module) -> dict[str, str]:
    """Tap name -> path of the submodule whose output it is, in the order of the network.

    A network's own attribute `taps` (a mapping) comes first, then what timm knows of its networks, then the
    names of the network's children, which for the built-in networks are the taps.

    Raises:
        NetworkError: the attribute `taps` is no mapping of names to submodules.
    """
    own = getattr(network, "taps", None)
    if own is not None:
        return _checked(network, own)
    if isinstance(getattr(network, "feature_info", None), list) and hasattr(network, "pretrained_cfg"):
        return _timm_taps(network)
    return {name: name for name, _ in network.named_children()}


def _checked(network: nn.Module, taps: object) -> dict[str, str]:
    where = f"{type(network).__name__}.taps"
    if not isinstance(taps, Mapping):
        raise NetworkError(f"is a {type(taps).__name__}; a mapping is wanted", where=where)
    paths = {name for name, _ in network.named_modules()}
    for name, path in taps.items():
        if path not in paths:
            raise NetworkError(f"tap '{name}' is at '{path}', where there is no submodule", where=where)
    return {str(name): str(path) for name, path in taps.items()}


def _timm_taps(network: nn.Module) -> dict[str, str]:
    paths = {name for name, _ in network.named_modules()}
    config, features = network.pretrained_cfg, network.feature_info
    assert isinstance(config, Mapping)
    assert isinstance(features, Iterable)
    stages = [feature["module"] for feature in features]
    taps: dict[str, str | None] = {"stem": _first(config.get("first_conv"))}
    taps |= {f"stage{number}": stage for number, stage in enumerate(stages, start=1)}
    taps["qkv"] = _last_projection(network)
    taps["pool"] = next((path for path in _TIMM_POOLS if path in paths), None)
    taps["logits"] = _first(config.get("classifier"))
    return {name: path for name, path in taps.items() if path is not None and path in paths}


def _last_projection(network: nn.Module) -> str | None:
    """Where the last attention makes queries, keys and values at once, one after the other."""
    paths = [
        path
        for path, module in network.named_modules()
        if path.endswith("attn.qkv") and isinstance(module, nn.Linear)
    ]
    return paths[-1] if paths else None


def _first(value: str | tuple[str, ...] | None) -> str | None:
    """One of them: timm gives a tuple where a network has several such layers."""
    return value if isinstance(value, str) or value is None else value[0]


class TapReader:
    """Runs a network and keeps what its taps gave; attached to the network until `close`."""

    def __init__(self, network: nn.Module, taps: Sequence[str]) -> None:
        """Attach to `taps`, each of which the network has."""
        paths = taps_of(network)
        self._kept: dict[str, Tensor] = {}
        self._hooks = [
            network.get_submodule(paths[tap]).register_forward_hook(partial(self._keep, tap)) for tap in taps
        ]

    def take(self) -> dict[str, Tensor]:
        """Tap -> feature (B, ...) of the last forward pass, which is then forgotten."""
        kept = dict(self._kept)
        self._kept.clear()
        return kept

    def close(self) -> None:
        """Detach from the network."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, tap: str, module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise NetworkError(
                f"gives a {type(output).__name__} at the tap '{tap}'; a tensor is wanted",
                where=type(module).__name__,
            )
        self._kept[tap] = output


def tap_shapes(network: nn.Module, example_BC: Tensor) -> dict[str, tuple[int, ...]]:
    """Tap -> shape of the feature of one example, by a forward pass in eval mode.

    Taps whose module a forward pass does not run, or which give no tensor with a row an example (attention
    within windows has a row a window), are left out.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(tap: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim >= 2 and len(output) == len(example_BC):
            shapes[tap] = tuple(output.shape[1:])

    taps = taps_of(network)
    hooks = [
        network.get_submodule(path).register_forward_hook(partial(note, tap)) for tap, path in taps.items()
    ]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            network(example_BC)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return {tap: shapes[tap] for tap in taps if tap in shapes}
