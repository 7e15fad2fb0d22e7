"""The specs as shipped, one a dialect: what its runtime wants of a graph (export/specs/*.toml)."""

from __future__ import annotations

from edgekd.documents.recipe import RuntimeName
from edgekd.documents.spec import DEFAULT_DIALECT, Dialect, Spec
from edgekd.shipped import shipped


def spec_of(dialect: Dialect) -> Spec:
    """The spec of a dialect.

    Raises:
        DocumentError: the shipped file is missing or damaged.
    """
    return Spec.read(shipped("export", "specs", f"{dialect}.toml"))


def load_spec(runtime: RuntimeName) -> Spec:
    """The spec of a runtime's first dialect; devices.isa.dialect_for says where another one is better.

    Raises:
        DocumentError: the shipped file is missing or damaged.
    """
    return spec_of(DEFAULT_DIALECT[runtime])
