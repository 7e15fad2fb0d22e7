"""The stage `measure-PROFILE-RUNTIME`: latency and accuracy of a target's graphs on the device at hand."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.conversion.parity import compare_logits
from edgekd.conversion.specs import load_spec
from edgekd.devices.device import Device
from edgekd.devices.kit import kit_digest
from edgekd.devices.local import LOCAL_ADDRESS
from edgekd.devices.matching import mismatches, point_here, point_mismatches
from edgekd.devices.open_device import open_device
from edgekd.devices.profiles import LOCAL, load_profile, load_profile_at, local_profile
from edgekd.documents.audit import Audit
from edgekd.documents.measurement import Measurement, Subject
from edgekd.documents.profile import Profile
from edgekd.documents.recipe import Target
from edgekd.documents.run_log import Facts
from edgekd.errors import UsageError
from edgekd.files import sha256_bytes, sha256_file, sha256_json
from edgekd.measure.accuracy import accuracy, measure_outputs
from edgekd.measure.latency import LatencyResult, measure_latency
from edgekd.measure.noise import NO_CAPS, Caps, find_invalid, find_warnings
from edgekd.pipeline.artefacts import STUDENT, Artefact, artefacts_for
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.prove import INPUTS, LABELS, load_array, save_array
from edgekd.pipeline.provenance import source_digest
from edgekd.pipeline.run_folder import Stage

MEASUREMENT = "measurement.json"


def profile_of(target: Target, facts: Facts) -> Profile:
    """The target's profile; `local` is the machine at hand, as it is."""
    return local_profile(facts) if target.profile == LOCAL else load_profile(target.profile)


def caps_of(profile: Profile, point: str | None) -> Caps:
    """The highest clocks of an operating point; none where it says none, or is a unit to scale from."""
    if point is None or (chosen := profile.operating_points[point]).unit:
        return NO_CAPS
    clocks = [None if figure is None else figure.value for figure in (chosen.cpu_mhz, chosen.gpu_mhz)]
    return Caps(*clocks)


def check_runtime(target: Target, profile: Profile) -> None:
    """Check that the device has the runtime; what this machine has is found out when it is needed.

    Raises:
        UsageError: the profile does not list it.
    """
    known = [one.runtime for one in profile.runtimes]
    if target.profile != LOCAL and target.runtime not in known:
        raise UsageError(
            f"the device {target.profile} has no {target.runtime}", hint=f"runtime = '{known[0]}'"
        )


def why_not_here(target: Target, facts: Facts) -> str | None:
    """Why a target cannot be measured on this machine, or None when it can."""
    if not target.measure:
        return "the recipe says measure = false"
    if target.runtime == "tensorrt":
        if not facts.gpus:
            return "TensorRT needs an NVIDIA GPU, and this machine has none"
        if importlib.util.find_spec("tensorrt") is None:
            return "TensorRT is not installed: pip install 'edgekd[tensorrt]'"
    return None


def measure(context: Context, target: Target, graphs: Stage, prove: Stage) -> Stage:
    """Measure a target's graphs side by side, on this machine or where the context says the device is."""
    with open_device(context.address_of(target), on_event=context.listener.note) as device:
        return _measured(context, target, graphs, prove, device)


def _measured(context: Context, target: Target, graphs: Stage, prove: Stage, device: Device) -> Stage:
    facts = device.facts(target.runtime)
    profile = profile_of(target, facts)
    ingredients = {
        "graphs": graphs.digest,
        "prove": prove.digest,
        "profile": sha256_json(profile.model_dump(mode="json", by_alias=True)),
        "measuring": section(context.recipe.measuring),
        "session_options": load_spec(target.runtime).session_options,
        "confidence": context.recipe.gate.confidence,
        "address": device.name,
        "facts": section(facts, without=("governor",)),
        "kit": kit_digest(),
        "source": source_digest("measure", "devices", "stats.py", "pipeline/measuring.py"),
    }

    def work(folder: Path) -> None:
        _measure(context, target, profile, graphs, prove, device, folder)

    name = f"measure-{target.profile}-{target.runtime}"
    what = f"measure on {target.profile} with {target.runtime}"
    return context.make(name, what, {**ingredients, "attempt": _attempt(context, name, ingredients)}, work)


