"""results.md: what was measured beside what was published, and what was not run.

python benchmarks/cifar100/table.py
"""

from __future__ import annotations

import json
import statistics
import tomllib
from pathlib import Path
from typing import Any

from edgekd.documents.methods import METHODS

HERE = Path(__file__).parent
RESULTS, TABLE = "results.json", "results.md"
EPOCHS = 240
"""Of the literature; rows of other lengths are no comparison and stand in results.json alone."""
_COLUMNS = (
    "method",
    "published",
    "selected on validation",
    "best on test",
    "n",
    "minutes",
)

Row = dict[str, Any]
Source = dict[str, Any]


def key_of(row: Row) -> tuple[str, str, int, int]:
    """What tells one training from another."""
    return row["pair"], row["method"], row["epochs"], row["seed"]


def write_table(out: Path = HERE) -> None:
    """Write results.md from results.json and published.toml."""
    path = out / RESULTS
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    sources = tomllib.loads((HERE / "published.toml").read_text())["source"]
    pairs = sorted(path.stem for path in HERE.glob("*_*.toml"))
    full = [row for row in rows if row["epochs"] == EPOCHS]
    parts = [_HEADER, *(_pair(pair, full, sources) for pair in pairs), _sources(sources), _made_by(full)]
    (out / TABLE).write_text("\n\n".join(parts) + "\n")


_HEADER = f"""# CIFAR-100, {EPOCHS} epochs

Test top-1 in percent, mean and standard deviation over n seeds. Published figures are of the epoch that is
best on the test set: put them beside `best on test`. `selected on validation` is the figure to believe: its
epoch was chosen on 5 % of the training images, and the network learned from the other 95 %."""


def _pair(pair: str, rows: list[Row], sources: list[Source]) -> str:
    teacher, student = pair.split("_")
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    own_teacher = [row for row in rows if row["pair"] == pair and row["method"] == "teacher"]
    published = ", ".join(f"{one['teachers'][teacher]:.2f} {one['tag']}" for one in _with(sources, teacher))
    lines.append(_line(f"teacher {teacher}", published, own_teacher))
    for method in METHODS:
        found = [one for one in sources if method in one["pairs"].get(pair, {})]
        figures = ", ".join(f"{one['pairs'][pair][method]:.2f} {one['tag']}" for one in found)
        own = [row for row in rows if row["pair"] == pair and row["method"] == method]
        lines.append(_line(method, figures, own))
    return f"## {teacher} -> {student}\n\n" + "\n".join(lines)


def _with(sources: list[Source], teacher: str) -> list[Source]:
    """The sources that tell how good their teacher was, each accuracy once."""
    found: dict[float, Source] = {}
    for source in sources:
        if teacher in source["teachers"]:
            found.setdefault(source["teachers"][teacher], source)
    return list(found.values())


def _line(name: str, published: str, rows: list[Row]) -> str:
    if not rows:
        return f"| {name} | {published or '-'} | not run | | | |"
    watched = [row["best_on_test"] for row in rows if "best_on_test" in row]
    seconds = [row["seconds"] + row["head_seconds"] for row in rows if "seconds" in row]
    minutes = f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "-"
    selected = _mean([row["test_top1"] for row in rows])
    return f"| {name} | {published or '-'} | {selected} | {_mean(watched)} | {len(rows)} | {minutes} |"


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.2f}{spread}"


def _sources(sources: list[Source]) -> str:
    return "## Published\n\n" + "\n".join(f"- {one['tag']}: {one['what']}." for one in sources)


def _made_by(rows: list[Row]) -> str:
    made = {
        f"{row['machine']}, "
        + ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        + f", commit {row['commit']}"
        for row in rows
    }
    return "## Provenance\n\n" + ("\n".join(f"- {one}" for one in sorted(made)) or "Nothing was run yet.")


if __name__ == "__main__":
    write_table()
