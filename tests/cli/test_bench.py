"""`edgekd bench`: what it prints and writes, its exit codes, and what an interrupt leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgekd.cli import bench as command
from edgekd.documents.bench import Bench
from edgekd.errors import DeviceError, StorageError
from tests.devices.sshd import WHY_NOT, Sshd, is_installed
from tests.pipeline.bench.conftest import devices as devices
from tests.pipeline.bench.fakes import FakeDevice, write_graph

QUICK = ("--processes", "2", "--min-time", "0.01")


@pytest.fixture
def graph(tmp_path):
    return str(write_graph(tmp_path / "a.onnx"))


@pytest.fixture
def two(tmp_path, graph):
    return graph, str(write_graph(tmp_path / "slow.onnx", seed=1))


def words(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_one_graph(edgekd, graph, devices):
    result = edgekd("bench", graph)
    assert result.exit_code == 0
    lines = words(result.stdout)
    assert lines[0] == "graph quiet p50 p90 p99"
    assert lines[1].startswith("a.onnx ")
    wanted = {
        "device local",
        "threads 1",
        "batch 1",
        "machine Cortex-A76",
        "samples 1000 in 5 fresh processes",
    }
    assert wanted <= set(lines)
    note = "warning: the inputs are random (standard normal): latency is measured, accuracy is not"
    assert words(result.stderr)[1] == "a.onnx, onnxruntime on local, 1 thread: measuring"
    assert words(result.stderr)[2].startswith("a.onnx, onnxruntime on local, 1 thread: done in ")
    assert note in words(result.stderr)


def test_the_table_fits_eighty_columns(edgekd, two, devices):
    result = edgekd("bench", *two, "--threads", "1,2", "--rate", "30", "--sustained", "30")
    assert result.exit_code == 0
    assert words(result.stdout)[0] == "graph threads quiet p50 p90 p99"
    assert max(map(len, result.stdout.splitlines()[:5])) <= 80


def test_json_is_all_of_the_output(edgekd, two, devices):
    result = edgekd("bench", *two, "--json", "--threads", "1,2")
    document = Bench.parse(json.loads(result.stdout), where="stdout")
    assert [(row.setting.graph, row.setting.threads) for row in document.rows] == [
        ("a.onnx", 1),
        ("a.onnx", 2),
        ("slow.onnx", 1),
        ("slow.onnx", 2),
    ]
    assert (result.exit_code, result.stderr) == (0, "")


def test_options_reach_the_jobs(edgekd, graph, devices, tmp_path):
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.zeros((8, 4), np.float32))
    options = ("--processes", "3", "--min-time", "0.7", "--threads", "2", "--batch", "4", "--option", "a=b=c")
    result = edgekd("bench", graph, "--inputs", str(inputs), "--runtime", "reference", *options)
    assert result.exit_code == 0
    jobs = [job for job in devices["local"].jobs if job.mode == "latency"]
    assert len(jobs) == 3
    for job in jobs:
        assert (job.runtime, job.threads, job.batch_size, job.min_time_s) == ("reference", 2, 4, 0.7)
        assert (job.inputs, job.session_options["a"]) == (str(inputs), "b=c")


def test_a_failing_device_has_its_exit_code_and_spares_the_others(edgekd, graph, devices):
    devices["ssh://gone"] = FakeDevice("ssh://gone")
    devices["ssh://gone"].fails = lambda job: DeviceError("there is no such host", where="ssh://gone")
    result = edgekd("bench", graph, "--device", "ssh://gone", "--device", "local")
    assert result.exit_code == 3
    rows = words(result.stdout)
    assert rows[0] == "graph device quiet p50 p90 p99"
    assert rows[1] == "a.onnx ssh://gone - - - -"
    assert rows[2].startswith("a.onnx local ")
    title = "a.onnx, onnxruntime on ssh://gone, 1 thread"
    assert f"error: {title}: ssh://gone: there is no such host" in words(result.stderr)


def test_an_error_of_the_only_setting_is_said_without_its_title(edgekd, graph, devices):
    devices["local"].fails = lambda job: DeviceError("it is on fire", where="local", hint="water")
    result = edgekd("bench", graph)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.endswith("error: local: it is on fire\n  try: water\n")


def test_interleaved_graphs(edgekd, two, devices):
    result = edgekd("bench", *two, "--interleave")
    assert result.exit_code == 0
    lines = words(result.stdout)
    assert lines[0] == "graph to ratio interval found"
    assert lines[1].startswith("slow.onnx a.onnx 1.5")
    assert lines[1].endswith(" slower")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "--threads takes numbers from 1 to 1024, such as 1,2,4; found '0'"),
        (["--threads", "1,x"], "--threads takes numbers from 1 to 1024, such as 1,2,4; found '1,x'"),
        (["--threads", "²"], "--threads takes numbers from 1 to 1024, such as 1,2,4; found '²'"),
        (["--batch", ""], "--batch takes numbers from 1 to 1024, such as 1,2,4; found ''"),
        (["--option", "x"], "--option takes KEY=VALUE, found 'x'"),
        (["--option", "=x"], "--option takes KEY=VALUE, found '=x'"),
        (["--device", "board"], "'board' is no address of a device"),
        (["--runtime", "onnxruntme"], "there is no runtime 'onnxruntme'; did you mean 'onnxruntime'?"),
        (["--interleave"], "--interleave compares two graphs or more"),
        (["--rate", "2", "--rate-seconds", "5"], "--rate 2 for 5 s is fewer than 20 inferences"),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(edgekd, graph, devices, options, said):
    result = edgekd("bench", graph, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[0] == f"error: {said}"
    assert not devices["local"].jobs


def test_a_file_that_is_no_graph(edgekd, tmp_path, devices):
    path = tmp_path / "x.onnx"
    path.write_text("hello")
    result = edgekd("bench", str(path))
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {path}: is not an ONNX graph: it is damaged or of another kind\n",
    )


def test_a_folder_is_written_and_then_read(edgekd, graph, devices, tmp_path):
    out = tmp_path / "out"
    first = edgekd("bench", graph, "--out", str(out))
    done = len(devices["local"].jobs)
    again = edgekd("bench", graph, "--out", str(out))
    assert again.stdout == first.stdout  # its sparklines too, from the kept logs
    assert words(again.stderr)[0] == f"{out}: done before; --fresh measures anew"
    assert len(devices["local"].jobs) == done
    assert edgekd("bench", graph, "--out", str(out), "--threads", "2").exit_code == 2
    fresh = edgekd("bench", graph, "--out", str(out), "--fresh")
    assert (fresh.exit_code, len(devices["local"].jobs)) == (0, 2 * done)


def test_what_cannot_be_kept_is_shown_all_the_same(edgekd, graph, devices, tmp_path, monkeypatch):
    def full(out, found):
        raise StorageError("cannot write: No space left on device", where=out)

    monkeypatch.setattr(command, "write_folder", full)
    result = edgekd("bench", graph, "--out", str(tmp_path / "out"))
    assert words(result.stdout)[0] == "graph quiet p50 p90 p99"
    assert result.exit_code == 4
    assert words(result.stderr)[-1] == f"error: {tmp_path / 'out'}: cannot write: No space left on device"


def test_a_run_is_measured_as_its_recipe_says(edgekd, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    result = edgekd("bench", str(tmp_path), "--threads", "2")
    message = "error: --threads is for a graph or a bundle\n  try: a run is measured as its recipe says\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_two_real_graphs_one_of_several_inputs(edgekd, graph, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = write_graph(tmp_path / "b ü$.onnx", ("x", 1, [2, 4]), ("more", 7, []))
    result = edgekd("bench", graph, str(other), *QUICK, "--rate", "200", "--rate-seconds", "1", "--json")
    assert result.exit_code == 0, result.stderr
    rows = Bench.parse(json.loads(result.stdout), where="stdout").rows
    assert [row.setting.graph for row in rows] == ["a.onnx", "b ü$.onnx"]
    for row in rows:
        (subject,) = row.measurement.subjects
        assert subject.latency.processes == 2
        assert subject.paced.inferences > 0
        assert row.measurement.facts.versions["onnxruntime"]


INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from edgekd.cli.app import app; app()"
)
"""A shell starts what runs in its background with SIGINT ignored, and children inherit that."""


def interrupted(
    arguments: list[str], environment: dict[str, str], seconds: float
) -> subprocess.CompletedProcess:
    """A bench that hears Ctrl-C after a job has begun."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "bench", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder, until = Path(environment["TMPDIR"]), time.monotonic() + 60
    while not list(folder.glob("edgekd-job-*/job.json")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def running(text: str) -> list[str]:
    """Command lines of processes that name a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("boards", [0, 1])
def test_an_interrupt_leaves_nothing_behind(tmp_path, graph, boards):
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    arguments, sshd = [graph, "--min-time", "20", "--device", "local"], None
    if boards:
        if not is_installed():
            pytest.skip(WHY_NOT)
        (tmp_path / "an sshd").mkdir()
        sshd = Sshd(tmp_path / "an sshd")
        sshd.start()
        environment["EDGEKD_SSH"] = sshd.command
        place = f"{sshd.address}?python={sys.executable}&folder={tmp_path}/board"
        arguments += ["--device", place]
    try:
        result = interrupted(arguments, environment, 1.5 + 3 * boards)
        assert result.returncode == 130, result.stderr
        assert "Traceback" not in result.stderr
        assert list((tmp_path / "tmp").iterdir()) == []
        if boards:
            assert list((tmp_path / "board" / "jobs").iterdir()) == []
        until = time.monotonic() + 10
        while (
            left := running(f"{tmp_path}/tmp") + running(f"{tmp_path}/board")
        ) and time.monotonic() < until:
            time.sleep(0.1)
        assert left == []
    finally:
        if sshd is not None:
            sshd.stop()


def test_a_device_that_was_taken_away_is_no_measurement(edgekd, graph, devices):
    devices["local"].conditions = {"load1": 0.1, "steal_fraction": 0.5}
    result = edgekd("bench", graph)
    assert result.exit_code == 5
    line = (
        "warning: a.onnx, onnxruntime on local, 1 thread: invalid: other virtual machines took up to 50.00 %"
    )
    assert any(found.startswith(line) for found in words(result.stderr))


def test_a_comparison_on_a_device_that_was_taken_away_says_so(edgekd, two, devices):
    devices["local"].conditions = {"load1": 0.1, "steal_fraction": 0.5}
    result = edgekd("bench", *two, "--interleave")
    assert result.exit_code == 5
    assert "invalid: other virtual machines took up to 50.00 %" in result.stderr
    assert "the inputs are random" in result.stderr


def test_what_was_disturbed_is_measured_anew(edgekd, graph, devices, tmp_path):
    out = str(tmp_path / "out")
    devices["local"].conditions = {"load1": 0.1, "steal_fraction": 0.5}
    assert edgekd("bench", graph, "--out", out).exit_code == 5
    devices["local"].conditions = {"load1": 0.1, "steal_fraction": 0.0}
    again = edgekd("bench", graph, "--out", out)
    assert again.exit_code == 0
    assert "done before" not in again.stderr


@pytest.mark.parametrize(("option", "value"), [("--processes", "3"), ("--min-time", "1")])
def test_options_that_a_comparison_does_not_take(edgekd, two, devices, option, value):
    result = edgekd("bench", *two, "--interleave", option, value)
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {option} is not for --interleave\n  try: it measures until it is decided\n",
    )
