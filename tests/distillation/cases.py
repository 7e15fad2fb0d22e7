"""One row a term: how to build it, and an independent statement of its formula in NumPy."""

from __future__ import annotations

from tests.distillation.logit_cases import LOGIT_CASES
from tests.distillation.row import Case

CASES: tuple[Case, ...] = (*LOGIT_CASES,)
