"""The folder of a bench: bench.json, bench.md, two plots, and logs/ with the raw samples.

A call goes on where an earlier one with the same settings was interrupted, for finished jobs lie in logs/.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.documents.bench import Bench, Row
from edgekd.documents.run_log import RunLog
from edgekd.errors import DocumentError, RunFolderError
from edgekd.extras import install_line, is_installed
from edgekd.files import sha256_json, write_text
from edgekd.pipeline.bench.course import Course, courses_of
from edgekd.pipeline.bench.kept import LOGS
from edgekd.pipeline.bench.plan import Plan
from edgekd.pipeline.bench.plot import COURSE, DISTRIBUTION, write_plots
from edgekd.pipeline.bench.render import title_of, to_markdown
from edgekd.pipeline.bench.run import Benched

RESULT, TEXT, PLAN = "bench.json", "bench.md", "plan.sha256"


def open_folder(out: Path, plan: Plan, *, interleave: bool, fresh: bool) -> Benched | None:
    """Make a folder ready for a plan; what it holds already when all of that plan is done.

    A plan of which a part failed is gone on with: a device may be there again, and the rest lies in logs/.

    Raises:
        RunFolderError: it holds something else.
        StorageError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise RunFolderError("is no folder", where=out, hint="name a folder with --out")
    key = sha256_json([plan.key(), interleave])
    if out.exists() and any(out.iterdir()):
        if not (out / PLAN).is_file():
            raise RunFolderError("is no folder of a bench", where=out, hint="name another one with --out")
        if fresh:
            _clear(out)
        else:
            _check_plan(out, key)
        if (done := _read_done(out)) is not None:
            return done
    write_text(out / PLAN, key + "\n")
    return None


def _check_plan(out: Path, key: str) -> None:
    if (out / PLAN).read_bytes().strip() != key.encode():
        raise RunFolderError(
            "holds another bench: other graphs, devices or settings",
            where=out,
            hint="name another folder with --out, or --fresh to lose what it holds",
        )


def _read_done(out: Path) -> Benched | None:
    """What a folder holds where all was measured; a damaged result is made again from the logs."""
    try:
        document = Bench.read(out / RESULT)
        if any(one.error is not None for one in document.results):
            return None
        if _forget_invalid(out, document):
            return None
        return Benched(document, tuple(_courses(out, row) for row in document.rows))
    except DocumentError:
        return None


def _forget_invalid(out: Path, document: Bench) -> bool:
    """Remove the logs of what does not count, so that it is measured again; whether there were any."""
    rows = [row.logs for row in document.rows if row.measurement is not None and row.measurement.invalid]
    pairs = [pair.logs for pair in document.comparisons if pair.invalid]
    for name in [name for logs in (*rows, *pairs) for name in logs]:
        (out / name).unlink(missing_ok=True)
    return bool(rows or pairs)


def _courses(out: Path, row: Row) -> tuple[Course, ...]:
    return courses_of(title_of(row.setting), [RunLog.read(out / name) for name in row.logs])


def write_folder(out: Path, benched: Benched) -> tuple[str, ...]:
    """Write what was found; names of the plots, none where there is nothing to draw or no matplotlib.

    Raises:
        StorageError: a file cannot be written.
    """
    drawn = [course for courses in benched.courses for course in courses]
    plots = write_plots(drawn, out) if is_installed("matplotlib") else ()
    write_text(out / TEXT, to_markdown(benched.document, benched.courses, plots))
    benched.document.write(out / RESULT)  # last: it says that all is done
    return plots


def no_plots(benched: Benched) -> str | None:
    """What to say when there could be plots and are none."""
    if not any(benched.courses) or is_installed("matplotlib"):
        return None
    return f"no plots: matplotlib is not installed; try: {install_line('plot')}"


def _clear(out: Path) -> None:
    """Remove what a bench wrote, and nothing else; its plan is written over."""
    written = (RESULT, TEXT, DISTRIBUTION, COURSE)
    for path in (*sorted((out / LOGS).glob("*.json")), *(out / name for name in written)):
        path.unlink(missing_ok=True)
