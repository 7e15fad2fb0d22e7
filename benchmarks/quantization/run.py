"""The arms of quantization over several seeds: one run of `edgekd quantize --arms` a seed, then one table.

    python benchmarks/quantization/run.py RECIPE.toml --out runs/quantization [--seeds 3] [--which all]

Each seed trains its own teacher and student; all arms of a seed start from that student. What is finished is
kept in the run folders, and an interrupted benchmark goes on. The result is NAME.json and NAME.md beside the
recipe: of each arm the mean test top-1 on ONNX Runtime, its difference to the fp32 student, and that of
fine-tuned arms to the calibrated one that they started from, with intervals over seeds and test examples.
The recipe's data must be in data/ (see its task).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.cli.progress import ScreenListener
from edgekd.documents.arms import Arms
from edgekd.documents.recipe import Recipe
from edgekd.pipeline.quantize.run import Request, quantize_arms
from edgekd.pipeline.render import table
from edgekd.pipeline.run_folder import read_stage
from edgekd.stats import paired_difference
from edgekd.units import format_points

HERE = Path(__file__).resolve().parent
CONFIDENCE = 0.95
BEGAN_AT = {"qat": "ptq", "qad-self": "ptq", "qad-teacher": "ptq", "qad": "ptq", "w4-qad": "w4-ptq"}


def main() -> None:
    """Run what is not there yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders, one a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="run this seed alone, and write no table")
    parser.add_argument("--which", default="standard,w4-ptq,w4-qad,qad-lsq")
    arguments = parser.parse_args()
    sys.path += [str(HERE), str(HERE.parent / "fashion_mnist_6000")]
    seeds = range(arguments.seeds) if arguments.only is None else [arguments.only]
    found = [run(arguments.recipe, seed, arguments.out, arguments.which) for seed in seeds]
    if arguments.only is None:
        folders = [folder_of(arguments.recipe, seed, arguments.out) for seed in seeds]
        write(arguments.recipe, found, folders)


def folder_of(recipe: Path, seed: int, out: Path) -> Path:
    """The run folder of a seed."""
    return out / f"{recipe.stem}-seed{seed}"


def run(recipe: Path, seed: int, out: Path, which: str) -> Arms:
    """One seed."""
    out.mkdir(parents=True, exist_ok=True)
    seeded = out / f"{recipe.stem}-seed{seed}.toml"
    seeded.write_text(re.sub(r"(?m)^seed = \d+$", f"seed = {seed}", recipe.read_text()))
    with ScreenListener() as listener:
        return quantize_arms(Request(seeded, which), folder_of(recipe, seed, out), listener)


def correct(arms: Arms, folder: Path, name: str) -> NDArray[np.bool_]:
    """Which test examples an arm of a run answers rightly, (N,)."""
    stages = {stage.name: stage.key for stage in arms.stages}
    stage = read_stage(folder / "stages" / f"arm-{name}-{stages[f'arm-{name}'][:16]}")
    (labels,) = folder.glob("stages/evaluation-*/evaluation.labels.npy")
    assert stage is not None
    answers: NDArray[np.bool_] = np.load(stage.path("logits.npy")).argmax(axis=1) == np.load(labels)
    return answers


def write(recipe: Path, found: list[Arms], folders: list[Path]) -> None:
    """The table of all seeds."""
    names = [arm.name for arm in found[0].arms]
    right = {
        name: np.stack([correct(arms, folder, name) for arms, folder in zip(found, folders, strict=True)])
        for name in names
    }
    right["ptq"] = best_of(found, right, "ptq-")
    rows = [row(name, found, right) for name in names]
    first = found[0]
    result = {
        "recipe": Recipe.read(recipe).model_dump(mode="json", by_alias=True),
        "seeds": len(found),
        "test_examples": first.arms[0].accuracy.count,
        "rows": rows,
        "machine": first.facts.model_dump(mode="json"),
        "versions": first.versions.model_dump(mode="json"),
    }
    (HERE / f"{recipe.stem}.json").write_text(json.dumps(result, indent=2) + "\n")
    (HERE / f"{recipe.stem}.md").write_text(to_markdown(recipe, result))


def best_of(found: list[Arms], right: dict[str, NDArray[np.bool_]], prefix: str) -> NDArray[np.bool_]:
    """Answers of the calibrator that validates best, seed by seed: where fine-tuning starts."""
    chosen = []
    for seed, arms in enumerate(found):
        candidates = [arm for arm in arms.arms if arm.name.startswith(prefix)]
        best = max(candidates, key=lambda arm: (arm.validation_top1 or 0.0, -(arm.validation_kl or 0.0)))
        chosen.append(right[best.name][seed])
    return np.stack(chosen)


def row(name: str, found: list[Arms], right: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """One arm over all seeds."""
    arms = [next(arm for arm in one.arms if arm.name == name) for one in found]
    origin = BEGAN_AT.get(name)
    return {
        "arm": name,
        "top1": float(right[name].mean()),
        "top1_of_seeds": right[name].mean(axis=1).tolist(),
        "to_fp32": None if name == "fp32" else difference(right["fp32"], right[name]),
        "to_start": None if origin not in right else difference(right[origin], right[name]),
        "p50_to_fp32": None if arms[0].ratio is None else [one.ratio.value for one in arms if one.ratio],
        "size_bytes": arms[0].size_bytes,
        "int8_ops": arms[0].int8_ops,
        "weighted_ops": arms[0].weighted_ops,
        "seconds": fmean(one.seconds for one in arms),
    }


def difference(reference_SN: NDArray[np.bool_], right_SN: NDArray[np.bool_]) -> dict[str, Any]:
    """Mean difference of top-1 with its interval, over seeds and examples."""
    return asdict(paired_difference(reference_SN, right_SN, (1 + CONFIDENCE) / 2))


def to_markdown(recipe: Path, result: dict[str, Any]) -> str:
    """The table for people."""
    headings = ("arm", "top-1", "to fp32", "95 %", "to its start", "95 %", "p50 / fp32", "size", "int8 ops")
    machine, packages = result["machine"], result["versions"]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return (
        f"# {recipe.stem}: the arms of quantization, {result['seeds']} seeds\n\n"
        f"{table(headings, [cells(one) for one in result['rows']])}\n\n"
        f"Mean top-1 on ONNX Runtime over {result['seeds']} seeds, {result['test_examples']} test examples; "
        "intervals over other seeds and examples. A calibrated arm is the start of the fine-tuned ones below "
        "it, with the calibrator that validated best. Latencies were taken beside other work: the ratios, "
        "each measured side by side, are what counts.\n\n"
        f"{machine['cpu']}, {machine['system']}; {versions}; commit {result['versions']['edgekd_commit']}.\n"
    )


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """One arm as cells."""
    ratios = one["p50_to_fp32"]
    return (
        one["arm"],
        f"{100 * one['top1']:.2f} %",
        *interval(one["to_fp32"]),
        *interval(one["to_start"]),
        "-" if ratios is None else " ".join(f"{ratio:.2f}" for ratio in ratios),
        f"{one['size_bytes'] / 1024:.0f} KiB",
        f"{one['int8_ops']} / {one['weighted_ops']}",
    )


def interval(found: dict[str, Any] | None) -> tuple[str, str]:
    """A difference and its interval as cells."""
    if found is None:
        return "-", "-"
    return format_points(found["mean"]), f"{100 * found['lower']:+.2f} to {100 * found['upper']:+.2f}"


if __name__ == "__main__":
    main()
