"""The local device: its log, and every way in which a job can end badly."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgekd.devices.device import Device
from edgekd.devices.local import LocalDevice, environment
from edgekd.documents.job import Job
from edgekd.errors import DeviceError, MeasurementError, MissingError, StorageError
from edgekd.shipped import shipped

IDENTITY = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,8] input) => (float[N,8] logits) { logits = Identity(input) }"""
ENDLESS = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,8] input) => (float[N,8] logits) <int64 most = {9223372036854775807}, bool go = {1}> {
        logits = Loop(most, go, input) <body = b (int64 i, bool c, float[N,8] x) => (bool k, float[N,8] y)
            { k = Identity(c) y = Identity(x) }>
    }"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder"
    folder.mkdir()
    np.save(folder / "x.npy", np.ones((4, 8), np.float32))
    return folder


def job(folder: Path, text: str = IDENTITY, mode: str = "cold", **changes) -> Job:
    onnx.save(parser.parse_model(text), folder / "g.onnx")
    graph = {"name": "student fp32", "path": str(folder / "g.onnx")}
    whole = {"mode": mode, "runtime": "onnxruntime", "graphs": [graph], "inputs": str(folder / "x.npy")}
    return Job.parse({"schema": 1, **whole, **changes}, where="test")


def kit_that(folder: Path, does: str) -> LocalDevice:
    """A device whose kit does something else instead of its job; `does` may use JOB, LOG, os and sys."""
    kit = folder / "kit"
    kit.mkdir()
    (kit / "run.py").write_text(f"import os, sys\nJOB, LOG = sys.argv[1:]\n{does}\n")
    return LocalDevice(kit)


def runtime_that(folder: Path, does: str) -> LocalDevice:
    """A device with the real kit, whose runtime does something else when it is imported."""
    shutil.copytree(shipped("export", "kit"), folder / "kit", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "kit" / "runtimes" / "onnxruntime_runtime.py").write_text(f"import os, sys\n{does}\n")
    return LocalDevice(folder / "kit")


def test_a_job_is_done_in_a_fresh_process_and_leaves_nothing(folder, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(folder / "temporary files"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (folder / "temporary files").mkdir()
    device: Device = LocalDevice()
    log = device.run(job(folder), timeout_s=60)
    assert (log.mode, log.error, log.graphs[0].name) == ("cold", None, "student fp32")
    assert list((folder / "temporary files").iterdir()) == []


def test_relative_paths_are_the_hosts(folder, monkeypatch):
    given = job(folder, mode="outputs")
    monkeypatch.chdir(folder)
    graph = given.graphs[0].model_copy(update={"path": "g.onnx"})
    relative = given.model_copy(update={"graphs": (graph,), "inputs": "x.npy", "outputs": "logits.npy"})
    LocalDevice().run(relative, timeout_s=60)
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), np.ones((4, 8)))


def test_facts():
    found = LocalDevice().facts("onnxruntime")
    assert found.machine == os.uname().machine
    assert set(found.versions) == {"python", "numpy", "onnxruntime"}


def test_the_environment_is_small_and_pins_threads():
    inherited = {"PATH": "/bin", "SECRET_TOKEN": "x", "OMP_NUM_THREADS": "64", "PYTHONSTARTUP": "/x.py"}
    assert environment(3, inherited) == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "EDGEKD_KIT_PARENT": str(os.getpid()),
    }


def test_the_kits_own_error_is_told(folder):
    given = job(folder)
    (folder / "x.npy").unlink()
    with pytest.raises(MeasurementError) as caught:
        LocalDevice().run(given, timeout_s=60)
    assert str(caught.value) == (
        "local: cold of student fp32: FileNotFoundError: [Errno 2] No such file or directory: "
        f"'{folder}/x.npy'"
    )


def test_a_truncated_graph(folder):
    given = job(folder)
    (folder / "g.onnx").write_bytes((folder / "g.onnx").read_bytes()[:40])
    with pytest.raises(
        MeasurementError, match=r"(?s)^local: cold of student fp32: .*Protobuf parsing failed"
    ):
        LocalDevice().run(given, timeout_s=60)


def test_a_missing_runtime(folder):
    device = runtime_that(folder, "raise ModuleNotFoundError(\"No module named 'onnxruntime'\")")
    with pytest.raises(MissingError) as caught:
        device.run(job(folder), timeout_s=60)
    assert str(caught.value) == (
        f"local: cold of student fp32: onnxruntime cannot be imported by {sys.executable}: "
        "No module named 'onnxruntime'; try: pip install onnxruntime numpy\n  try: edgekd doctor"
    )


