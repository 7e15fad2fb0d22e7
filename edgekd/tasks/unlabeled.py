"""Label-free distillation: the student also learns from examples that nobody labeled.

Formula
    L = label_weight * CE over the labeled examples + sum_i w_i term_i over all examples.
    The pool is appended to the training split with the label -1. Cross-entropy leaves it out; a term asks the
    teacher, which needs no label.
Source
    Cui et al., "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve
    Backbones" (SSLD), arXiv 2103.05959; Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised
    Learners" (SimCLRv2), NeurIPS 2020.
Shapes
    x (M, ...) in the layout, shape and type of the training file.
Defaults
    SSLD: JS alone (kind = "js", label_weight = 0, T = 1) over labeled and unlabeled examples together, long
    training, then a short one at 1 % of the rate. SimCLRv2: KD, T = 1, with a share of cross-entropy.
Traps
    A pool from the web holds test images: SSLD threw 4,511 of ImageNet's out. Exact copies of test or
    validation examples are counted and refused here; a copy in another size or compression is not seen.
    Copies of training examples do no harm.
    Normalization, the teacher, the classes and the calibration of int8 come from the labeled examples alone.
    A term that reads every example's label (NKD, CRD, SSKD ...) cannot take part: KD, JS and DIST can.
    A teacher that has never seen such examples teaches its mistakes: choose a pool like the task's inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.common import UNLABELED
from edgekd.tasks.fingerprint import fingerprint
from edgekd.tasks.task import Split, Task

_SHOWN = 5


def add_unlabeled(train: Split, x: NDArray[Any], *, first_row: int) -> Split:
    """The training split with a pool behind it.

    Args:
        train: labeled examples.
        x: the pool, (M, C, ...), as the examples of `train`.
        first_row: the row that the pool's first example counts as: rows go on where the training file ends.
    """
    y = np.full(len(x), UNLABELED, dtype=np.int64)
    rows = None if train.rows is None else np.concatenate([train.rows, first_row + np.arange(len(x))])
    return Split(np.concatenate([train.x, x]), np.concatenate([train.y, y]), rows)


def labeled_part(task: Task) -> Task:
    """The task with the labeled training examples alone; the task itself where all are labeled."""
    labeled = task.train.y != UNLABELED
    if labeled.all():
        return task
    return with_train(task, np.flatnonzero(labeled))


def with_train(task: Task, kept: NDArray[np.int64]) -> Task:
    """The task with some of its training examples, by their positions in the training split."""
    train = task.train.take(kept)
    splits = (train, task.validation, task.test)
    return replace(task, train=train, fingerprint=fingerprint(splits, task.classes, task.input))


def overlap_problems(x: NDArray[Any], validation: Split, test: Split) -> list[str]:
    """Whether examples of a pool are in the test set or in the validation split, a line each."""
    pool = [_digest(example) for example in x]
    problems = []
    for name, split in (("test set", test), ("validation split", validation)):
        known = {_digest(example) for example in split.x}
        found = [row for row, digest in enumerate(pool) if digest in known]
        if found:
            problems.append(f"unlabeled: {_counted(found, len(x))} also in the {name}: {_listed(found)}")
    return problems


def _digest(example: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(example).data).digest()


def _counted(found: Sequence[int], count: int) -> str:
    return f"{len(found)} of its {count} examples {'is' if len(found) == 1 else 'are'}"


def _listed(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} " + ", ".join(str(row) for row in rows[:_SHOWN]) + more
