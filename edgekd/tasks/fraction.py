"""A fraction of the data: the student learns from a part of the training set, its teacher from all of it.

Formula
    L = (1 - alpha) CE + alpha T^2 KL over a random subset of round(f n) examples of each class,
    which `label_weight` = 1 - alpha and the weight alpha of the term `kd` say in a recipe.
Source
    Ben-Baruch et al., "Distilling the Knowledge in Data Pruning", ICML 2025.
Shapes
    does not apply
Defaults
    data_fraction = 1. Random choice: with distillation it does as well as pruning by scores, or better.
Traps
    alpha grows as the fraction falls: a small subset's labels say little, the teacher knows the rest. No
    single alpha fits all: sweep it, with edgekd compare over label_weight = 0.9, 0.5, 0.1, 0 and the term's
    weight = 0.1, 0.5, 0.9, 1, once a fraction, and choose on validation.
    With a small fraction a smaller teacher, even one below the student, may teach better.
    An epoch is a pass over the fraction: with the same epochs fewer steps are taken. To compare at equal
    cost, raise the epochs in proportion.
    A pool of unlabeled examples is thinned in the same proportion. Calibration of int8 and fine-tuning see
    the fraction too.
"""

from __future__ import annotations

from edgekd.tasks.split import stratified_split
from edgekd.tasks.task import Task
from edgekd.tasks.unlabeled import with_train


def fraction_of(task: Task, fraction: float, *, seed: int) -> Task:
    """The task with a part of its training split, the same for the same seed.

    Of a class with n examples `round(fraction * n)` stay, but at least 1 and at most n - 1; unlabeled
    examples count as a class.

    Args:
        task: with at least 2 training examples a class.
        fraction: of each class, in (0, 1]; 1 gives the task itself.
        seed: of the choice.
    """
    if fraction == 1.0:
        return task
    _, chosen = stratified_split(task.train.y, fraction, seed)
    return with_train(task, chosen)
