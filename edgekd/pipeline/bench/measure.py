"""Measure one graph in one way on one device: latency, accuracy, and what else was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.conversion.audit import audit_graph
from edgekd.conversion.specs import session_options
from edgekd.devices.local import LOCAL_ADDRESS, LocalDevice
from edgekd.devices.matching import mismatches, point_here, point_mismatches
from edgekd.devices.profiles import LOCAL, load_profile_at
from edgekd.documents.audit import Audit
from edgekd.documents.bench import Setting
from edgekd.documents.job import Job, JobGraph
from edgekd.documents.measurement import Accuracy, Measurement, Paced, Subject, Sustained
from edgekd.documents.run_log import Facts, RunLog
from edgekd.errors import BundleError, ConversionError, DeviceError, EdgekdError
from edgekd.files import sha256_bytes
from edgekd.measure.accuracy import accuracy, measure_outputs
from edgekd.measure.latency import LatencyResult, measure_latency
from edgekd.measure.noise import NO_CAPS, Caps, find_invalid, find_warnings
from edgekd.measure.phases import SUSTAINED_S, energy_of, measure_paced, measure_sustained, memory_of
from edgekd.pipeline.bench.candidate import Candidate
from edgekd.pipeline.bench.kept import KeptDevice
from edgekd.pipeline.bench.plan import Place, Plan, check_runtime
from edgekd.pipeline.measuring import caps_of


def jobs_of(plan: Plan, candidate: Candidate) -> int:
    """How many jobs a setting is, for a progress bar."""
    extra = [candidate.labels is not None, plan.sustained_s is not None, plan.rate_hz is not None]
    return plan.measuring.processes + COLD_STARTS + sum(extra)


COLD_STARTS = 3


def measure(plan: Plan, place: Place, setting: Setting, device: KeptDevice, scratch: Path) -> Measurement:
    """Measure one setting.

    Raises:
        DeviceError: the device is not the one that is expected, or cannot be used.
        UsageError, MissingError, MeasurementError: as measure_latency and Device.run.
    """
    candidate = plan.graphs[setting.graph]
    check_runtime(candidate, setting.runtime)
    expected = check_expected(plan, place, candidate, device.facts(setting.runtime))
    inputs, note = candidate.fed(setting.batch_size, scratch)
    options = options_for(plan, setting)
    result = measure_latency(
        device,
        {setting.graph: candidate.graph},
        runtime=setting.runtime,
        inputs=inputs,
        measuring=plan.measuring.model_copy(update={"threads": setting.threads}),
        confidence=plan.confidence,
        batch_size=setting.batch_size,
        session_options=options,
        cold_starts=COLD_STARTS,
    )
    job = _job(plan, setting, candidate, inputs, options)
    sustained, paced, more = _long_phases(plan, device, job)
    warm, cold = _apart(result)
    logs = (*warm, *more)
    scored, digest = _score(plan, setting, candidate, device, inputs)
    audit, no_audit = _audit(candidate, setting, device, result.facts)
    subject = Subject(
        name=setting.graph,
        graph_sha256=candidate.sha256,
        size_bytes=candidate.size_bytes,
        accuracy=scored,
        predictions_sha256=digest,
        latency=result.latencies[setting.graph],
        sustained=sustained,
        paced=paced,
        memory=memory_of(cold),
        energy=energy_of(logs),
        audit=audit,
    )
    invalid = find_invalid(logs)
    steady = [log for log in more if log.mode == "sustained"]  # between paced inferences clocks may fall
    found = find_warnings(warm, threads=setting.threads, caps=expected.caps, also=steady)
    warnings = [line for line in found if line not in invalid]
    return Measurement(
        device=place.address,
        profile=expected.name,
        runtime=setting.runtime,
        facts=result.facts,
        conditions=tuple(log.conditions for log in logs if log.conditions is not None),
        subjects=(subject,),
        mismatches=expected.differences,
        invalid=invalid,
        warnings=tuple(
            filter(None, (note, no_audit, *_notes(logs), _too_short(plan), _resumed(device), *warnings))
        ),
    )


def options_for(plan: Plan, setting: Setting) -> dict[str, str]:
    """The session's options: those of the runtime's dialect, and those that were asked for."""
    return {**session_options(setting.runtime), **plan.session_options}


@dataclass(frozen=True)
class Expected:
    """What a device was held against."""

    name: str
    """The profile, with the operating point if that was named."""
    differences: tuple[str, ...] = ()
    caps: Caps = NO_CAPS


def check_expected(plan: Plan, place: Place, candidate: Candidate, facts: Facts) -> Expected:
    """The profile, and how the device differs from it where that is accepted.

    The clock and the power mode of an operating point that nobody named are only told.

    Raises:
        DeviceError: it differs, and that was not accepted.
    """
    name = place.profile or candidate.profile
    if name == LOCAL:
        return Expected(LOCAL)
    profile, point = load_profile_at(name)
    of_device, of_point = mismatches(profile, facts), point_mismatches(profile, point, facts)
    grave = (*of_device, *(of_point if "@" in name else ()))
    if grave and not plan.accept_mismatch:
        raise DeviceError(
            f"it is not the device {name}: {'; '.join(grave)}",
            where=place.address,
            hint="name the right one with --device, or take this one as it is: --profile local",
        )
    at = point if "@" in name else point_here(profile, facts)
    return Expected(name, (*of_device, *of_point), caps_of(profile, at))


def _job(plan: Plan, setting: Setting, candidate: Candidate, inputs: Path, options: Mapping[str, str]) -> Job:
    """The job that long phases are cut from."""
    return Job(
        mode="sustained",
        runtime=setting.runtime,
        graphs=(JobGraph(name=setting.graph, path=str(candidate.graph)),),
        inputs=str(inputs),
        batch_size=setting.batch_size,
        threads=setting.threads,
        session_options=dict(options),
        warmup_s=plan.measuring.warmup_s,
        max_warmup_s=max(plan.measuring.warmup_s, plan.measuring.max_warmup_s),
    )


def _long_phases(
    plan: Plan, device: KeptDevice, job: Job
) -> tuple[Sustained | None, Paced | None, tuple[RunLog, ...]]:
    sustained, paced, logs = None, None, []
    if plan.rate_hz is not None:
        at_rate = job.model_copy(update={"rate_hz": plan.rate_hz, "duration_s": plan.rate_s})
        paced, log = measure_paced(device, at_rate, plan.confidence)
        logs.append(log)
    if plan.sustained_s is not None:
        sustained, log = measure_sustained(device, job.model_copy(update={"duration_s": plan.sustained_s}))
        logs.append(log)
    return sustained, paced, tuple(logs)


def _apart(result: LatencyResult) -> tuple[tuple[RunLog, ...], tuple[RunLog, ...]]:
    warm = tuple(log for log in result.logs if log.mode == "latency")
    return warm, tuple(log for log in result.logs if log.mode == "cold")


def _score(
    plan: Plan, setting: Setting, candidate: Candidate, device: KeptDevice, inputs: Path
) -> tuple[Accuracy | None, str | None]:
    if candidate.labels is None:
        return None, None
    logits = measure_outputs(
        device,
        candidate.graph,
        inputs,
        runtime=setting.runtime,
        threads=setting.threads,
        session_options=options_for(plan, setting),
    )
    try:  # mapped, a header that promises more than the file holds allocates nothing
        labels = np.load(candidate.labels, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot be read: {error}", where=candidate.labels) from None
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BundleError("holds no row of integer labels", where=candidate.labels)
    if len(labels) != len(logits):
        raise BundleError("inputs and labels differ in number", where=candidate.labels)
    digest = sha256_bytes(logits.argmax(axis=1).astype(np.int64).tobytes())
    return accuracy(logits, labels, confidence=plan.confidence), digest


def _same_kernels(facts: Facts) -> bool:
    """Whether a device has this host's kernels: the version of the runtime and the processor decide."""
    here = LocalDevice().facts("onnxruntime")
    return (facts.machine, facts.isa, facts.versions.get("onnxruntime")) == (
        here.machine,
        here.isa,
        here.versions.get("onnxruntime"),
    )


