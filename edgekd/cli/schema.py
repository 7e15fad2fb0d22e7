"""`edgekd schema`: the JSON Schema of a kind of document."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.documents.arms import Arms
from edgekd.documents.audit import Audit
from edgekd.documents.base import Document, nearest
from edgekd.documents.bench import Bench
from edgekd.documents.calibration import Calibration
from edgekd.documents.comparison import Comparison
from edgekd.documents.divergence import Divergence
from edgekd.documents.engine import EngineRecord
from edgekd.documents.job import Job
from edgekd.documents.manifest import Manifest
from edgekd.documents.measurement import Measurement
from edgekd.documents.prediction import Prediction
from edgekd.documents.profile import Profile
from edgekd.documents.recipe import Recipe
from edgekd.documents.report import Report
from edgekd.documents.run_log import RunLog
from edgekd.documents.saturation import Saturation
from edgekd.documents.scheme import Scheme
from edgekd.documents.sensitivity import Sensitivity
from edgekd.documents.spec import Spec
from edgekd.documents.verdict import Verdict
from edgekd.errors import UsageError

DOCUMENTS: tuple[type[Document], ...] = (
    Recipe,
    Scheme,
    Profile,
    Spec,
    Manifest,
    Job,
    RunLog,
    Measurement,
    Bench,
    Prediction,
    Calibration,
    Verdict,
    Report,
    Audit,
    EngineRecord,
    Comparison,
    Arms,
    Sensitivity,
    Divergence,
    Saturation,
)
KINDS = {document.title.replace(" ", "-"): document for document in DOCUMENTS}

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(help=f"One of {', '.join(KINDS)}.", autocompletion=lambda: list(KINDS))
    ],
) -> None:
    """Print the JSON Schema of a kind of document.

    Editors check and complete a recipe or a profile with it.
    """
    key = kind.replace(" ", "-")
    if key not in KINDS:
        raise UsageError(
            f"there is no document '{kind}'{nearest(key, tuple(KINDS))}", hint=f"one of {', '.join(KINDS)}"
        )
    document = KINDS[key]
    screen.show_json(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **document.model_json_schema()}
    )
