"""One setting, measured: accuracy where there are labels, the audit, and what must be known of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekd.pipeline.bench.plan import Place, Plan, read_graphs
from edgekd.pipeline.bench.run import bench
from tests.pipeline.bench.fakes import MEASURING, FakeDevice, Listener, write_graph

NOTE = "the inputs are random (standard normal): latency is measured, accuracy is not"


@pytest.fixture
def plan(tmp_path):
    """A graph with eight examples, as a bundle has them; six of the labels are the fake device's answers."""
    path = write_graph(tmp_path / "g.onnx")
    x_NX = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2, 3]]
    np.save(tmp_path / "x.npy", x_NX)
    np.save(tmp_path / "labels.npy", np.array([0, 1, 2, 3, 0, 1, 0, 0]))
    (name, graph), *_ = read_graphs([path], tmp_path / "x.npy", tmp_path).items()
    return Plan({name: dataclasses.replace(graph, labels=tmp_path / "labels.npy")}, measuring=MEASURING)


def measured(plan, folder):
    (row,) = bench(plan, folder, Listener()).document.rows
    return row


def test_labels_give_an_accuracy(plan, tmp_path, devices):
    listener = Listener()
    (row,) = bench(plan, tmp_path, listener).document.rows
    (subject,) = row.measurement.subjects
    assert (subject.accuracy.correct, subject.accuracy.count, subject.accuracy.top1) == (6, 8, 0.75)
    assert subject.predictions_sha256 is not None
    assert [job.mode for job in devices["local"].jobs].count("outputs") == 1
    assert listener.heard[1][-1] == listener.jobs == 7  # the bar ends where it said
    assert NOTE not in row.measurement.warnings


def test_made_up_inputs_are_told_and_have_no_accuracy(tmp_path, devices):
    row = measured(
        Plan(read_graphs([write_graph(tmp_path / "g.onnx")], None, tmp_path), measuring=MEASURING), tmp_path
    )
    (subject,) = row.measurement.subjects
    assert (subject.accuracy, subject.predictions_sha256) == (None, None)
    assert NOTE in row.measurement.warnings


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros(7, int), "inputs and labels differ in number"),
        (np.zeros(8), "holds no row of integer labels"),
        (np.zeros((8, 1), int), "holds no row of integer labels"),
    ],
)
def test_labels_that_are_none(plan, tmp_path, devices, labels, said):
    np.save(tmp_path / "labels.npy", labels)
    row = measured(plan, tmp_path)
    assert (row.error, row.exit_code) == (f"{tmp_path / 'labels.npy'}: {said}", 2)


def test_a_damaged_file_of_labels(plan, tmp_path, devices):
    (tmp_path / "labels.npy").write_bytes(b"hello")
    row = measured(plan, tmp_path)
    assert row.error.startswith(f"{tmp_path / 'labels.npy'}: cannot be read: ")
    assert row.exit_code == 2


def test_a_board_of_other_kernels_is_not_audited_here(plan, tmp_path, devices):
    devices["ssh://pi"] = FakeDevice("ssh://pi")
    elsewhere = dataclasses.replace(plan, places=(Place("ssh://pi"),))
    found = measured(elsewhere, tmp_path).measurement
    assert found.subjects[0].audit is None
    line = "no audit: this host's onnxruntime or processor is not the device's; "
    assert line + "edgekd audit on the device makes one" in found.warnings


def test_a_short_sustained_phase_is_told(plan, tmp_path, devices):
    found = measured(dataclasses.replace(plan, sustained_s=30.0), tmp_path).measurement
    assert "sustained for 30 s: a device without a fan may take 600 s to get warm" in found.warnings


def test_the_audit_is_of_onnxruntime_alone(plan, tmp_path, devices):
    (subject,) = measured(plan, tmp_path).measurement.subjects
    assert (subject.audit.int8_ops, subject.audit.weighted_ops) == (0, 0)
    other = Plan(plan.graphs, measuring=MEASURING, runtimes=("reference",))
    (subject,) = measured(other, tmp_path).measurement.subjects
    assert subject.audit is None


def test_options_of_the_call_win_over_those_of_the_runtime(plan, tmp_path, devices):
    measured(Plan(plan.graphs, measuring=MEASURING, session_options={"mine": "1"}), tmp_path)
    assert all(job.session_options["mine"] == "1" for job in devices["local"].jobs if job.mode == "latency")
