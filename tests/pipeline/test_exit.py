"""A student that ships an early exit: the graph ends there, and is smaller than the whole one."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgekd.errors import UsageError
from edgekd.pipeline.artefacts import STUDENT, Artefact
from edgekd.pipeline.compress import compress, first_missing
from edgekd.pipeline.run_folder import read_run
from tests.tiny import RECIPE, Listener

TERMS = """
[distillation]
label_weight = 1.0

[[distillation.terms]]
kind = "exits"
"""


def write(folder: Path, exit: str) -> Path:
    path = folder / "tiny.toml"
    student = f'[student]\nexit = "{exit}"'
    path.write_text(RECIPE.replace("[student]", student).replace("epochs = 3", "epochs = 1") + TERMS)
    return path


def test_the_graphs_end_at_the_exit(tmp_path: Path) -> None:
    compress(write(tmp_path, "stage2"), tmp_path / "run", Listener(), until="export")
    _, stages = read_run(tmp_path / "run")
    assert "teacher" not in stages
    graph = onnx.load(stages["graphs"].path(Artefact(STUDENT, None).graph)).graph
    convolutions = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert not any("stage3" in name for name in convolutions)
    assert convolutions[-1] == "logits.0.weight"
    assert [axis.dim_value for axis in graph.output[0].type.tensor_type.shape.dim][1] == 10


def test_an_exit_that_cannot_be_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        first_missing(write(tmp_path, "pool"), tmp_path / "run", Listener())
    assert str(caught.value) == (
        "student.exit: no exit was trained at the tap 'pool'\n  try: one of stage1, stage2"
    )
