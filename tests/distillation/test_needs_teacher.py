"""What a section says of the teacher is what its term does: else it would be made in vain, or be missing."""

from __future__ import annotations

import pytest

from edgekd.distillation.step import TEACHER
from edgekd.documents.recipe import Distillation
from tests.distillation.cases import CASES
from tests.distillation.row import Case, build


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_section_says_whether_its_term_reads_the_teacher(case: Case) -> None:
    (section,) = Distillation.model_validate({"terms": (dict(case.section),)}).terms
    assert section.needs_teacher is (TEACHER in build(case).sources)
