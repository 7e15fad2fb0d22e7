"""How often `bench --interleave` finds a slowdown of 5 %, and how often it takes none for one.

    python benchmarks/latency/trials.py [--trials 100] [--condition quiet] [--slowdown 5] [--folder FOLDER]
    python benchmarks/latency/trials.py --verify

A trial is one whole comparison of two graphs on this machine: the network of networks.py and the one with 5 %
more blocks, or a copy of it. Without --condition and --slowdown all four cells: quiet and under load on every
core, 0 and 5 %, in turns, so that what the machine does in an hour meets all of them. Each trial is a line of
FOLDER/trials.jsonl as soon as it is done; a run that was ended goes on to the number that is asked for. The
summary is FOLDER/trials.md. About 14 s a trial when quiet, 16 s under load: 100 of each cell in 100 minutes.

--verify measures what 5 % more blocks cost, long and apart from the trials: FOLDER/work.json.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from load import other_programs
from networks import BLOCKS, macs, write_inputs, write_network

from edgekd.devices.local import LocalDevice
from edgekd.documents.job import Job, JobGraph
from edgekd.measure.interleave import compare_graphs, process_ratio
from edgekd.measure.latency import graph_log
from edgekd.pipeline.provenance import versions
from edgekd.stats import hodges_lehmann, nearest_rank, signed_rank_interval, wilson_interval

CELLS = tuple(itertools.product(("quiet", "loaded"), (0, 5)))
OUTCOMES = ("slower", "faster", "no difference", "undecided")
VERIFYING_PROCESSES = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100, help="trials of each cell, those on the disk too")
    parser.add_argument("--condition", choices=("quiet", "loaded"))
    parser.add_argument("--slowdown", type=int, choices=(0, 5))
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    parser.add_argument("--verify", action="store_true", help="measure the work itself")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        graphs = write_graphs(Path(name))
        if given.verify:
            (given.folder / "work.json").write_text(json.dumps(verify(graphs), indent=2) + "\n")
        else:
            asked = [
                (condition, slowdown)
                for condition, slowdown in CELLS
                if given.condition in (None, condition) and given.slowdown in (None, slowdown)
            ]
            run(asked, given.trials, graphs, given.folder / "trials.jsonl")
    (given.folder / "trials.md").write_text(summary(given.folder))


def write_graphs(folder: Path) -> dict[str, Path]:
    """The reference, its copy under `0`, the one with 5 % more blocks under `5`, and their inputs."""
    paths = {name: folder / f"{name}.onnx" for name in ("reference", "0", "5")}
    for name, path in paths.items():
        write_network(path, BLOCKS[0 if name == "reference" else int(name)])
    write_inputs(folder / "inputs.npy")
    return {**paths, "inputs": folder / "inputs.npy"}


def run(cells: list[tuple[str, int]], count: int, graphs: dict[str, Path], out: Path) -> None:
    """Do what is missing, cell by cell in turns, and write each trial as it ends."""
    done = [(trial["condition"], trial["slowdown"]) for trial in read(out)]
    missing = {cell: count - done.count(cell) for cell in cells}
    about = facts()
    for turn in range(max([0, *missing.values()])):
        for cell in cells:
            if turn < missing[cell]:
                append(out, {**trial(*cell, graphs), **about})


def trial(condition: str, slowdown: int, graphs: dict[str, Path]) -> dict[str, Any]:
    """One comparison, and the machine's state around it."""
    load_before, began = os.getloadavg()[0], time.time()
    with other_programs(condition):
        compared = compare_graphs(
            LocalDevice(),
            JobGraph(name="reference", path=str(graphs["reference"])),
            JobGraph(name="candidate", path=str(graphs[str(slowdown)])),
            runtime="onnxruntime",
            inputs=graphs["inputs"],
        )
    found = compared.comparison.model_dump(mode="json", exclude={"reference", "candidate"})
    steal = [moment.steal_fraction or 0.0 for moment in compared.conditions]
    print(
        f"{condition}, {slowdown} %: {found['outcome']}, {found['ratio']:.4f}, {found['seconds']:.1f} s",
        flush=True,
    )
    return {
        "condition": condition,
        "slowdown": slowdown,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "load_before": round(load_before, 2),
        "most_steal": round(max(steal, default=0.0), 4),
        **found,
    }


