"""How much to listen to the labels: the weight that validates best, in closed form from two trainings.

Formula
    L = a CE(y) + (1 - a) KL(p_t || p_s)
    a = <y - f_0, f_1 - f_0> / ||f_1 - f_0||^2 over the validation split, kept within [0, 1],
    with f_1 the probabilities of a student that was trained on the labels alone, f_0 those of one that was
    trained on the teacher alone, y the labels as one-hot rows.
Source
    Borup, Andersen, "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by
    Self-Distillation", NeurIPS 2021, arXiv 2102.13088. The formula is derived here: where the fit is linear
    in its targets, as that of kernel ridge regression is, a y + (1 - a) p_t is fitted by
    a f_1 + (1 - a) f_0, whose squared distance to y is least at this a.
Shapes
    f_0, f_1 (N, K) probabilities and y (N, K), NumPy, any floating dtype; computed in fp64. A plain number.
Defaults
    All families: T = 1, with which a CE + (1 - a) KL is the cross-entropy with the target a y + (1 - a) p_t.
    Three trainings instead of a grid: with labels alone, with the teacher alone, with a.
Traps
    Deep networks are not linear in their targets: a is a good guess, not the optimum.
    It is chosen on the validation split, as epochs are; a small split makes it noisy.
    Where the two students answer alike every weight is as good, and a is 1: the labels need no teacher.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating]


def closed_form_weight(f_label_NK: Probabilities, f_kd_NK: Probabilities, onehot_NK: Probabilities) -> float:
    """Weight of the labels, in [0, 1], with which the mixture of two students' answers is nearest to them.

    Args:
        f_label_NK: (N, K) probabilities of the student that learned from the labels alone.
        f_kd_NK: (N, K) probabilities of the student that learned from the teacher alone.
        onehot_NK: (N, K) labels, 1 at the right class and 0 elsewhere.
    """
    f_kd = f_kd_NK.astype(np.float64)
    step = f_label_NK.astype(np.float64) - f_kd
    squared = float(np.sum(step * step))
    if squared == 0:
        return 1.0
    return float(np.clip(np.sum((onehot_NK - f_kd) * step) / squared, 0.0, 1.0))
