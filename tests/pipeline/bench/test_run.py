"""Plans that are done: every row, errors that spare the rest, addresses at the same time."""

from __future__ import annotations

import threading

import pytest

from edgekd.errors import DeviceError, MeasurementError, UsageError
from edgekd.pipeline.bench.plan import Place, Plan, read_graphs
from edgekd.pipeline.bench.run import bench, compare
from tests.pipeline.bench.fakes import MEASURING, FakeDevice, Listener, write_graph


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def plan(tmp_path):
    paths = [write_graph(tmp_path / name, seed=seed) for seed, name in enumerate(("a.onnx", "slow.onnx"))]
    return Plan(read_graphs(paths, None, tmp_path), measuring=MEASURING)


def changed(plan, **fields):
    return Plan(**{**vars(plan), **fields})


def test_every_setting_is_a_row_with_its_samples(plan, tmp_path, devices, listener):
    found = bench(changed(plan, threads=(1, 2)), tmp_path, listener)
    rows = found.document.rows
    assert [(row.setting.graph, row.setting.threads) for row in rows] == [
        ("a.onnx", 1),
        ("a.onnx", 2),
        ("slow.onnx", 1),
        ("slow.onnx", 2),
    ]
    for row, taken_ms in zip(rows, (1, 1, 1.5, 1.5), strict=True):
        (subject,) = row.measurement.subjects
        assert (row.error, row.exit_code, subject.name) == (None, 0, row.setting.graph)
        assert (subject.latency.samples, subject.latency.processes) == (600, 3)
        assert subject.latency.threads == row.setting.threads
        assert subject.latency.p50.value_ms == pytest.approx(taken_ms, rel=0.01)
        assert subject.latency.load_ms == 5
        assert subject.latency.cold_start_ms == 300
        assert subject.memory.graph_rss_bytes == 4 * 2**20
        assert subject.energy.joules is None
        assert subject.energy.reason == "no energy counter"
    assert [len(courses) for courses in found.courses] == [1, 1, 1, 1]
    assert len(found.courses[0][0].taken_ms) == 600
    assert found.document.graphs == {name: one.sha256 for name, one in plan.graphs.items()}
    assert devices["local"].closed


def test_the_listener_hears_each_setting_and_each_of_its_jobs(plan, tmp_path, devices, listener):
    bench(plan, tmp_path, listener)
    assert listener.heard == [
        ("event", "opened local"),
        ("started", "a.onnx", "local", 1, 6),
        ("finished", "a.onnx", "local", 1, None),
        ("started", "slow.onnx", "local", 1, 6),
        ("finished", "slow.onnx", "local", 1, None),
    ]
    assert listener.jobs == 12 == len(devices["local"].jobs)


def test_long_phases_are_measured_when_asked_for(plan, tmp_path, devices, listener):
    found = bench(changed(plan, sustained_s=30, rate_hz=20, rate_s=5), tmp_path, listener)
    (subject,) = found.document.rows[0].measurement.subjects
    assert (subject.sustained.duration_s, subject.sustained.inferences, subject.sustained.samples) == (
        30,
        400,
        200,
    )
    assert (subject.paced.rate_hz, subject.paced.duration_s, subject.paced.late) == (20, 5, 3)
    jobs = [job for job in devices["local"].jobs if job.mode in ("sustained", "paced")][:2]
    assert [(job.mode, job.duration_s, job.rate_hz) for job in jobs] == [
        ("paced", 5, 20),
        ("sustained", 30, 30),
    ]
    assert [course.phase for course in found.courses[0]] == ["", "paced", "sustained"]
    assert listener.heard[1] == ("started", "a.onnx", "local", 1, 8)
    assert listener.jobs == 16