def facts() -> dict[str, Any]:
    """What the trials ran on and with."""
    device = LocalDevice().facts("onnxruntime")
    packages = {name: device.versions[name] for name in ("python", "numpy", "onnxruntime")}
    return {
        "cpu": device.cpu,
        "cores": device.cores,
        "versions": packages,
        "commit": versions().edgekd_commit,
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The trials of a file; a line that was cut short does not count."""
    trials = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            trials.append(json.loads(line))
    return trials


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line, after what a killed run may have left of its last one."""
    whole = path.read_text() if path.exists() else ""
    with path.open("a") as file:
        file.write(("" if whole.endswith("\n") or not whole else "\n") + json.dumps(record) + "\n")


def verify(graphs: dict[str, Path]) -> dict[str, Any]:
    """What 5 % more blocks cost: by multiply-accumulates, side by side for long, and each graph by itself."""
    pair = (
        JobGraph(name="reference", path=str(graphs["reference"])),
        JobGraph(name="5", path=str(graphs["5"])),
    )
    logs = [
        measure_long(order, graphs["inputs"]) for order in itertools.islice(orders(pair), VERIFYING_PROCESSES)
    ]
    ratios = [process_ratio(graph_log(log, "5"), graph_log(log, "reference")) for log in logs]
    alone = {
        graph.name: [measure_long((graph,), graphs["inputs"]) for _ in range(VERIFYING_PROCESSES // 4)]
        for graph in pair
    }
    quiet = {
        name: np.exp(hodges_lehmann([np.log(nearest_rank(log.graphs[0].latency_ns, 0.1)) for log in found]))
        for name, found in alone.items()
    }
    bounds = signed_rank_interval(np.log(ratios), 0.975)
    return {
        "macs_ratio": macs(BLOCKS[5]) / macs(BLOCKS[0]),
        "side_by_side": float(np.exp(hodges_lehmann(np.log(ratios)))),
        "interval_95": [float(np.exp(bound)) for bound in bounds or ()],
        "processes": len(ratios),
        "apart": float(quiet["5"] / quiet["reference"]),
        "reference_ms": float(quiet["reference"] / 1e6),
        "seconds_of_each_graph": 1.0,
        **facts(),
    }


def orders(pair: tuple[JobGraph, ...]) -> Iterator[tuple[JobGraph, ...]]:
    return itertools.cycle([pair, pair[::-1]])


def measure_long(graphs: tuple[JobGraph, ...], inputs: Path) -> Any:
    job = Job(mode="latency", runtime="onnxruntime", graphs=graphs, inputs=str(inputs), min_time_s=1.0)
    return LocalDevice().run(job, timeout_s=120)


def summary(folder: Path) -> str:
    """The tables, in Markdown."""
    trials = read(folder / "trials.jsonl")
    lines = ["# Trials of the comparison of two graphs", "", *work_lines(folder / "work.json")]
    header = ("more work", "trials", *OUTCOMES, "told slower, 95 %", "seconds, median (most)", "processes")
    lines += [f"| condition | {' | '.join(header)} |", f"|{'---|' * (len(header) + 1)}"]
    for condition, slowdown in CELLS:
        cell = [t for t in trials if (t["condition"], t["slowdown"]) == (condition, slowdown)]
        lines += [row(condition, slowdown, cell)] if cell else []
    machines = dict.fromkeys(
        f"{t['cpu']}, {t['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in t["versions"].items())
        + f"; {t['commit'] or 'no commit'}"
        for t in trials
    )
    return "\n".join([*lines, "", *machines]) + "\n"


def work_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    work = json.loads(path.read_text())
    low, high = (f"{100 * bound - 100:.2f}" for bound in work["interval_95"])
    return [
        f"5 % more blocks are {100 * work['macs_ratio'] - 100:.2f} % more multiply-accumulates, and take "
        f"{100 * work['side_by_side'] - 100:.2f} % longer ({low} to {high} %, {work['processes']} long "
        f"processes side by side; {100 * work['apart'] - 100:.2f} % in processes of their own). "
        f"The reference takes {work['reference_ms']:.3f} ms.",
        "",
    ]


def row(condition: str, slowdown: int, cell: list[dict[str, Any]]) -> str:
    counts = [sum(trial["outcome"] == outcome for trial in cell) for outcome in OUTCOMES]
    low, high = wilson_interval(counts[0], len(cell), 0.975)
    seconds = [trial["seconds"] for trial in cell]
    cells = [
        condition,
        f"{slowdown} %",
        *map(str, (len(cell), *counts)),
        f"{100 * low:.1f} to {100 * high:.1f} %",
        f"{median(seconds):.1f} ({max(seconds):.1f})",
        f"{median(trial['processes'] for trial in cell):g}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
