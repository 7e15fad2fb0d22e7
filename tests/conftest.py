"""A whole run on the embedded digits, made once: small networks, few epochs, short measuring."""

import pytest

from tests.tiny import RECIPE, Listener


@pytest.fixture(scope="session")
def recipe_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes with spaces") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def run(recipe_path, tmp_path_factory):
    """A finished run folder; tests that change it copy it first, and are of the xdist group `whole run`."""
    from edgekd.pipeline.compress import compress

    path = tmp_path_factory.mktemp("runs") / "a run"
    compress(recipe_path, path, Listener())
    return path