def test_an_error_of_one_setting_spares_the_others(plan, tmp_path, devices, listener):
    errors = {"a.onnx": MeasurementError("it fails"), "slow.onnx": None}
    devices["local"].fails = lambda job: errors[job.graphs[0].name]
    found = bench(plan, tmp_path, listener)
    first, second = found.document.rows
    assert (first.error, first.exit_code, first.measurement) == ("it fails", 4, None)
    assert second.measurement is not None
    assert [len(courses) for courses in found.courses] == [0, 1]
    assert ("finished", "a.onnx", "local", 1, "it fails") in listener.heard


def test_a_device_that_is_not_there_spares_the_others(plan, tmp_path, devices, listener):
    devices["ssh://gone"] = FakeDevice("ssh://gone")
    devices["ssh://gone"].fails = lambda job: DeviceError("there is no such host", where="ssh://gone")
    places = (Place("ssh://gone"), Place("local"))
    found = bench(changed(plan, places=places), tmp_path, listener)
    assert [(row.setting.device, row.error, row.exit_code) for row in found.document.rows] == [
        ("ssh://gone", "ssh://gone: there is no such host", 3),
        ("ssh://gone", "ssh://gone: there is no such host", 3),
        ("local", None, 0),
        ("local", None, 0),
    ]


def test_the_wrong_device_is_refused_before_anything_runs(plan, tmp_path, devices, listener):
    found = bench(changed(plan, places=(Place("local", "x86-64-avx2"),)), tmp_path, listener)
    assert found.document.rows[0].exit_code == 3
    wrong = "local: it is not the device x86-64-avx2: "
    assert found.document.rows[0].error.startswith(wrong)
    assert not devices["local"].jobs
    taken = changed(plan, places=(Place("local", "x86-64-avx2"),), accept_mismatch=True)
    (row, _) = bench(taken, tmp_path, listener).document.rows
    assert row.measurement.profile == "x86-64-avx2"
    assert row.measurement.mismatches


def test_addresses_are_measured_at_the_same_time_and_one_address_in_turn(plan, tmp_path, devices, listener):
    """Each waits in its first job until the other is in its own: one after the other would never end."""
    together = threading.Barrier(2, timeout=20)
    met = {}
    for address in ("ssh://a", "ssh://b"):
        devices[address] = FakeDevice(address)

        def meet(job, address=address):
            if address not in met:
                met[address] = threading.current_thread()
                together.wait()

        devices[address].fails = meet
    found = bench(changed(plan, places=(Place("ssh://a"), Place("ssh://b"))), tmp_path, listener)
    order = [(row.setting.device, row.setting.graph) for row in found.document.rows]
    graphs = ["a.onnx", "slow.onnx"]
    assert order == [(address, graph) for address in ("ssh://a", "ssh://b") for graph in graphs]
    assert all(row.error is None for row in found.document.rows)
    assert len(set(met.values())) == 2
    assert devices["ssh://a"].closed
    assert devices["ssh://b"].closed


def test_two_profiles_of_one_address_never_run_at_once(plan, tmp_path, devices, listener):
    places = (Place("local", "local"), Place("local", None))
    opened = [one for one in listener.heard if one[0] == "event"]
    bench(changed(plan, places=places), tmp_path, listener)
    opened = [one for one in listener.heard if one[0] == "event"]
    assert opened == [("event", "opened local")]


def test_what_is_no_error_of_edgekd_ends_the_bench_and_closes_every_device(plan, tmp_path, devices, listener):
    devices["ssh://a"] = FakeDevice("ssh://a")
    devices["ssh://a"].fails = lambda job: ZeroDivisionError("a fault of ours")
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        bench(changed(plan, places=(Place("local"), Place("ssh://a"))), tmp_path, listener)
    assert devices["local"].closed
    assert devices["ssh://a"].closed


def test_an_interrupt_closes_the_device(plan, tmp_path, devices, listener):
    devices["local"].fails = lambda job: KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench(plan, tmp_path, listener)
    assert devices["local"].closed


