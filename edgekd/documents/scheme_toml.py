"""The scheme that was found as a TOML file to read and to edit: every layer with its figures.

The first line holds the digest of all that follows, so that a file that was edited is known by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.documents.scheme import Scheme
from edgekd.documents.sensitivity import Cost, LayerSensitivity, Sensitivity, Worth
from edgekd.documents.to_toml import toml_value
from edgekd.files import sha256_bytes
from edgekd.units import format_percent

_SEAL = "# written by edgekd sensitivity; once it is edited it is not written again. Digest: "
_TABLES = ("layers", "rewrites")


def scheme_toml(found: Sensitivity) -> str:
    """The file's text."""
    lines = (*_head(found), "", *_keys(found.scheme), "", *_layers(found), *_rewrites(found.scheme))
    body = "\n".join(lines) + "\n"
    return f"{_SEAL}{sha256_bytes(body.encode())}\n{body}"


def is_untouched(text: str) -> bool:
    """Whether a file is as it was written."""
    first, _, body = text.partition("\n")
    return first == f"{_SEAL}{sha256_bytes(body.encode())}"


def _head(found: Sensitivity) -> Iterator[str]:
    spared = "in float" if found.precision == "float" else "with 8 bits"
    yield "#"
    yield f"# Top-1 on {found.found.count} validation examples:"
    yield f"#   the fp32 student      {format_percent(found.fp32_top1)}"
    yield f"#   the scheme before     {_worth(found.start)}"
    yield f"#   this scheme           {_worth(found.found)}; the budget is {found.budget_pt:g} points"
    if not found.within:
        yield "# No set of layers is within the budget and costs less than all of them: this is the best one."
    yield f"# {found.cost.what.capitalize()}: {_cost(found.cost)} that of the scheme before."
    yield "#"
    yield "# Beside each layer: by how much the divergence from the fp32 student falls when it alone is"
    yield f"# {spared}, of {found.start.kl:.5f} nats, and what that costs. Take away a # to spare a layer."


def _worth(worth: Worth) -> str:
    side = "above" if worth.drop_pt < 0 else "below"
    return f"{format_percent(worth.top1)}, {abs(worth.drop_pt):.2f} points {side}"


def _keys(scheme: Scheme) -> Iterator[str]:
    data = scheme.model_dump(mode="json", by_alias=True, exclude=set(_TABLES))
    yield from (f"{key} = {toml_value(value)}" for key, value in data.items())


def _layers(found: Sensitivity) -> Iterator[str]:
    yield "[layers]"
    listed = {layer.name for layer in found.layers}
    for name, precision in found.scheme.layers.items():
        if name not in listed:
            yield f"{toml_value(name)} = {toml_value(precision)}"
    for layer in found.layers:
        yield _layer(layer, found)


def _layer(layer: LayerSensitivity, found: Sensitivity) -> str:
    chosen = layer.name in found.scheme.layers
    precision = found.scheme.layers.get(layer.name, found.precision)
    line = f"{'' if chosen else '# '}{toml_value(layer.name)} = {toml_value(precision)}"
    return f"{line}  # {layer.gain:+.5f} nats, {_cost(layer.cost)}"


def _cost(cost: Cost) -> str:
    if cost.interval is None:
        return f"{cost.ratio:.3f} times"
    return f"{cost.ratio:.3f} times ({cost.interval.lower:.3f} to {cost.interval.upper:.3f})"


def _rewrites(scheme: Scheme) -> Iterator[str]:
    if scheme.rewrites:
        yield ""
        yield "[rewrites]"
        yield from (f"{name} = {toml_value(on)}" for name, on in scheme.rewrites.items())