def test_a_crash_of_the_runtime(folder):
    device = runtime_that(folder, "print('about to fail', flush=True)\nos.kill(os.getpid(), 11)")
    with pytest.raises(DeviceError) as caught:
        device.run(job(folder), timeout_s=60)
    assert str(caught.value) == (
        "local: cold of student fp32: the runtime crashed (SIGSEGV); its last words:\nabout to fail\n"
        "  try: edgekd audit on the graph, and another version of the runtime"
    )


def test_a_kit_that_is_killed(folder):
    with pytest.raises(DeviceError) as caught:
        kit_that(folder, "os.kill(os.getpid(), 9)").run(job(folder), timeout_s=60)
    assert str(caught.value) == (
        "local: cold of student fp32: the kit was killed (SIGKILL)\n"
        "  try: look for a lack of memory: dmesg names what the kernel killed"
    )


def test_a_graph_that_never_ends_is_stopped_with_all_its_processes(folder):
    start = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        LocalDevice().run(job(folder, ENDLESS), timeout_s=1.5)
    assert time.monotonic() - start < 20
    assert str(caught.value) == (
        "local: cold of student fp32: no result after 1.5 s; the kit was stopped\n"
        "  try: look for a graph that never ends or is far slower than expected"
    )


def test_children_of_the_kit_are_stopped_too(folder):
    child = "import subprocess\nchild = subprocess.Popen(['sleep', '60'])"
    tell = f"open({str(folder / 'pid')!r}, 'w').write(str(child.pid))\nchild.wait()"
    with pytest.raises(DeviceError):
        kit_that(folder, f"{child}\n{tell}").run(job(folder), timeout_s=1.5)
    assert is_gone(int((folder / "pid").read_text()))


AGAIN = "\n  try: look at the disk and the memory there, then run it again"


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("sys.exit(1)", "the kit ended with exit code 1 and left no log"),
        (
            "print('disk full', file=sys.stderr); sys.exit(1)",
            "the kit ended with exit code 1 and left no log; its last words:\ndisk full",
        ),
        (
            "open(LOG, 'w').write('{\"schema\": 1, \"mode\"')",
            "the result is truncated or no run log: is not valid JSON: Expecting ':' delimiter: "
            "line 1 column 21 (char 20)",
        ),
        (
            'open(LOG, \'w\').write(\'{"schema": 1, "mode": "cold"}\')',
            "the result is truncated or no run log: runtime: is missing; facts: is missing",
        ),
    ],
)
def test_a_log_that_is_missing_or_cut_short(folder, does, message):
    with pytest.raises(DeviceError) as caught:
        kit_that(folder, does).run(job(folder), timeout_s=60)
    assert str(caught.value) == f"local: cold of student fp32: {message}{AGAIN}"


def test_only_the_end_of_a_long_output_is_quoted(folder):
    with pytest.raises(DeviceError) as caught:
        kit_that(folder, "print('x' * 1_000_000 + 'end'); sys.exit(1)").run(job(folder), timeout_s=60)
    assert str(caught.value).endswith(f"xend{AGAIN}")
    assert len(str(caught.value)) < 2200


def test_no_room_for_the_jobs_files(folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder / "not there"))
    with pytest.raises(StorageError) as caught:
        LocalDevice().run(job(folder), timeout_s=60)
    assert "cannot keep the job's files: No such file or directory" in str(caught.value)
    assert str(caught.value).endswith("try: free some space, or set TMPDIR to another folder")


def is_gone(process: int, within_s: float = 10.0) -> bool:
    """Whether a process ends (a zombie has ended) within a time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tie to the parent is Linux's")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_kit_outlives_a_host_that_is_interrupted_or_killed(folder, how):
    (folder / "job.json").write_text(job(folder, ENDLESS).to_json())
    host = (
        # What is started in the background ignores SIGINT, and hands that on.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pathlib import Path; from edgekd.devices.local import LocalDevice; "
        "from edgekd.documents.job import Job; LocalDevice().run(Job.read(Path(sys.argv[1])), timeout_s=60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", host, str(folder / "job.json")], stderr=subprocess.PIPE
    ) as process:
        child = running_kit(process.pid)
        process.send_signal(how)
        said = process.communicate(timeout=30)[1]
    assert is_gone(child)
    assert (b"KeyboardInterrupt" in said) is (how == signal.SIGINT)


def running_kit(host: int, within_s: float = 30.0) -> int:
    """The host's child, once it has loaded the runtime."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        for child in Path(f"/proc/{host}/task/{host}/children").read_text().split():
            if "onnxruntime" in Path(f"/proc/{child}/maps").read_text():
                return int(child)
        time.sleep(0.02)
    raise AssertionError("the kit did not start")
