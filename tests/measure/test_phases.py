"""Sustained and paced phases, memory and energy: from logs to figures."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.documents.job import Job, JobGraph
from edgekd.documents.run_log import RunLog
from edgekd.errors import DeviceError, MeasurementError
from edgekd.measure.phases import SPARE_S, energy_of, measure_paced, measure_sustained, memory_of

FACTS = {"machine": "x", "system": "y", "cpu": None, "isa": [], "cores": 4, "memory_bytes": None}
JOB = Job(mode="latency", runtime="null", graphs=(JobGraph(name="g", path="g.onnx"),), max_warmup_s=7)


def log(mode="sustained", at_s=(), taken_ms=(), **more) -> RunLog:
    graph = {
        "name": "g",
        "load_ns": 1,
        "first_ns": 1,
        "inferences": len(at_s),
        "at_ns": [round(at * 1e9) for at in at_s],
        "latency_ns": [round(taken * 1e6) for taken in taken_ms],
        **more.pop("graph", {}),
    }
    facts = {**FACTS, "governor": None, "versions": {}}
    data = {"schema": 1, "mode": mode, "runtime": "null", "facts": facts, "graphs": [graph], **more}
    return RunLog.parse(data, where="test")


class Answers:
    """A device that answers with one log."""

    name = "answers"

    def __init__(self, log):
        self.log, self.asked = log, []

    def run(self, job, *, timeout_s):
        self.asked.append((job.mode, timeout_s))
        return self.log


def sustained(duration_s, found):
    return measure_sustained(Answers(found), JOB.model_copy(update={"duration_s": duration_s}))[0]


def test_the_first_and_the_last_minute_are_compared():
    at_s = np.arange(0, 600, 0.5)
    taken_ms = np.where(at_s < 60, 10.0, np.where(at_s >= 540, 13.0, 50.0))
    found = sustained(600, log(at_s=at_s, taken_ms=taken_ms, graph={"inferences": 2400}))
    assert (found.first_ms, found.last_ms, found.ratio) == (10.0, 13.0, pytest.approx(1.3))
    assert (found.duration_s, found.inferences, found.samples) == (600, 2400, 1200)
    assert found.p99_ms == 50.0


def test_thirds_of_what_is_shorter_than_three_minutes():
    at_s = np.arange(0, 90, 1.0)
    taken_ms = np.where(at_s < 30, 4.0, np.where(at_s >= 60, 5.0, 9.0))
    found = sustained(90, log(at_s=at_s, taken_ms=taken_ms))
    assert (found.first_ms, found.last_ms) == (4.0, 5.0)
    assert found.p99_ms is None  # of 90 samples


def test_freak_samples_move_no_median():
    at_s = np.arange(0, 90, 1.0)
    taken_ms = np.where(at_s % 3 == 0, 1000.0, 4.0)
    assert sustained(90, log(at_s=at_s, taken_ms=taken_ms)).ratio == 1.0


def test_a_graph_that_is_too_slow_has_no_course():
    with pytest.raises(MeasurementError) as caught:
        sustained(6, log(at_s=[0, 3, 5], taken_ms=[2500, 2500, 2500]))
    message = "g: 3 inferences in 6 s tell nothing of its course"
    assert str(caught.value) == f"{message}\n  try: measure it for longer"


@pytest.mark.parametrize("measure", [measure_sustained, lambda *given: measure_paced(*given, 0.95)])
def test_a_log_of_another_job_is_refused(measure):
    mode = "sustained" if measure is measure_sustained else "paced"
    for wrong in (log("latency", [0], [1]), log(mode, [0, 1], [1])):
        with pytest.raises(DeviceError) as caught:
            measure(Answers(wrong), JOB)
        message = f"the run log is not of this job: {wrong.mode}, expected {mode} of g"
        assert str(caught.value) == f"answers: {message}"


def test_the_device_has_time_for_the_phase_the_warm_up_and_the_rest():
    device = Answers(log(at_s=np.arange(90), taken_ms=np.ones(90)))
    measure_sustained(device, JOB.model_copy(update={"duration_s": 90}))
    assert device.asked == [("sustained", 90 + 7 + SPARE_S)]


def test_percentiles_at_a_fixed_rate():
    taken_ms = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    job = JOB.model_copy(update={"duration_s": 100, "rate_hz": 10})
    found, raw = measure_paced(
        Answers(log("paced", np.arange(1000) / 10, taken_ms, graph={"late": 7})), job, 0.95
    )
    assert (found.rate_hz, found.duration_s, found.inferences, found.late) == (10, 100, 1000, 7)
    assert (found.p50.value_ms, found.p90.value_ms, found.p99.value_ms) == (500, 900, 990)
    assert found.p50.lower_ms < 500 < found.p50.upper_ms
    assert raw.mode == "paced"


def test_too_few_samples_at_a_fixed_rate():
    with pytest.raises(MeasurementError) as caught:
        measure_paced(Answers(log("paced", [0, 1], [1, 1])), JOB, 0.95)
    hint = "measure it for longer, or at a higher rate"
    assert str(caught.value) == f"g: 2 samples cannot carry a median\n  try: {hint}"


def test_memory_is_the_most_of_all_processes():
    def cold(**memory):
        return log("cold", memory=memory)

    found = memory_of(
        [
            cold(peak_rss_bytes=100, start_rss_bytes=60),
            cold(peak_rss_bytes=90, start_rss_bytes=40, device_bytes=7),
            log("cold"),
        ]
    )
    assert (found.peak_rss_bytes, found.graph_rss_bytes, found.device_bytes) == (100, 50, 7)
    unread = memory_of([cold(peak_rss_bytes=None)])
    assert (unread.peak_rss_bytes, unread.graph_rss_bytes) == (None, None)
    assert memory_of([cold(peak_rss_bytes=10, start_rss_bytes=20)]).graph_rss_bytes == 0
    assert memory_of([log("cold")]) is None


def test_energy_that_cannot_be_read_has_a_reason_and_no_figure():
    found = energy_of([log(), log(energy={"joules": None, "reason": "no counter"})])
    assert (found.joules, found.reason) == (None, "no counter")
    assert energy_of([log()]) is None


def test_energy_is_of_the_longest_phase():
    def phase(mode, joules, seconds, inferences):
        at_s = np.arange(inferences) * seconds / inferences
        energy = {"joules": joules, "seconds": seconds, "source": "NVML, the GPU alone"}
        return log(mode, at_s, np.ones(inferences), energy=energy)

    found = energy_of([phase("sustained", 50.0, 10.0, 100), phase("paced", 30.0, 5.0, 100)])
    assert (found.mode, found.source) == ("sustained", "NVML, the GPU alone")
    assert found.joules == pytest.approx(0.5)
