"""The monitor: better imitation with worse answers is flagged, once, and noise is not."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.documents.recipe import Distillation, Training
from edgekd.training.monitor import imitation_flag, imitation_flags
from edgekd.training.result import EpochRecord, TrainingResult
from edgekd.training.sources import StoredAnswers
from edgekd.training.trainer import train_network
from tests.training.cases import Listener, make_network, make_task

COUNT = 1000


def record(epoch: int, kl: float | None, top1: float) -> EpochRecord:
    return EpochRecord(epoch, 0.1, 1.0, {}, 1.0, top1, 1.0, kl)


def history(kls, top1s):
    return [record(epoch, kl, top1) for epoch, (kl, top1) in enumerate(zip(kls, top1s, strict=True), start=1)]


FALLING = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
WORSE = [0.80, 0.80, 0.80, 0.70, 0.70, 0.70]


def test_better_imitation_with_worse_answers_is_flagged():
    assert imitation_flag(history(FALLING, WORSE), COUNT) == (
        "epochs 1 to 6: the student imitates the teacher better (KL 0.5 to 0.2) and validates worse "
        "(top-1 80.0 % to 70.0 %)"
    )


@pytest.mark.parametrize(
    ("kls", "top1s"),
    [
        (FALLING, [0.80] * 6),  # imitates better, answers as well
        (FALLING, WORSE[::-1]),  # and better
        (FALLING[::-1], WORSE),  # imitates worse: nothing to do with the teacher
        ([0.3] * 6, WORSE),
        (FALLING[:5], WORSE[:5]),  # too few to tell
        ([None] * 6, WORSE),  # no teacher
    ],
)
def test_anything_else_is_not(kls, top1s):
    assert imitation_flag(history(kls, top1s), COUNT) is None


def test_the_fall_must_exceed_the_noise_of_the_validation_split():
    noise = 1.64 * math.sqrt(2 * 0.8 * 0.2 / COUNT)
    for fall, flagged in ((0.98 * noise, False), (1.06 * noise, True)):
        flag = imitation_flag(history(FALLING, [0.8] * 3 + [0.8 - fall] * 3), COUNT)
        assert (flag is not None) is flagged
    assert imitation_flag(history(FALLING, WORSE), 80) is None  # 10 points are noise on 80 examples


def test_only_the_last_validations_count():
    early = history([9.0] * 20 + FALLING, [0.99] * 20 + [0.8] * 6)
    assert imitation_flag(early, COUNT) is None
    assert imitation_flag(history([0.1] * 20 + FALLING, [0.1] * 20 + WORSE), COUNT) is not None


def test_a_training_is_flagged_once_and_stays_flagged():
    whole = history([*FALLING, 0.09, 0.08, 0.07], [*WORSE, 0.6, 0.6, 0.6])
    (flag,) = imitation_flags(whole, COUNT)
    assert flag.startswith("epochs 1 to 6: ")
    recovered = history([*FALLING, *[0.1] * 9], [*WORSE, *[0.9] * 9])
    assert imitation_flags(recovered, COUNT) == (flag,)
    assert imitation_flags(whole[:5], COUNT) == ()


def test_the_result_carries_its_flags():
    result = TrainingResult(record(1, 0.1, 0.8), (), None, "fp32", flags=("look",))
    assert result.summary()["flags"] == ["look"]


def test_the_loop_tells_it_once(tmp_path):
    """A student that knows the classes learns from a teacher that has them wrong."""
    task, student = make_task(train=192), make_network()

    def train(folder, epochs, rate, distillation=None, **settings):
        training = Training(
            epochs=epochs, batch_size=32, learning_rate=rate, precision="fp32", warmup_epochs=0
        )
        return train_network(student, task, training, distillation, checkpoint_dir=folder, seed=0, **settings)

    train(tmp_path / "right", 10, 0.1, teacher=None)
    wrong = [3 * torch.eye(3)[(torch.from_numpy(y) + 1) % 3] for y in (task.train.y, task.validation.y)]
    objective = Distillation.model_validate({"label_weight": 0.0, "terms": [{"kind": "kd"}]})

    before = {name: value.clone() for name, value in student.state_dict().items()}

    def hack(listener):
        student.load_state_dict(before)
        teacher = StoredAnswers(*wrong)
        return train(tmp_path / "hack", 12, 0.002, objective, teacher=teacher, progress=listener)

    killed, resumed = Listener(die_after=9), Listener()
    with pytest.raises(KeyboardInterrupt):
        hack(killed)
    result = hack(resumed)
    assert result.flags == imitation_flags(result.history, len(task.validation.y))
    assert len(result.flags) == 1
    assert killed.warnings + resumed.warnings == list(result.flags)
    assert result.summary()["flags"] == list(result.flags)


def test_one_answer_lost_of_all_right_ones_is_noise():
    kls, top1s = [0.012, 0.012, 0.012, 0.011, 0.011, 0.011], [1.0, 1.0, 1.0, 0.992, 1.0, 1.0]
    assert imitation_flags(history(kls, top1s), 126) == ()