def test_a_batch_that_one_graph_does_not_take_is_refused_before_anything_runs(tmp_path, devices, listener):
    paths = [write_graph(tmp_path / "a.onnx"), write_graph(tmp_path / "b.onnx", ("x", 1, [1, 4]))]
    plan = Plan(read_graphs(paths, None, tmp_path), batches=(4,))
    for measure in (bench, compare):
        with pytest.raises(UsageError, match=r"b.onnx: the graph's batch is 1, not 4"):
            measure(plan, tmp_path, listener)
    assert not devices["local"].jobs


def test_graphs_are_compared_with_the_first_one(plan, tmp_path, devices, listener):
    found = compare(changed(plan, threads=(1, 2)), tmp_path, listener)
    assert not found.document.rows
    pairs = found.document.comparisons
    assert [(pair.setting.graph, pair.reference, pair.setting.threads) for pair in pairs] == [
        ("slow.onnx", "a.onnx", 1),
        ("slow.onnx", "a.onnx", 2),
    ]
    for pair in pairs:
        assert pair.comparison.outcome == "slower"
        assert pair.comparison.ratio == pytest.approx(1.5, rel=0.01)
        assert pair.facts.cpu == "Cortex-A76"
    assert {len(job.graphs) for job in devices["local"].jobs} == {2}


def test_a_comparison_that_fails_is_told(plan, tmp_path, devices, listener):
    devices["local"].fails = lambda job: MeasurementError("it fails")
    (pair,) = compare(plan, tmp_path, listener).document.comparisons
    assert (pair.error, pair.exit_code, pair.comparison) == ("it fails", 4, None)


def test_what_cannot_be_compared(plan, tmp_path, devices, listener):
    def refusal(plan):
        with pytest.raises(UsageError) as caught:
            compare(plan, tmp_path, listener)
        return str(caught.value)

    one = changed(plan, graphs={"a.onnx": plan.graphs["a.onnx"]})
    hint = "edgekd bench A.onnx B.onnx --interleave"
    assert refusal(one) == f"--interleave compares two graphs or more\n  try: {hint}"
    long = "--interleave compares short turns: --sustained and --rate are of one graph"
    hint = "measure those in a call without --interleave"
    assert refusal(changed(plan, sustained_s=5)) == f"{long}\n  try: {hint}"
    assert refusal(changed(plan, rate_hz=5)) == f"{long}\n  try: {hint}"
    other = write_graph(tmp_path / "other.onnx", ("x", 1, ["N", 5]))
    graphs = {**plan.graphs, **read_graphs([other], None, tmp_path)}
    takes = "other.onnx takes x: float32 (?, 5); a.onnx takes x: float32 (?, 4)"
    hint = "graphs that are compared take the same inputs"
    assert refusal(changed(plan, graphs=graphs)) == f"{takes}\n  try: {hint}"


def test_an_interrupted_bench_goes_on_from_its_logs(plan, tmp_path, devices, listener):
    """A bench is cut after seven jobs; the next one does the five that are left and finds the same."""
    device, out = devices["local"], tmp_path / "out"
    device.fails = lambda job: KeyboardInterrupt() if len(device.jobs) == 7 else None
    with pytest.raises(KeyboardInterrupt):
        bench(plan, tmp_path, listener, out=out)
    again = devices["local"] = FakeDevice()
    found = bench(plan, tmp_path, listener, out=out)
    assert len(again.jobs) == 12 - 7
    first, second = (row.measurement for row in found.document.rows)
    assert "6 of the jobs were done by an earlier call and read from its folder" in first.warnings
    assert "1 of the jobs were done by an earlier call and read from its folder" in second.warnings
    devices["local"] = FakeDevice()
    whole = bench(plan, tmp_path, listener).document
    assert [row.measurement.subjects for row in whole.rows] == [
        row.measurement.subjects for row in found.document.rows
    ]
    for row in found.document.rows:
        assert len(row.logs) == 6
        assert all((out / name).is_file() for name in row.logs)