def _audit(
    candidate: Candidate, setting: Setting, device: KeptDevice, facts: Facts
) -> tuple[Audit | None, str | None]:
    """Which operators run in int8, by the runtime of this host; a graph that it cannot read has no audit."""
    if setting.runtime != "onnxruntime":
        return None, None
    if device.name != LOCAL_ADDRESS and not _same_kernels(facts):
        why = "this host's onnxruntime or processor is not the device's"
        return None, f"no audit: {why}; edgekd audit on the device makes one"
    try:
        return audit_graph(candidate.graph), None
    except (ConversionError, EdgekdError) as error:
        return None, f"no audit: {error.message}"


def _notes(logs: Sequence[RunLog]) -> Iterator[str]:
    """What the runtime says that it did otherwise than it was asked, once."""
    notes = {graph.name: graph.note for log in logs for graph in log.graphs if graph.note}
    return (f"{name}: {note}" for name, note in notes.items())


def _too_short(plan: Plan) -> str | None:
    """What to say of a sustained phase that tells little of heat."""
    if plan.sustained_s is None or plan.sustained_s >= SUSTAINED_S:
        return None
    return (
        f"sustained for {plan.sustained_s:g} s: a device without a fan may take {SUSTAINED_S:g} s to get warm"
    )


def _resumed(device: KeptDevice) -> str | None:
    if not device.reused:
        return None
    return f"{device.reused} of the jobs were done by an earlier call and read from its folder"
