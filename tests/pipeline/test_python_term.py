"""A term of the user's own in a whole recipe: found beside it, tried out first, seen when it changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.pipeline.compress import compress, first_missing
from tests.tiny import RECIPE, Listener

MINE = """
from edgekd.distillation.term import RowTerm

class LogitDistance(RowTerm):
    sources = ("teacher",)
    def rows(self, step):
        difference_BK = step.student.logits() - step.sources["teacher"].logits()
        return self.scale * difference_BK.float().square().mean(dim=1)

def logit_distance(setting, scale):
    term = LogitDistance()
    term.scale = scale
    return term
"""
TERM = """
[[distillation.terms]]
kind = "python:term_of_this_test:logit_distance"
args = { scale = 2.0 }
"""


def test_a_term_beside_the_recipe(tmp_path: Path) -> None:
    path, run = tmp_path / "tiny.toml", tmp_path / "run"
    module = tmp_path / "term_of_this_test.py"
    module.write_text(MINE)

    def write(term: str) -> None:
        path.write_text(RECIPE.replace("epochs = 3", "epochs = 1") + term)

    write(TERM.replace("scale", "factor"))
    with pytest.raises(UsageError) as caught:
        compress(path, run, Listener(), until="distill")
    assert str(caught.value) == (
        "python:term_of_this_test:logit_distance: does not take these arguments: missing a required "
        "argument: 'scale'\n  try: it is called with setting=, factor="
    )
    assert not run.exists()

    write(TERM)
    compress(path, run, Listener(), until="distill")
    assert first_missing(path, run, Listener(), until="distill") is None
    module.write_text(MINE.replace("square()", "abs()"))
    sys.modules.pop("term_of_this_test")
    assert first_missing(path, run, Listener(), until="distill") == "student"
    # One without weight is not asked.
    write(TERM + "weight = 0.0\n")
    module.unlink()
    sys.modules.pop("term_of_this_test")
    assert first_missing(path, run, Listener(), until="distill") == "student"
