"""The specs of the runtimes, as shipped: what each wants of a graph (export/specs/*.toml)."""

from __future__ import annotations

from edgekd.documents.recipe import RuntimeName
from edgekd.documents.spec import Spec
from edgekd.shipped import shipped


def load_spec(runtime: RuntimeName) -> Spec:
    """The spec of a runtime.

    Raises:
        DocumentError: the shipped file is missing or damaged.
    """
    return Spec.read(shipped("export", "specs", f"{runtime}.toml"))
