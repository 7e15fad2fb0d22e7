"""The bundles of a run: one folder a target, with the student in that runtime's dialect."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from edgekd.bundle import is_current, read_bundle, write_bundle
from edgekd.conversion.specs import spec_of
from edgekd.documents.common import InputSpec
from edgekd.documents.manifest import Evaluation, Manifest, OutputSpec
from edgekd.documents.parity import Parity
from edgekd.documents.recipe import Target
from edgekd.files import sha256_file, sha256_json
from edgekd.pipeline.artefacts import Artefact, dialect_for, shipped_for
from edgekd.pipeline.context import Context
from edgekd.pipeline.prove import INPUTS, LABELS, load_array
from edgekd.pipeline.provenance import versions
from edgekd.pipeline.run_folder import Stage

MAX_EVALUATION = 1000
"""Test examples that travel with a student: enough to check it on the device, small enough to send."""


def bundle_folder(run: Path, target: Target) -> Path:
    """RUN/bundles/PROFILE/RUNTIME."""
    return run / "bundles" / target.profile / target.runtime


def deliver(context: Context, target: Target, graphs: Stage, prove: Stage) -> Path:
    """Write the bundle of a target; one that is there already, whole and the same, is left alone."""
    folder = bundle_folder(context.folder.path, target)
    artefact = shipped_for(target, graphs)
    labels_N = load_array(graphs.path(LABELS))
    chosen = np.unique(np.linspace(0, len(labels_N) - 1, min(len(labels_N), MAX_EVALUATION)).astype(int))
    manifest = _manifest(context, target, artefact, graphs, prove, chosen)
    if is_current(folder, manifest):
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        inputs, labels = Path(scratch) / "inputs.npy", Path(scratch) / "labels.npy"
        np.save(inputs, load_array(graphs.path(INPUTS))[chosen])
        np.save(labels, labels_N[chosen])
        write_bundle(
            folder,
            graph=graphs.path(artefact.graph),
            inputs=inputs,
            labels=labels,
            spec=spec_of(dialect_for(target, graphs)),
            recipe=context.recipe,
            manifest=manifest,
        )
    read_bundle(folder)
    return folder


def _manifest(
    context: Context, target: Target, artefact: Artefact, graphs: Stage, prove: Stage, chosen: np.ndarray
) -> Manifest:
    spec = spec_of(dialect_for(target, graphs))
    graph = graphs.path(artefact.graph)
    facts = graphs.json("task.json")
    labels = load_array(graphs.path(LABELS))[chosen]
    predicted = load_array(graphs.path(artefact.logits))[chosen].argmax(axis=1)
    return Manifest(
        name=context.recipe.name,
        profile=target.profile,
        runtime=target.runtime,
        dialect=spec.dialect,
        saturation=spec.saturation,
        opset=spec.opset,
        sha256=sha256_file(graph),
        size_bytes=graph.stat().st_size,
        input=InputSpec.model_validate(facts["input"]),
        output=OutputSpec(classes=tuple(facts["classes"])),
        evaluation=Evaluation(
            inputs="evaluation/inputs.npy", labels="evaluation/labels.npy", count=len(chosen)
        ),
        fake_quant_top1=float((predicted == labels).mean()),
        parity=Parity.model_validate(prove.json("proofs.json")[artefact.stem]["parity"]),
        files={},
        recipe_sha256=sha256_json(context.recipe.model_dump(mode="json", by_alias=True)),
        versions=versions(),
    )
