"""A verdict on the screen: the rows, the checks that did not pass, what was not done."""

from __future__ import annotations

from pathlib import Path

from edgekd.cli import screen
from edgekd.documents.report import Report
from edgekd.pipeline.render import CHECK_HEADINGS, ROW_HEADINGS, check_cells, row_cells, warnings_of


def show_report(report: Report, run: Path) -> None:
    """Print a report as tables."""
    for measurement in report.measurements:
        target = f"{measurement.profile}/{measurement.runtime}"
        screen.show(f"{target} ({measurement.facts.cpu or measurement.facts.machine})")
        rows = [row_cells(row) for row in report.rows if row.target == target]
        screen.show_table(ROW_HEADINGS, rows, right=ROW_HEADINGS[1:])
        screen.show()
    screen.show_table(
        CHECK_HEADINGS, [check_cells(check) for check in report.checks], right=("value", "limit")
    )
    for title, lines in (
        ("note", report.notes),
        ("not done", report.not_done),
        ("warning", warnings_of(report)),
    ):
        for line in lines:
            screen.note(f"{title}: {line}")
    screen.show()
    screen.show(f"{report.name}: {report.verdict}   ({run / 'report.md'})")
