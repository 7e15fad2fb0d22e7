"""Comparisons of two graphs: the rule of the looks by simulation, pairs through a device of made-up noise."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser

from edgekd.devices.local import LocalDevice
from edgekd.documents.job import Job, JobGraph
from edgekd.documents.run_log import Facts, RunLog
from edgekd.errors import DeviceError, MeasurementError
from edgekd.measure.interleave import compare_graphs
from edgekd.measure.looks import LOOKS, SPENT, look_until_decided
from edgekd.stats import signed_rank_interval

FACTS = {
    "machine": "aarch64",
    "system": "Linux",
    "cpu": None,
    "isa": [],
    "cores": 4,
    "memory_bytes": None,
    "governor": "performance",
    "versions": {},
}
A, B = JobGraph(name="a", path="a.onnx"), JobGraph(name="b", path="b.onnx")
BLOCK = 10


class NoisyDevice:
    """A device whose graphs take as long as it is told, on a machine with other programs. It runs in no time.

    Of a process both graphs share a factor (2 %), and each has the luck of its own memory layout (0.4 %). Of
    its 20 rounds a share `slow` runs at two thirds of the speed, graph by graph; of the samples a share
    `interrupted` takes up to 4 ms more; each jitters by 1 %.
    """

    name = "noisy"

    def __init__(self, latency_ns, *, seed=0, slow=0.0, interrupted=0.0, second=0.0):
        self.jobs: list[Job] = []
        self.now = 0.0
        self._latency_ns, self._seed, self._second = latency_ns, seed, second
        self._slow, self._interrupted = slow, interrupted

    def facts(self, runtime) -> Facts:
        raise AssertionError("the facts come with the logs")

    def run(self, job: Job, *, timeout_s: float) -> RunLog:
        self.jobs.append(job)
        self.now += self._second
        of_process = np.random.default_rng([self._seed, job.seed]).normal(0, 0.02)
        graphs = [self._graph(graph.name, job.seed, of_process) for graph in job.graphs]
        log = {"schema": 1, "mode": "latency", "runtime": "onnxruntime", "facts": FACTS, "graphs": graphs}
        return RunLog.parse(log, where="test")

    def _graph(self, name, process, of_process):
        rng = np.random.default_rng([self._seed, process, ord(name)])
        state = np.where(rng.random(20) < self._slow, 1.5, 1.0).repeat(BLOCK)
        factor = np.exp(of_process + rng.normal(0, 0.004) + rng.normal(0, 0.01, 20 * BLOCK)) * state
        waited = np.where(rng.random(20 * BLOCK) < self._interrupted, rng.uniform(0, 4e6, 20 * BLOCK), 0)
        taken = self._latency_ns[name] * factor + waited
        return graph_log(name, taken, np.repeat(np.arange(20), BLOCK))


class FixedDevice(NoisyDevice):
    """A device whose graphs take what a function of the name and of the process says: (samples, rounds)."""

    def __init__(self, samples):
        super().__init__({})
        self._samples = samples

    def _graph(self, name, process, of_process):
        return graph_log(name, *self._samples(name, process))


def graph_log(name, taken_ns, rounds):
    times = {"load_ns": 1, "first_ns": 1, "warmup_ns": 1, "warmup_converged": True}
    samples = [int(each) for each in taken_ns]
    return {"name": name, **times, "latency_ns": samples, "block_of_sample": [int(each) for each in rounds]}


def compare(device, reference=A, candidate=B, **settings):
    return compare_graphs(
        device, reference, candidate, runtime="onnxruntime", inputs=Path("x.npy"), **settings
    )


def draws(rng, ratio, spread, far):
    """Ratios of processes: normal logs, of which a share `far` spreads by 5 %."""
    return lambda: float(ratio * np.exp(rng.normal(0, 0.05 if rng.random() < far else spread)))


def counted(measure):
    """The same, and the list of what it returned."""
    taken = []

    def noted():
        taken.append(measure())
        return taken[-1]

    return noted, taken


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [
        (1.05, "slower"),
        (1.0201, "slower"),
        (1.0199, "no difference"),
        (1.0, "no difference"),
        (1 / 1.0199, "no difference"),
        (1 / 1.0201, "faster"),
        (0.5, "faster"),
    ],
)
def test_eight_like_processes_decide(ratio, outcome):
    measure, taken = counted(lambda: ratio)
    found = look_until_decided(measure, confidence=0.99, margin=0.02)
    assert (found.outcome, len(taken)) == (outcome, 8)
    assert (found.lower, found.ratio, found.upper) == pytest.approx((ratio,) * 3)


def test_the_looks_spend_no_more_than_there_is():
    assert sum(SPENT) == pytest.approx(1)
    assert len(SPENT) == len(LOOKS)


def test_what_cannot_be_told_is_undecided_after_the_last_look():
    ratios = iter(np.tile([0.9, 1.1, 1.0], 20))
    measure, taken = counted(lambda: float(next(ratios)))
    found = look_until_decided(measure, confidence=0.99, margin=0.02)
    assert (found.outcome, len(taken)) == ("undecided", 27)
    bounds = signed_rank_interval(np.log(taken), 1 - 0.2 * 0.01)
    assert (found.lower, found.upper) == pytest.approx(tuple(np.exp(bounds)))


@pytest.mark.parametrize(("confidence", "told"), [(0.99, 0.0078), (0.9, 0.023)])
def test_the_interval_holds_its_confidence_wherever_the_comparison_ends(confidence, told):
    """Ratios right at the margin, so that many looks are taken. Each bound misses in 1 - confidence at most.

    1500 comparisons; `told` is the tolerance, three standard errors.
    """
    rng = np.random.default_rng(0)
    truth = 1.02
    found = [
        look_until_decided(draws(rng, truth, 0.01, 0.1), confidence=confidence, margin=0.02)
        for _ in range(1500)
    ]
    assert np.mean([each.lower > truth for each in found]) <= 1 - confidence + told
    assert np.mean([each.upper < truth for each in found]) <= 1 - confidence + told
    assert np.mean([each.outcome == "undecided" for each in found]) > 0.5


@pytest.mark.parametrize(("spread", "far"), [(0.004, 0.0), (0.01, 0.1), (0.02, 0.0), (0.01, 0.2)])
def test_power_and_false_alarms_of_the_rule(spread, far):
    """What was recorded spreads by 0.3 to 0.6 %, of which a fiftieth lies 2 % off or more.

    500 comparisons each; 96.5 % found and no false alarm lie within the figures that are asked, 95 % and 1 %.
    """
    rng = np.random.default_rng(1)
    ends = {
        ratio: [
            look_until_decided(draws(rng, ratio, spread, far), confidence=0.99, margin=0.02).outcome
            for _ in range(500)
        ]
        for ratio in (1.0, 1.05)
    }
    assert ends[1.05].count("slower") >= 482
    assert ends[1.05].count("faster") == 0
    assert ends[1.0].count("slower") + ends[1.0].count("faster") == 0
    assert ends[1.0].count("no difference") >= 400


@pytest.mark.parametrize("confidence", [0.4, 0.995])
def test_confidence_that_eight_processes_do_not_carry(confidence):
    with pytest.raises(ValueError) as caught:
        look_until_decided(lambda: 1.0, confidence=confidence, margin=0.02)
    assert str(caught.value) == "a confidence from 0.5 to 0.99 is expected: 8 processes carry no more"


@pytest.mark.parametrize(
    "machine", [{}, {"interrupted": 0.6}, {"slow": 0.4}, {"slow": 0.3, "interrupted": 0.5}]
)
@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "no difference"), (1.05, "slower"), (0.95, "faster")])
def test_graphs_on_a_busy_machine(machine, factor, outcome):
    """Twenty comparisons on a made-up machine, quiet and busy: all are right, and soon."""
    ends = [
        compare(NoisyDevice({"a": 1.3e6, "b": factor * 1.3e6}, seed=seed, **machine)).comparison
        for seed in range(20)
    ]
    assert [end.outcome for end in ends] == [outcome] * 20
    assert sum(end.interval.lower <= factor <= end.interval.upper for end in ends) >= 19
    assert max(end.processes for end in ends) <= 12


SEEDS, FACTORS = st.integers(0, 1000), st.floats(0.5, 2.0)


@settings(deadline=None, max_examples=15)
@given(SEEDS, FACTORS)
def test_swapped_graphs_have_the_inverse_ratio(seed, factor):
    device = NoisyDevice({"a": 1e6, "b": factor * 1e6}, seed=seed, slow=0.2, interrupted=0.3)
    found, swapped = compare(device).comparison, compare(device, B, A).comparison
    assert swapped.ratio == pytest.approx(1 / found.ratio, rel=1e-9)
    assert swapped.interval.lower == pytest.approx(1 / found.interval.upper, rel=1e-9)
    assert swapped.interval.upper == pytest.approx(1 / found.interval.lower, rel=1e-9)
    inverse = {"slower": "faster", "faster": "slower"}
    assert swapped.outcome == inverse.get(found.outcome, found.outcome)


@settings(deadline=None, max_examples=15)
@given(SEEDS, FACTORS, st.integers(2, 50))
def test_a_slower_device_has_the_same_ratio(seed, factor, slowness):
    quick = NoisyDevice({"a": 1e6, "b": factor * 1e6}, seed=seed)
    slow = NoisyDevice({"a": slowness * 1e6, "b": slowness * factor * 1e6}, seed=seed)
    found, same = compare(quick).comparison, compare(slow).comparison
    assert same.ratio == pytest.approx(found.ratio, rel=1e-5)  # nanoseconds are whole
    assert (same.outcome, same.processes) == (found.outcome, found.processes)


def test_every_process_is_fresh_and_loads_in_the_other_order():
    device, told = NoisyDevice({"a": 1e6, "b": 1.1e6}), []
    compared = compare(device, threads=2, batch_size=3, on_progress=lambda *done: told.append(done))
    assert told == [(done, 27) for done in range(1, 9)]
    assert [job.seed for job in device.jobs] == list(range(8))
    orders = [[graph.name for graph in job.graphs] for job in device.jobs]
    assert orders == [["a", "b"], ["b", "a"]] * 4
    assert {(job.mode, job.threads, job.batch_size, job.inputs) for job in device.jobs} == {
        ("latency", 2, 3, "x.npy")
    }
    found = compared.comparison
    assert (found.reference, found.candidate, found.margin) == ("a", "b", 0.02)
    assert (found.processes, found.blocks, found.interval.confidence) == (8, 160, 0.98)
    assert len(compared.logs) == len(found.process_ratios) == 8
    assert (compared.facts.cores, compared.conditions) == (4, ())
    assert not any("two levels" in warning for warning in compared.warnings)  # of two graphs, that is


def test_the_ratio_of_a_process_is_of_the_lower_deciles_of_the_rounds_that_both_had():
    """Of 40 samples the fourth; what only one graph ran is faster, and does not count."""

    def samples(name, process):
        shared, alone = {"a": (1000, []), "b": (1150, [700] * 10)}[name]
        taken = [shared - 3, shared - 2, shared - 1, shared, *range(2000, 2036)]
        mixed = np.random.default_rng([process, ord(name)]).permutation(taken)
        return [*mixed, *alone], np.repeat(np.arange(5), 10)[: len(taken) + len(alone)]

    found = compare(FixedDevice(samples)).comparison
    assert found.process_ratios == pytest.approx([1.15] * 8)
    assert found.ratio == pytest.approx(1.15)
    assert found.blocks == 8 * 4


@pytest.mark.parametrize(
    ("second", "processes", "share"), [(6.5, 8, 0.4), (4.5, 11, 0.2), (4.0, 12, 0.2), (2.0, 25, 0.2)]
)
def test_no_process_is_begun_that_would_end_too_late(second, processes, share):
    """A ratio at the margin, which cannot be decided: the time ends it, with an early look where it must."""
    device = NoisyDevice({"a": 1e6, "b": 1.02e6}, second=second)
    found = compare(device, most_s=50, clock=lambda: device.now).comparison
    assert (found.outcome, found.processes) == ("undecided", processes)
    assert found.seconds == pytest.approx(processes * second)
    bounds = signed_rank_interval(np.log(found.process_ratios), 1 - share * 0.01)
    assert (found.interval.lower, found.interval.upper) == pytest.approx(tuple(np.exp(bounds)))


def test_a_clock_of_coarse_steps():
    device = FixedDevice(lambda name, process: (np.zeros(20) if name == "b" else np.ones(20), [0] * 20))
    with pytest.raises(MeasurementError) as caught:
        compare(device)
    assert str(caught.value) == "b: takes less time than the device's clock can tell\n  try: a larger batch"


def test_a_log_of_another_job():
    class Liar(NoisyDevice):
        def run(self, job, *, timeout_s):
            return super().run(job.model_copy(update={"graphs": job.graphs[:1]}), timeout_s=timeout_s)

    with pytest.raises(DeviceError) as caught:
        compare(Liar({"a": 1e6, "b": 1e6}))
    assert str(caught.value) == (
        "the run log is not of this job: latency of a, expected latency of a, b\n"
        "  try: the kit on the device is not the one of this edgekd: deliver it again"
    )


def test_the_real_kit_finds_twice_the_work(tmp_path):
    """Four products of 256x256 matrices against eight, on whatever runs these tests."""
    weight = ", ".join(["0.01"] * 256 * 256)
    for name, count in {"a": 4, "b": 8}.items():
        nodes = " ".join(f"x{index + 1} = MatMul(x{index}, W)" for index in range(count))
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[N,64,256] x0) => (float[N,64,256] x{count})
            <float[256,256] W = {{{weight}}}> {{ {nodes} }}"""
        onnx.save(parser.parse_model(text), tmp_path / f"{name}.onnx")
    np.save(tmp_path / "x.npy", np.ones((2, 64, 256), np.float32))
    graphs = [JobGraph(name=name, path=str(tmp_path / f"{name}.onnx")) for name in "ab"]
    compared = compare_graphs(LocalDevice(), *graphs, runtime="onnxruntime", inputs=tmp_path / "x.npy")
    found = compared.comparison
    assert found.outcome == "slower"
    assert 1.3 < found.interval.lower < found.ratio < found.interval.upper < 3
    assert found.processes in LOOKS
    assert len(compared.logs) == found.processes
