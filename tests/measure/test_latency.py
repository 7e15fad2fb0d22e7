"""Latency from recorded and made-up logs, each figure against an independent statement of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import parser
from scipy import stats as scipy_stats

from edgekd.devices.local import LocalDevice
from edgekd.documents.job import Job
from edgekd.documents.recipe import Measuring
from edgekd.documents.run_log import Facts, RunLog
from edgekd.errors import DeviceError, MeasurementError
from edgekd.measure.latency import measure_latency, quiet_latency

FACTS = {"machine": "aarch64", "system": "Linux", "cpu": None, "isa": [], "cores": 4, "memory_bytes": None}
QUIET = {"load1": 0.1, "steal_fraction": 0.0, "throttled": False}
GRAPHS = {"fp32": Path("a.onnx"), "int8": Path("b.onnx")}
Samples = Callable[[str, int], np.ndarray]


class ScriptedDevice:
    """A device that answers latency jobs with given samples, in blocks of 20, and notes its jobs."""

    name = "scripted"

    def __init__(self, samples: Samples, conditions: dict | None = None, facts: dict | None = None, **graph):
        self.jobs: list[Job] = []
        self._samples, self._graph = samples, graph
        self._conditions, self._facts = {**QUIET, **(conditions or {})}, {**FACTS, **(facts or {})}

    def facts(self, runtime) -> Facts:
        raise AssertionError("the facts come with the logs")

    def run(self, job: Job, *, timeout_s: float) -> RunLog:
        self.jobs.append(job)
        log = {"mode": job.mode, "runtime": job.runtime, "governor": None}
        return RunLog.parse({"schema": 1, **log_of(job, self), "runtime": log["runtime"]}, where="test")


def log_of(job: Job, device: ScriptedDevice) -> dict:
    facts = {"governor": None, "versions": {}, **device._facts}
    if job.mode == "cold":
        number = len([each for each in device.jobs if each.mode == "cold"])
        graph = {"name": job.graphs[0].name, "load_ns": number * 1_000_000, "first_ns": number * 1000}
        return {
            "mode": "cold",
            "facts": facts,
            "graphs": [graph],
            "import_ns": 5,
            "process_ns": number * 10_000_000,
        }
    graphs = []
    for graph in job.graphs:
        taken = [int(value) for value in device._samples(graph.name, job.seed)]
        blocks = [index // 20 for index in range(len(taken))]
        times = {"load_ns": 1, "first_ns": 1, "warmup_ns": 1, "warmup_converged": True, **device._graph}
        graphs.append({"name": graph.name, **times, "latency_ns": taken, "block_of_sample": blocks})
    return {"mode": "latency", "facts": facts, "conditions": device._conditions, "graphs": graphs}


def measure(device, *, processes=5, reference=None, confidence=0.95, graphs=GRAPHS):
    measuring = Measuring(processes=processes, threads=2)
    return measure_latency(
        device,
        graphs,
        runtime="onnxruntime",
        inputs=Path("x.npy"),
        measuring=measuring,
        confidence=confidence,
        reference=reference,
    )


def noisy(name: str, seed: int) -> np.ndarray:
    """200 samples around 3 ms (fp32) or 1 ms (int8), with a factor of the process that both share."""
    rng = np.random.default_rng([seed, len(name), ord(name[0])])
    of_process = np.random.default_rng(seed).lognormal(0, 0.05)
    return (3e6 if name == "fp32" else 1e6) * of_process * rng.lognormal(0, 0.02, 200)


def test_percentiles_are_nearest_rank_of_all_samples():
    result = measure(ScriptedDevice(noisy))
    latency = result.latencies["int8"]
    pooled = np.sort(np.concatenate([noisy("int8", seed).astype(int) for seed in range(5)])) / 1e6
    assert (latency.samples, latency.processes, latency.threads, latency.batch_size) == (1000, 5, 2, 1)
    assert latency.p50.value_ms == pooled[499]
    assert latency.p90.value_ms == pooled[899]
    assert latency.p99.value_ms == pooled[989]
    assert latency.process_p50_ms == tuple(np.sort(noisy("int8", s).astype(int))[99] / 1e6 for s in range(5))


def test_what_differs_between_processes_widens_the_bound():
    latency = measure(ScriptedDevice(noisy)).latencies["int8"]
    logs = np.log(latency.process_p50_ms)
    student = np.exp(logs.mean() + scipy_stats.t.ppf(0.95, 4) * logs.std(ddof=1) / np.sqrt(5))
    assert latency.p50.upper_ms == pytest.approx(student, rel=1e-12)
    student = np.exp(logs.mean() - scipy_stats.t.ppf(0.95, 4) * logs.std(ddof=1) / np.sqrt(5))
    assert latency.p50.lower_ms == pytest.approx(student, rel=1e-12)
    assert latency.p90.upper_ms > latency.p90.value_ms


def test_like_processes_are_bounded_by_order_statistics():
    samples = np.arange(1_000_000, 1_000_200)
    latency = measure(ScriptedDevice(lambda name, seed: samples)).latencies["int8"]
    slower = max(t for t in range(1000) if scipy_stats.binom.cdf(t, 1000, 0.5) <= 0.05)
    assert latency.p50.upper_ms == np.sort(np.tile(samples, 5))[1000 - slower] / 1e6
    assert latency.p50.lower_ms == np.sort(np.tile(samples, 5))[slower - 1] / 1e6
    slower = max(t for t in range(200) if scipy_stats.binom.cdf(t, 1000, 0.1) <= 0.05)
    assert latency.p90.upper_ms == np.sort(np.tile(samples, 5))[1000 - slower] / 1e6


def test_quiet_latency_is_the_center_of_the_lower_deciles_of_the_processes():
    latency = measure(ScriptedDevice(noisy)).latencies["int8"]
    logs = np.log([np.sort(noisy("int8", seed).astype(int))[19] / 1e6 for seed in range(5)])
    pairs = [(a + b) / 2 for index, a in enumerate(logs) for b in logs[index:]]
    assert latency.quiet.value_ms == pytest.approx(np.exp(np.median(pairs)), rel=1e-12)
    student = np.exp(scipy_stats.t.interval(0.9, 4, logs.mean(), scipy_stats.sem(logs)))
    assert (latency.quiet.lower_ms, latency.quiet.upper_ms) == pytest.approx(tuple(student), rel=1e-9)


def test_quiet_latency_comes_out_the_same_where_most_samples_are_disturbed():
    """Four fifths of the samples, in whole blocks, take half again as long, and one process three times."""

    def disturbed(name, seed):
        samples = 1e6 * np.random.default_rng(seed).lognormal(0, 0.01, 400)
        samples[:320] *= 1.5
        return samples * (3 if seed == 4 else 1)

    latency = measure(ScriptedDevice(disturbed)).latencies["int8"]
    assert latency.quiet.value_ms == pytest.approx(1.0, rel=0.01)
    assert latency.quiet.lower_ms < latency.quiet.value_ms < latency.quiet.upper_ms
    assert latency.p50.value_ms > 1.4


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 30)), elements=st.floats(0.1, 100)),
    st.floats(0.1, 10),
)
def test_quiet_latency_scales_and_lies_in_its_bounds(samples_PN, scale):
    quiet, scaled = (quiet_latency([*values], 0.95) for values in (samples_PN, scale * samples_PN))
    assert quiet.lower_ms <= quiet.value_ms <= quiet.upper_ms
    assert samples_PN.min() * (1 - 1e-12) <= quiet.value_ms <= samples_PN.max() * (1 + 1e-12)
    assert scaled.value_ms == pytest.approx(scale * quiet.value_ms)
    assert scaled.upper_ms == pytest.approx(scale * quiet.upper_ms)


def test_one_process_tells_no_quiet_latency():
    assert quiet_latency([np.ones(200)], 0.95) is None


@pytest.mark.parametrize(
    ("each", "p90", "p99"), [(31, False, False), (32, True, False), (330, True, False), (331, True, True)]
)
def test_a_percentile_that_n_cannot_carry_is_refused(each, p90, p99):
    """64 samples carry p90, 662 carry p99; here two processes have half of them each."""
    result = measure(ScriptedDevice(lambda name, seed: np.full(each, 1_000_000)), processes=2, confidence=0.9)
    latency = result.latencies["fp32"]
    assert (latency.p90 is not None, latency.p99 is not None) == (p90, p99)


def test_too_few_samples_for_a_median():
    with pytest.raises(MeasurementError) as caught:
        measure(ScriptedDevice(lambda name, seed: np.full(3, 1_000_000)), processes=2)
    assert str(caught.value) == "fp32: 6 samples cannot carry a median\n  try: raise min_samples"


def test_a_ratio_is_of_blocks_side_by_side():
    """A disturbance that slows both graphs of a round leaves the ratio alone."""
    rounds = np.repeat(np.random.default_rng(0).uniform(1, 3, 10), 20)

    def disturbed(name, seed):
        factor = 1.0 if name == "fp32" else 0.4 + 0.01 * seed
        return 1e7 * rounds * factor

    result = measure(ScriptedDevice(disturbed), reference="fp32")
    (ratio,) = result.ratios
    assert (ratio.name, ratio.reference) == ("int8", "fp32")
    assert ratio.value == pytest.approx(0.42, abs=1e-6)
    logs = np.log(0.4 + 0.01 * np.arange(5))
    expected = scipy_stats.t.interval(0.9, 4, logs.mean(), scipy_stats.sem(logs))
    assert (ratio.interval.lower, ratio.interval.upper) == pytest.approx(tuple(np.exp(expected)), rel=1e-5)
    assert ratio.interval.confidence == 0.9


@pytest.mark.parametrize(("reference", "value"), [("fp32", 0.5), ("int8", 2.0)])
def test_rounds_that_only_one_graph_had_do_not_count(reference, value):
    def samples(name, seed):
        return np.full(40, 2e6) if name == "fp32" else np.concatenate([np.full(40, 1e6), np.full(400, 9e6)])

    (ratio,) = measure(ScriptedDevice(samples), reference=reference).ratios
    assert ratio.value == pytest.approx(value)


def test_the_value_of_a_ratio_lies_in_its_interval():
    """Where two fifths of many processes are slow, the mean of the logs is far above the median."""

    def samples(name, seed):
        return np.full(200, 1.5e6 if name == "int8" and seed % 5 < 2 else 1e6)

    (ratio,) = measure(ScriptedDevice(samples), reference="fp32", processes=20).ratios
    assert ratio.value == ratio.interval.lower == 1.0
    assert ratio.interval.upper > 1.1


def test_jobs_are_fresh_processes_with_other_orders_and_cold_starts_apart():
    device = ScriptedDevice(noisy)
    result = measure(device, processes=3)
    assert [job.mode for job in device.jobs] == ["latency"] * 3 + ["cold"] * 6
    assert [job.seed for job in device.jobs[:3]] == [0, 1, 2]
    assert all([graph.name for graph in job.graphs] == ["fp32", "int8"] for job in device.jobs[:3])
    assert [job.graphs[0].name for job in device.jobs[3:]] == ["fp32", "int8"] * 3
    assert (device.jobs[0].warmup_s, device.jobs[0].max_warmup_s, device.jobs[0].min_samples) == (
        0.3,
        2.0,
        200,
    )
    latency = result.latencies["int8"]  # cold starts number 2, 4 and 6
    assert (latency.cold_start_ms, latency.load_ms, latency.first_ms) == (40.0, 4.0, 0.004)
    assert len(result.logs) == 9
    assert len(result.conditions) == 3
    assert result.facts.cores == 4
    assert result.warnings == ()


class Liar(ScriptedDevice):
    """Answers with the log of another job."""

    def run(self, job, *, timeout_s):
        return super().run(job.model_copy(update={"graphs": job.graphs[:1]}), timeout_s=timeout_s)


def test_a_log_of_another_job():
    with pytest.raises(DeviceError) as caught:
        measure(Liar(noisy))
    assert str(caught.value) == (
        "the run log is not of this job: latency of fp32, expected latency of fp32, int8\n"
        "  try: the kit on the device is not the one of this edgekd: deliver it again"
    )


@pytest.mark.parametrize(
    ("device", "warning"),
    [
        (
            {"conditions": {"steal_fraction": 0.031}},
            "other virtual machines took up to 3.10 % of the processor time; "
            "try: a quieter or a dedicated host, or more processes",
        ),
        (
            {"conditions": {"load1": 5.2}},
            "the load average was 5.2 on 4 processors before the start; "
            "try: end other programs and measure again",
        ),
        (
            {"conditions": {"throttled": True}},
            "the device throttled itself; try: better cooling, a stronger power supply, a lower power mode",
        ),
        (
            {"facts": {"governor": "ondemand"}},
            "the frequency governor is ondemand, so that clocks follow the load; "
            "try: sudo cpupower frequency-set -g performance",
        ),
        (
            {"facts": {"cgroup_cpus": 1.5}},
            "the container's quota allows 1.5 of 4 processors and stops the process when it is used up; "
            "try: pin processors (cpuset) instead of a quota",
        ),
        ({"facts": {"cores": 1}}, "2 threads share 1 processors; try: threads = 1"),
        (
            {"warmup_converged": False},
            "fp32: the warm-up did not settle within 2 % in 2 of 2 processes; "
            "try: a quieter machine, or a longer measuring.max_warmup_s",
        ),
    ],
)
def test_warnings_say_what_happened_and_what_to_try(device, warning):
    device = ScriptedDevice(noisy, **device)
    assert measure(device, processes=2, graphs={"fp32": Path("a.onnx")}).warnings == (warning,)


def test_conditions_at_their_limits_are_no_warning():
    device = ScriptedDevice(
        noisy,
        {"steal_fraction": 0.005, "load1": 4.0, "throttled": None},
        {"governor": "performance", "cgroup_cpus": 4},
    )
    assert measure(device).warnings == ()


@pytest.mark.parametrize(
    ("slope", "advice"), [(0.2, "cool the device, or lock its clocks"), (-0.2, "a longer measuring.warmup_s")]
)
def test_drift(slope, advice):
    def drifting(name, seed):
        noise = np.random.default_rng(seed).lognormal(0, 0.01, 400)
        return 1e6 * noise * (1 + slope * np.arange(400) / 400)

    (warning,) = measure(ScriptedDevice(drifting), graphs={"int8": Path("b.onnx")}).warnings
    assert warning.startswith("int8: latency drifted by +" if slope > 0 else "int8: latency drifted by -1")
    assert warning.endswith(f"try: {advice}")


@pytest.mark.parametrize("excess", [1.3, 1.05])
def test_a_slow_start(excess):
    def starting(name, seed):
        noise = np.random.default_rng(seed).lognormal(0, 0.01, 400)
        return 1e6 * noise * np.where(np.arange(400) < 20, excess, 1.0)

    found = measure(ScriptedDevice(starting), graphs={"int8": Path("b.onnx")}).warnings
    line = "int8: the first 20 inferences after the warm-up took 30 % longer than the next; "
    assert found == (() if excess < 1.1 else (line + "try: a longer measuring.warmup_s",))


def test_two_levels():
    def jumping(name, seed):
        rng = np.random.default_rng(seed)
        return np.where(rng.random(400) < 0.3, 3e6, 1.5e6) * rng.lognormal(0, 0.01, 400)

    (warning,) = measure(ScriptedDevice(jumping), graphs={"int8": Path("b.onnx")}).warnings
    assert warning.startswith("int8: latency jumps between two levels, 1.50 ms and 2.99 ms (29 %")
    assert warning.endswith("of the samples); try: lock the clocks, or pin the process to one kind of core")


def test_rare_slow_samples_are_no_level_and_noise_is_no_drift():
    def spiky(name, seed):
        rng = np.random.default_rng(seed)
        return 1e6 * rng.lognormal(0, 0.05, 400) * np.where(rng.random(400) < 0.03, 5.0, 1.0)

    assert measure(ScriptedDevice(spiky)).warnings == ()


def test_the_real_kit_measures_two_graphs(tmp_path):
    graphs = {}
    for name, nodes in {"short": "logits = Relu(input)", "long": "logits = MatMul(input, W)"}.items():
        weight = ", ".join(["0.5"] * 512 * 512)
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[N,512] input) => (float[N,512] logits) <float[512,512] W = {{{weight}}}> {{ {nodes} }}"""
        graphs[name] = tmp_path / f"{name}.onnx"
        onnx.save(parser.parse_model(text), graphs[name])
    np.save(tmp_path / "x.npy", np.ones((8, 512), np.float32))
    measuring = Measuring(processes=2, warmup_s=0.02, max_warmup_s=0.1, min_time_s=0.02, min_samples=40)
    result = measure_latency(
        LocalDevice(),
        graphs,
        runtime="onnxruntime",
        inputs=tmp_path / "x.npy",
        measuring=measuring,
        confidence=0.95,
        reference="long",
    )
    assert result.ratios[0].name == "short"
    assert result.ratios[0].interval.upper < 1  # an elementwise maximum against 262,144 products
    assert result.latencies["long"].cold_start_ms > result.latencies["long"].load_ms
    assert result.latencies["long"].samples >= 80


def test_the_build_and_the_inner_scopes_stand_apart():
    class Building(ScriptedDevice):
        def run(self, job, *, timeout_s):
            log = super().run(job, timeout_s=timeout_s)
            first = {"build_ns": 7_000_000_000 if job.seed == 0 else None}
            scopes = {"scope_ns": {"compute": (1_000_000, 3_000_000, 2_000_000)}}
            graphs = tuple(graph.model_copy(update={**first, **scopes}) for graph in log.graphs)
            return log.model_copy(update={"graphs": graphs})

    latency = measure(Building(noisy), graphs={"int8": Path("b.onnx")}).latencies["int8"]
    assert (latency.build_ms, latency.scopes_p50_ms) == (7000.0, {"compute": 2.0})
    plain = measure(ScriptedDevice(noisy), graphs={"int8": Path("b.onnx")}).latencies["int8"]
    assert (plain.build_ms, plain.scopes_p50_ms) == (None, {})
