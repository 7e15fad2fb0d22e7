"""One row a term: how to build it, and an independent statement of its formula in NumPy."""

from __future__ import annotations

from tests.distillation.class_cases import CLASS_CASES
from tests.distillation.contrastive_cases import CONTRASTIVE_CASES
from tests.distillation.feature_cases import FEATURE_CASES
from tests.distillation.logit_cases import LOGIT_CASES
from tests.distillation.own_cases import OWN_CASES
from tests.distillation.pretext_cases import PRETEXT_CASES
from tests.distillation.python_cases import PYTHON_CASES
from tests.distillation.row import Case
from tests.distillation.weighting_cases import WEIGHTING_CASES

CASES: tuple[Case, ...] = (
    *LOGIT_CASES,
    *CLASS_CASES,
    *FEATURE_CASES,
    *CONTRASTIVE_CASES,
    *WEIGHTING_CASES,
    *OWN_CASES,
    *PRETEXT_CASES,
    *PYTHON_CASES,
)
