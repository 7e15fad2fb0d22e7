"""A student learns by a term of the user's own."""

from __future__ import annotations

from pathlib import Path

from edgekd.documents.recipe import Distillation, Training
from edgekd.training.trainer import train_network
from tests.training.cases import make_network, make_task


def test_a_student_comes_nearer_to_its_teacher_by_it(tmp_path: Path) -> None:
    term = {"kind": "python:tests.distillation.own_term:build", "args": {"scale": 2.0}, "weight": 0.5}
    result = train_network(
        make_network(seed=1, dropout=0.0),
        make_task(),
        Training(epochs=6, batch_size=32, learning_rate=0.05, precision="fp32"),
        Distillation.model_validate({"label_weight": 0.0, "terms": (term,)}),
        teacher=make_network(seed=2),
        checkpoint_dir=tmp_path,
        seed=0,
    )
    losses = [record.parts["python"] for record in result.history]
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]
