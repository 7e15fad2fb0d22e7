"""SSKD's and HSAKD's three stages in one recipe: teacher, heads on the frozen teacher, student."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from edgekd.errors import UsageError
from edgekd.pipeline.compress import compress, first_missing
from edgekd.pipeline.run_folder import read_run
from tests.tiny import RECIPE, Listener

TRAINING = "training = { epochs = 3, batch_size = 64 }"
HEAD = 'head_training = { epochs = 2, milestones = [1], precision = "fp32" }'
TERMS = f"""
[distillation]
label_weight = 0.1

[[distillation.terms]]
kind = "kd"

[[distillation.terms]]
kind = "sskd"
weight = 0.5
{HEAD}

[[distillation.terms]]
kind = "hsakd"
weight = 0.1
{HEAD}
"""


def write(folder: Path, terms: str) -> Path:
    path = folder / "tiny.toml"
    path.write_text(RECIPE.replace(TRAINING, "training = { epochs = 1 }") + terms)
    return path


def distill(folder: Path, terms: str) -> Listener:
    listener = Listener()
    compress(write(folder, terms), folder / "run", listener, until="distill")
    return listener


def test_the_heads_are_stages_of_their_own(tmp_path: Path) -> None:
    assert first_missing(write(tmp_path, TERMS), tmp_path / "run", Listener(), until="distill") == "teacher"
    assert distill(tmp_path, TERMS).made == ["teacher", "heads-sskd", "heads-hsakd", "student"]
    _, stages = read_run(tmp_path / "run")
    state = load_file(stages["heads-sskd"].path("head.safetensors"))
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "0.weight": (64, 64),
        "0.bias": (64,),
        "2.weight": (64, 64),
        "2.bias": (64,),
    }
    result = stages["heads-hsakd"].json("result.json")
    assert [record["epoch"] for record in result["history"]] == [1, 2]
    assert stages["student"].file.ingredients["heads"] == {
        name: stages[name].file.files["head.safetensors"] for name in ("heads-sskd", "heads-hsakd")
    }
    student = load_file(stages["student"].path("weights.safetensors"))
    assert not any("head" in name or "bodies" in name for name in student)
    assert distill(tmp_path, TERMS).reused == ["teacher", "heads-sskd", "heads-hsakd", "student"]
    # What the head does not depend on leaves it in place; what it depends on does not.
    heavier = distill(tmp_path, TERMS.replace("weight = 0.5", "weight = 0.6"))
    assert (heavier.reused, heavier.made) == (["teacher", "heads-sskd", "heads-hsakd"], ["student"])
    deepest = 'kind = "hsakd"\nteacher_taps = ["stage3"]\nstudent_taps = ["stage3"]'
    fewer = distill(tmp_path, TERMS.replace('kind = "hsakd"', deepest))
    assert (fewer.reused, fewer.made) == (["teacher", "heads-sskd"], ["heads-hsakd", "student"])


def test_what_the_terms_cannot_find_is_said_before_the_teacher_is_trained(tmp_path: Path) -> None:
    wrong = TERMS.replace('kind = "sskd"', 'kind = "sskd"\nteacher_tap = "pol"')
    with pytest.raises(UsageError) as caught:
        distill(tmp_path, wrong)
    assert str(caught.value) == (
        "term sskd: reads the tap 'pol', which the teacher does not have; did you mean 'pool'?\n"
        "  try: one of the teacher's taps: stem, stage1, stage2, stage3, pool, logits"
    )
    assert not (tmp_path / "run").exists()


def test_a_memory_in_several_processes_is_refused_before_the_teacher_is_trained(tmp_path: Path) -> None:
    path = write(tmp_path, '[[distillation.terms]]\nkind = "crd"\n')
    recipe = path.read_text().replace("epochs = 1 }\n\n[quant", "epochs = 1, devices = 2 }\n\n[quant")
    assert "devices" in recipe
    path.write_text(recipe)
    with pytest.raises(UsageError, match="term crd: remembers every training example, and 2 processes"):
        compress(path, tmp_path / "run", Listener(), until="distill")
    assert not (tmp_path / "run").exists()
