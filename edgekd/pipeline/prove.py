"""Proof that each graph computes what was trained: its logits on ONNX Runtime, its parity, its audit.

The TensorRT dialect is run on ONNX Runtime too: that proves its numbers, not TensorRT's. The parser and the
builder of TensorRT see it in the stage `engine`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.check_graph import check_graph, read_graph
from edgekd.conversion.parity import compare_logits
from edgekd.conversion.specs import spec_of
from edgekd.devices.kit import kit_digest
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import LOCAL, load_profile, target_sm
from edgekd.documents.engine import EngineRecord
from edgekd.documents.recipe import Target
from edgekd.documents.run_log import Facts
from edgekd.files import write_text, writing
from edgekd.measure.accuracy import measure_outputs
from edgekd.pipeline.artefacts import Artefact, artefacts_in, shipped_for
from edgekd.pipeline.context import Context
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.runtimes.tensorrt import parse_and_build

INPUTS, LABELS = "evaluation.inputs.npy", "evaluation.labels.npy"


def prove(context: Context, graphs: Stage) -> Stage:
    """Run every graph on ONNX Runtime over the whole test set; keep logits, parity and audit."""
    ingredients = {
        "graphs": graphs.digest,
        "threads": context.recipe.measuring.threads,
        "kit": kit_digest(),
        "source": source_digest("conversion", "measure", "runtimes", "devices", "pipeline/prove.py"),
        "versions": package_versions("onnxruntime", "onnx"),
        "machine": LocalDevice().facts("onnxruntime").isa,
    }
    what = "run every graph on ONNX Runtime and compare it with what was trained"
    return context.make("prove", what, ingredients, lambda folder: _prove(context, graphs, folder))


def _prove(context: Context, graphs: Stage, folder: Path) -> None:
    artefacts = artefacts_in(graphs)
    proofs = {artefact.stem: _prove_one(context, graphs, artefact, folder) for artefact in artefacts}
    write_text(folder / "proofs.json", json.dumps(proofs, indent=2) + "\n")


def _prove_one(context: Context, graphs: Stage, artefact: Artefact, folder: Path) -> dict[str, Any]:
    graph = graphs.path(artefact.graph)
    if artefact.dialect is not None:
        check_graph(read_graph(graph), spec_of(artefact.dialect), graph)
    logits = _logits(context, graphs, artefact)
    save_array(folder / artefact.logits, logits)
    reference = load_array(graphs.path(artefact.logits))
    audit = None if _is_foreign(artefact) else audit_graph(graph, threads=context.recipe.measuring.threads)
    return {
        "parity": compare_logits(reference, logits).model_dump(mode="json"),
        "audit": None if audit is None else audit.model_dump(mode="json", by_alias=True),
    }


def _logits(context: Context, graphs: Stage, artefact: Artefact) -> NDArray[np.float32]:
    """ONNX Runtime's logits: by the kit, as on a device; a foreign dialect node by node, as it is written.

    ONNX Runtime's optimizer rounds the float biases of a foreign dialect to int32, which TensorRT does not.
    """
    graph, inputs = graphs.path(artefact.graph), graphs.path(INPUTS)
    threads = context.recipe.measuring.threads
    if _is_foreign(artefact):
        return run_batches(
            open_session(read_graph(graph), threads=threads, as_written=True), load_array(inputs)
        )
    return measure_outputs(LocalDevice(), graph, inputs, runtime="onnxruntime", threads=threads)


def _is_foreign(artefact: Artefact) -> bool:
    """Whether the graph is in the dialect of another runtime than ONNX Runtime."""
    return artefact.dialect is not None and spec_of(artefact.dialect).runtime != "onnxruntime"


def engine(context: Context, graphs: Stage, target: Target, facts: Facts) -> Stage:
    """Let TensorRT's parser see the graph of a target, and build its engine where this host can."""
    graph = graphs.path(shipped_for(target, graphs).graph)
    sm = None if target.profile == LOCAL else target_sm(load_profile(target.profile))
    ingredients = {
        "graphs": graphs.digest,
        "sm": sm,
        "gpus": facts.gpus,
        "source": source_digest("runtimes"),
        "versions": package_versions("tensorrt", "tensorrt-rtx"),
    }

    def work(folder: Path) -> None:
        record = parse_and_build(graph, sm=sm, engine=folder / "model.engine")
        record.write(folder / "engine.json")

    return context.make(f"engine-{target.profile}", "parse and build the TensorRT graph", ingredients, work)


def read_engine(stage: Stage) -> EngineRecord:
    """What became of the TensorRT graph."""
    return EngineRecord.read(stage.path("engine.json"))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array that a later stage reads, atomically."""
    with writing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def load_array(path: Path) -> NDArray[Any]:
    """An array that an earlier stage wrote."""
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array
