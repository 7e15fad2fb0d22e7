"""A device whose finished jobs are found again: only the same job on the same machine, only whole logs."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.documents.job import Job, JobGraph
from edgekd.errors import DeviceError
from edgekd.pipeline.bench.kept import KeptDevice
from tests.pipeline.bench.fakes import FakeDevice, write_graph


@pytest.fixture
def job(tmp_path):
    graph = write_graph(tmp_path / "g.onnx")
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    return Job(
        mode="latency",
        runtime="onnxruntime",
        graphs=(JobGraph(name="g", path=str(graph)),),
        inputs=str(tmp_path / "x.npy"),
    )


def run(folder, job, device=None, times=1):
    """The device that did the job, and what kept it; each call as a process of its own would."""
    device, done = device or FakeDevice(), []
    kept = KeptDevice(device, folder=folder, on_job=lambda: done.append(1))
    for _ in range(times):
        kept.run(job, timeout_s=1)
    assert len(done) == times
    return device, kept


def test_equal_jobs_are_told_apart_by_their_number(job, tmp_path):
    device, kept = run(tmp_path / "out", job, times=3)
    assert (len(device.jobs), kept.reused, len(set(kept.files))) == (3, 0, 3)
    assert sorted(kept.files) == sorted(f"logs/{path.name}" for path in (tmp_path / "out/logs").iterdir())
    device, kept = run(tmp_path / "out", job, times=4)
    assert (len(device.jobs), kept.reused) == (1, 3)


def test_another_job_is_done(job, tmp_path):
    run(tmp_path / "out", job)
    others = [
        job.model_copy(update={"threads": 2}),
        job.model_copy(update={"seed": 1}),
        job.model_copy(update={"mode": "cold"}),
        job.model_copy(update={"session_options": {"a": "b"}}),
        job.model_copy(update={"graphs": (JobGraph(name="h", path=job.graphs[0].path),)}),
    ]
    for other in others:
        device, _ = run(tmp_path / "out", other)
        assert len(device.jobs) == 1
    device, _ = run(tmp_path / "out", job.model_copy(update={"cache": "/elsewhere"}))
    assert not device.jobs


def test_another_file_under_the_same_name_is_another_job(job, tmp_path):
    run(tmp_path / "out", job)
    write_graph(tmp_path / "g.onnx", seed=1)
    assert len(run(tmp_path / "out", job)[0].jobs) == 1
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    assert len(run(tmp_path / "out", job)[0].jobs) == 1


def test_another_machine_or_version_is_another_job(job, tmp_path):
    run(tmp_path / "out", job)
    assert len(run(tmp_path / "out", job, FakeDevice("ssh://board"))[0].jobs) == 1
    newer = FakeDevice()
    newer.versions = {"python": "3.11.7", "onnxruntime": "1.32.0"}
    assert len(run(tmp_path / "out", job, newer)[0].jobs) == 1
    assert not run(tmp_path / "out", job)[0].jobs


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"{}"])
def test_a_damaged_log_is_measured_again(job, tmp_path, damage):
    run(tmp_path / "out", job)
    (path,) = (tmp_path / "out" / "logs").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    device, kept = run(tmp_path / "out", job)
    assert (len(device.jobs), kept.reused) == (1, 0)
    assert path.read_bytes() == whole  # the fake device answers alike


def test_only_what_was_timed_has_a_course_and_outputs_are_not_kept(job, tmp_path):
    kept = KeptDevice(FakeDevice(), folder=tmp_path / "out", on_job=lambda: None)
    for mode in ("latency", "cold", "sustained", "paced", "outputs"):
        kept.run(job.model_copy(update={"mode": mode}), timeout_s=1)
    assert [log.mode for log in kept.logs] == ["latency", "sustained", "paced"]
    assert [name.split("/")[1].split("-")[0] for name in kept.files] == [
        "latency",
        "cold",
        "sustained",
        "paced",
    ]


def test_without_a_folder_nothing_is_kept_and_nothing_hashed(job, tmp_path):
    (tmp_path / "g.onnx").unlink()
    device, kept = run(None, job, times=2)
    assert (len(device.jobs), device.facts_asked, kept.files, len(kept.logs)) == (2, 0, [], 2)


def test_a_failed_job_leaves_no_log(job, tmp_path):
    device = FakeDevice()
    device.fails = lambda job: DeviceError("gone")
    with pytest.raises(DeviceError):
        run(tmp_path / "out", job, device)
    assert not (tmp_path / "out" / "logs").exists()


def test_the_device_is_asked_once_what_it_is_and_stays_open(job, tmp_path):
    device = FakeDevice()
    kept = KeptDevice(device, folder=tmp_path / "out", on_job=lambda: None)
    kept.run(job, timeout_s=1)
    assert kept.facts("onnxruntime") == kept.facts("onnxruntime")
    kept.close()
    assert (device.facts_asked, device.closed, kept.name) == (1, False, "local")
