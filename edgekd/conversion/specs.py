"""The specs as shipped, one a dialect: what its runtime wants of a graph (export/specs/*.toml)."""

from __future__ import annotations

from edgekd.documents.runtime import RuntimeName, TargetRuntime
from edgekd.documents.spec import DEFAULT_DIALECT, Dialect, Spec
from edgekd.shipped import shipped


def spec_of(dialect: Dialect) -> Spec:
    """The spec of a dialect.

    Raises:
        DocumentError: the shipped file is missing or damaged.
    """
    return Spec.read(shipped("export", "specs", f"{dialect}.toml"))


def load_spec(runtime: TargetRuntime) -> Spec:
    """The spec of a runtime's first dialect; devices.isa.dialect_for says where another one is better.

    Raises:
        DocumentError: the shipped file is missing or damaged.
    """
    return spec_of(DEFAULT_DIALECT[runtime])


def session_options(runtime: RuntimeName) -> dict[str, str]:
    """Configuration entries of a runtime's session: those of its first dialect, none for other runtimes."""
    specs = {name: spec_of(dialect) for name, dialect in DEFAULT_DIALECT.items() if name == runtime}
    return {key: value for spec in specs.values() for key, value in spec.session_options.items()}