def _attempt(context: Context, name: str, ingredients: Mapping[str, Any]) -> int:
    """How many measurements with these ingredients are there that do not count: another one is made."""
    attempt = 0
    while found := context.folder.find(name, {**ingredients, "attempt": attempt}):
        if not Measurement.read(found.path(MEASUREMENT)).invalid:
            break
        attempt += 1
    return attempt


def _measure(
    context: Context,
    target: Target,
    profile: Profile,
    graphs: Stage,
    prove: Stage,
    device: Device,
    folder: Path,
) -> None:
    artefacts = artefacts_for(target, graphs)
    latency = measure_latency(
        device,
        {artefact.row: graphs.path(artefact.graph) for artefact in artefacts},
        runtime=target.runtime,
        inputs=graphs.path(INPUTS),
        measuring=context.recipe.measuring,
        confidence=context.recipe.gate.confidence,
        reference=STUDENT,
        session_options=load_spec(target.runtime).session_options,
    )
    proofs = prove.json("proofs.json")
    subjects = []
    for artefact in artefacts:
        logits = _logits(context, target, artefact, graphs, prove, device)
        save_array(folder / f"{artefact.stem}.predictions.npy", logits.argmax(axis=1))
        subjects.append(_subject(context, artefact, logits, graphs, proofs, latency))
    warm = [log for log in latency.logs if log.mode == "latency"]
    invalid = find_invalid(warm)
    point = None if target.profile == LOCAL else load_profile_at(target.profile)[1]
    at = point if "@" in target.profile else point_here(profile, latency.facts)
    found = find_warnings(warm, threads=context.recipe.measuring.threads, caps=caps_of(profile, at))
    document = Measurement(
        device=device.name,
        profile=profile.id,
        runtime=target.runtime,
        facts=latency.facts,
        conditions=latency.conditions,
        subjects=tuple(subjects),
        ratios=latency.ratios,
        mismatches=(
            *mismatches(profile, latency.facts),
            # The clock and the power mode of a point that nobody named are no difference of the device.
            *(point_mismatches(profile, point, latency.facts) if "@" in target.profile else ()),
        ),
        invalid=invalid,
        warnings=tuple(line for line in found if line not in invalid),
    )
    document.write(folder / MEASUREMENT)
    for number, log in enumerate(latency.logs):
        log.write(folder / "logs" / f"{number:02d}.json")


def _logits(
    context: Context, target: Target, artefact: Artefact, graphs: Stage, prove: Stage, device: Device
) -> Any:
    """Logits on the target's runtime and device: those of ONNX Runtime on this machine the proof has kept."""
    if target.runtime == "onnxruntime" and device.name == LOCAL_ADDRESS:
        return load_array(prove.path(artefact.logits))
    graph = graphs.path(artefact.graph)
    threads = context.recipe.measuring.threads
    return measure_outputs(device, graph, graphs.path(INPUTS), runtime=target.runtime, threads=threads)


def _subject(
    context: Context,
    artefact: Artefact,
    logits: Any,
    graphs: Stage,
    proofs: Mapping[str, Any],
    latency: LatencyResult,
) -> Subject:
    graph = graphs.path(artefact.graph)
    proof = proofs[artefact.stem]
    labels = load_array(graphs.path(LABELS))
    return Subject(
        name=artefact.row,
        graph_sha256=sha256_file(graph),
        size_bytes=graph.stat().st_size,
        accuracy=accuracy(logits, labels, confidence=context.recipe.gate.confidence),
        predictions_sha256=sha256_bytes(logits.argmax(axis=1).astype(np.int64).tobytes()),
        latency=latency.latencies.get(artefact.row),
        parity=compare_logits(load_array(graphs.path(artefact.logits)), logits),
        audit=None if proof["audit"] is None else Audit.model_validate(proof["audit"]),
    )


def correct_answers(stage: Stage, graphs: Stage, target: Target) -> dict[str, Any]:
    """Per row, which test examples it answers correctly."""
    labels = load_array(graphs.path(LABELS))
    return {
        artefact.row: load_array(stage.path(f"{artefact.stem}.predictions.npy")) == labels
        for artefact in artefacts_for(target, graphs)
    }
