"""How well a latency comes out the same when it is measured again: figures and designs side by side.

    python benchmarks/latency/repeatability.py [--repeats 10] [--condition CONDITION] [--folder FOLDER]

A bench is ten fresh processes of 0.5 s each, of the network of networks.py: one thread, one example. Every
figure is computed from the same raw samples, and every design is a part of them: fewer processes, shorter
ones, or every other process, which spreads the same number over twice the time. Repeats of the conditions
(load.py) take turns. What is asked is a coefficient of variation over the repeats of 2 % at most. About 12 s
a bench, 6 minutes in all; writes FOLDER/repeatability.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from load import CONDITIONS, other_programs
from networks import BLOCKS, write_inputs, write_network
from numpy.typing import NDArray

from edgekd.devices.local import LocalDevice
from edgekd.documents.recipe import Measuring
from edgekd.measure.latency import measure_latency, quiet_latency
from edgekd.pipeline.provenance import versions
from edgekd.stats import hodges_lehmann, nearest_rank

PROCESSES = 10
BLOCK = 20
ASKED = 0.02
Samples = list[NDArray[np.float64]]
Figure = Callable[[Samples], float]


def pooled(q: float) -> Figure:
    return lambda samples: nearest_rank(np.concatenate(samples), q)


def of_processes(each: Callable[[NDArray[np.float64]], float], over: Callable[..., Any]) -> Figure:
    return lambda samples: float(over([each(process) for process in samples]))


def center(values: list[float]) -> float:
    return math.exp(hodges_lehmann(np.log(values)))


def blocks(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)


def quiet(samples: Samples) -> float:
    found = quiet_latency(samples, 0.95)
    assert found is not None
    return found.value_ms


FIGURES: dict[str, Figure] = {
    "p50 of the first 200 samples": lambda samples: nearest_rank(samples[0][:200], 0.5),
    "p50, pooled": pooled(0.5),
    "p90, pooled": pooled(0.9),
    "mean": lambda samples: float(np.concatenate(samples).mean()),
    "median of the processes' p50": of_processes(lambda x: nearest_rank(x, 0.5), np.median),
    "lower quartile of the processes' p50": of_processes(
        lambda x: nearest_rank(x, 0.5), lambda each: nearest_rank(each, 0.25)
    ),
    "center of the processes' p50": of_processes(lambda x: nearest_rank(x, 0.5), center),
    "center of the processes' p25": of_processes(lambda x: nearest_rank(x, 0.25), center),
    "median of the processes' p10": of_processes(lambda x: nearest_rank(x, 0.1), np.median),
    "**quiet: center of the processes' p10**": quiet,
    "p10, pooled": pooled(0.1),
    "center of the processes' minimum": of_processes(min, center),
    "center of the median of block minima": of_processes(lambda x: np.median(blocks(x).min(1)), center),
    "center of the median of block p25": of_processes(
        lambda x: np.median(np.quantile(blocks(x), 0.25, axis=1, method="inverted_cdf")), center
    ),
}
DESIGN = "5 processes, 0.5 s each (the default)"
DESIGNS: dict[str, Callable[[Samples], Samples]] = {
    "10 processes, 0.5 s each": lambda samples: samples,
    DESIGN: lambda samples: samples[:5],
    "5 processes, 0.5 s each, over twice the time": lambda samples: samples[::2],
    "10 processes, 0.25 s each": lambda samples: [first(process, 0.25) for process in samples],
    "5 processes, 0.25 s each": lambda samples: [first(process, 0.25) for process in samples[:5]],
    "3 processes, 0.5 s each": lambda samples: samples[:3],
}


def first(samples: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """The samples of the first so many seconds, and 20 at least."""
    return samples[: max(20, int(np.searchsorted(np.cumsum(samples), 1000 * seconds)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--condition", choices=CONDITIONS, help="one instead of all")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    conditions = [given.condition] if given.condition else list(CONDITIONS)
    benches: dict[str, list[dict[str, Any]]] = {condition: [] for condition in conditions}
    with tempfile.TemporaryDirectory() as name:
        graph, inputs = Path(name) / "network.onnx", Path(name) / "inputs.npy"
        write_network(graph, BLOCKS[0])
        write_inputs(inputs)
        for repeat in range(given.repeats):
            for condition in conditions:
                benches[condition].append(bench(graph, inputs, condition))
                print(repeat + 1, condition, benches[condition][-1]["figures"][DESIGN], flush=True)
    device = LocalDevice().facts("onnxruntime")
    result = {
        "benches": benches,
        "cpu": device.cpu,
        "cores": device.cores,
        "versions": versions().model_dump(mode="json"),
    }
    (given.folder / "repeatability.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.folder / "repeatability.md").write_text(tables(result))


def bench(graph: Path, inputs: Path, condition: str) -> dict[str, Any]:
    """Every figure of every design, in milliseconds, from one bench."""
    load_before, began = os.getloadavg()[0], time.time()
    with other_programs(condition):
        result = measure_latency(
            LocalDevice(),
            {"network": graph},
            runtime="onnxruntime",
            inputs=inputs,
            measuring=Measuring(processes=PROCESSES),
            confidence=0.95,
            cold_starts=0,
        )
    samples = [np.array(log.graphs[0].latency_ns) / 1e6 for log in result.logs]
    found = {
        design: {name: round(figure(part(samples)), 6) for name, figure in FIGURES.items()}
        for design, part in DESIGNS.items()
    }
    steal = [moment.steal_fraction or 0.0 for moment in result.conditions]
    around = {"load_before": load_before, "most_steal": max(steal), "seconds": time.time() - began}
    return {**around, "figures": found}


def tables(result: dict[str, Any]) -> str:
    """Coefficients of variation: of all figures under one design, of two figures under all designs."""
    benches = result["benches"]
    count = len(next(iter(benches.values())))
    packages = result["versions"]["packages"]
    seconds = np.mean([bench["seconds"] for condition in benches.values() for bench in condition])
    lines = [
        "# Repeatability of a latency",
        "",
        f"Coefficient of variation over {count} benches a condition, in percent; see repeatability.py. "
        f"{result['cpu']}, {result['cores']} cores; Python {result['versions']['python']}, "
        f"onnxruntime {packages['onnxruntime']}. All ten processes of a bench take {seconds:.0f} s. Under "
        "`quiet` the benchmark starts nothing else; what ran besides is told by the load averages below.",
        "",
        *table(f"figure, {DESIGN}", benches, {name: (DESIGN, name) for name in FIGURES}),
    ]
    for name in ("p50, pooled", "**quiet: center of the processes' p10**"):
        lines += ["", *table(name, benches, {design: (design, name) for design in DESIGNS})]
    return "\n".join([*lines, "", *loads(benches)]) + "\n"


def table(title: str, benches: dict[str, Any], rows: dict[str, tuple[str, str]]) -> list[str]:
    lines = [
        f"| {title} | {' | '.join(benches)} | at most 2 % | mean, ms |",
        f"|{'---|' * (len(benches) + 3)}",
    ]
    for name, (design, figure) in rows.items():
        values = {
            condition: np.array([bench["figures"][design][figure] for bench in found])
            for condition, found in benches.items()
        }
        cov = [float(np.std(each, ddof=1) / np.mean(each)) for each in values.values()]
        met = "yes" if max(cov) <= ASKED else "no"
        means = ", ".join(f"{np.mean(each):.3f}" for each in values.values())
        lines.append(f"| {name} | {' | '.join(f'{100 * each:.2f}' for each in cov)} | {met} | {means} |")
    return lines


def loads(benches: dict[str, Any]) -> list[str]:
    """What else ran: the load average before each bench, and the most that other virtual machines took."""
    return [
        f"{condition}: load average before a bench {min(before):.1f} to {max(before):.1f}, "
        f"at most {100 * max(bench['most_steal'] for bench in found):.1f} % stolen.\n"
        for condition, found in benches.items()
        if (before := [bench["load_before"] for bench in found])
    ]


if __name__ == "__main__":
    main()
