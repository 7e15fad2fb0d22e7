"""What the rule of the looks does with the noise that was recorded, and with several times as much.

    python benchmarks/latency/rule.py [FOLDER]

The ratios of the processes of trials.py (FOLDER/trials.jsonl), each over the center of its cell, are the
noise: comparisons draw from them, with a slowdown put on top and their logs multiplied. So it is seen, in
seconds where trials take an hour, which noise the rule bears and what a margin costs. Writes FOLDER/rule.md.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trials import OUTCOMES, read

from edgekd.measure.interleave import MARGIN
from edgekd.measure.looks import MOST_CONFIDENCE, look_until_decided
from edgekd.stats import hodges_lehmann

COMPARISONS = 1000
SLOWDOWNS = (0.0, 0.02, 0.05)
TIMES = (1, 2, 4)
OTHER_MARGINS = (0.01, 0.025)


def noise(trials: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Log ratios of the processes of trials, each about the center of those with as much more work."""
    found = []
    for slowdown in {trial["slowdown"] for trial in trials}:
        cell = [trial["process_ratios"] for trial in trials if trial["slowdown"] == slowdown]
        logs = np.log(np.concatenate(cell))
        found.append(logs - hodges_lehmann(logs))
    return np.concatenate(found)


def draw(logs: NDArray[np.float64], ratio: float, random: np.random.Generator) -> Callable[[], float]:
    """The ratio of one process; which of the two graphs the noise slows is thrown by a coin."""
    return lambda: ratio * math.exp(float(random.choice(logs)) * (1 if random.random() < 0.5 else -1))


def compare(logs: NDArray[np.float64], slowdown: float, margin: float) -> tuple[dict[str, float], float]:
    """Share of each outcome, and processes in the mean."""
    random, processes, outcomes = np.random.default_rng(0), 0, []
    one = draw(logs, 1 + slowdown, random)

    def counted() -> float:
        nonlocal processes
        processes += 1
        return one()

    for _ in range(COMPARISONS):
        outcomes.append(look_until_decided(counted, confidence=MOST_CONFIDENCE, margin=margin).outcome)
    shares = {outcome: outcomes.count(outcome) / COMPARISONS for outcome in sorted(set(outcomes))}
    return shares, processes / COMPARISONS


def row(condition: str, logs: NDArray[np.float64], times: int, margin: float, slowdown: float) -> str:
    shares, processes = compare(times * logs, slowdown, margin)
    ends = [f"{100 * shares.get(outcome, 0):.1f} %" for outcome in OUTCOMES]
    cells = [condition, str(times), f"{100 * times * logs.std():.2f} %", f"{100 * margin:g} %"]
    return f"| {' | '.join([*cells, f'{100 * slowdown:g} %', *ends, f'{processes:.1f}'])} |"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    trials = read(folder / "trials.jsonl")
    header = ("condition", "times", "noise, sd", "margin", "slowdown", *OUTCOMES, "processes")
    lines = [
        "# The rule of the looks under recorded noise",
        "",
        f"{COMPARISONS} comparisons a row, drawn from the processes of {len(trials)} trials; see rule.py.",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
    ]
    cases = [*((times, MARGIN) for times in TIMES), *((1, margin) for margin in OTHER_MARGINS)]
    for condition in dict.fromkeys(trial["condition"] for trial in trials):
        logs = noise([trial for trial in trials if trial["condition"] == condition])
        lines += [row(condition, logs, *case, slowdown) for case in cases for slowdown in SLOWDOWNS]
    (folder / "rule.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
