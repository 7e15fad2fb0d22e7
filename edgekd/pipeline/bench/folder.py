"""The folder of a bench: bench.json, bench.md, two plots, and logs/ with every raw sample.

A call goes on where an earlier one with the same settings was interrupted, for finished jobs lie in logs/.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.documents.bench import Bench
from edgekd.errors import RunFolderError
from edgekd.extras import install_line, is_installed
from edgekd.files import sha256_json, write_text
from edgekd.pipeline.bench.kept import LOGS
from edgekd.pipeline.bench.plan import Plan
from edgekd.pipeline.bench.plot import write_plots
from edgekd.pipeline.bench.render import to_markdown
from edgekd.pipeline.bench.run import Benched

RESULT, TEXT, PLAN = "bench.json", "bench.md", "plan.sha256"


def open_folder(out: Path, plan: Plan, *, interleave: bool, fresh: bool) -> Bench | None:
    """Make a folder ready for a plan; what it holds already when that plan is done.

    Raises:
        RunFolderError: it holds something else.
    """
    key = sha256_json([plan.key(), interleave])
    if fresh:
        _clear(out)
    if out.exists() and any(out.iterdir()):
        if not (out / PLAN).is_file():
            raise RunFolderError("is no folder of a bench", where=out, hint="name another one with --out")
        if (out / PLAN).read_text().strip() != key:
            raise RunFolderError(
                "holds another bench: other graphs, devices or settings",
                where=out,
                hint="name another folder with --out, or --fresh to lose what it holds",
            )
        if (out / RESULT).is_file():
            return Bench.read(out / RESULT)
    write_text(out / PLAN, key + "\n")
    return None


def write_folder(out: Path, benched: Benched) -> tuple[str, ...]:
    """Write what was found; names of the plots, none where matplotlib is not installed."""
    drawn = [course for courses in benched.courses for course in courses]
    plots = write_plots(drawn, out) if is_installed("matplotlib") else ()
    write_text(out / TEXT, to_markdown(benched.document, benched.courses, plots))
    benched.document.write(out / RESULT)  # last: it says that all is done
    return plots


def no_plots() -> str:
    """What to say when there are none."""
    return f"no plots: matplotlib is not installed; try: {install_line('plot')}"


def _clear(out: Path) -> None:
    """Remove what a bench wrote, and nothing else."""
    if not (out / PLAN).is_file():
        return
    for path in (*sorted((out / LOGS).glob("*.json")), *(out / name for name in (RESULT, TEXT, PLAN))):
        path.unlink(missing_ok=True)
    for path in out.glob("*.svg"):
        path.unlink(missing_ok=True)
