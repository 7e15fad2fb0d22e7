"""What every device does, whatever lies between: local, ssh (a real sshd) and adb (a stand-in program)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgekd.devices.adb import AdbChannel
from edgekd.devices.address import parse_address
from edgekd.devices.device import Device
from edgekd.devices.local import LocalDevice
from edgekd.devices.remote import RemoteDevice
from edgekd.devices.ssh import SshChannel
from edgekd.documents.job import Job
from edgekd.errors import DeviceError, EdgekdError, MeasurementError, MissingError, StorageError
from tests.devices.boards import NOTHING, job_of, kept_on, kit_that, processes_of

ADB = """import os, subprocess, sys
if sys.argv[1:5] != ["-s", "board-7", "shell", "-T"] or len(sys.argv) != 6:
    sys.exit("adb: these arguments are not expected: %r" % sys.argv)
sys.exit(subprocess.run(["sh", "-c", sys.argv[5]], env=dict(os.environ, PATH=PATH)).returncode)
"""
DOUBLE = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,8] input) => (float[N,8] logits) { logits = Add(input, input) }"""


class Bench:
    """A device under test, its folders, and how it is opened."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind, self.folder = kind, folder
        self.board = folder / "the board's folder"
        self.temporary = folder / "t"
        self.temporary.mkdir(parents=True)
        self._request = request
        self._opened: list[Device] = []

    def device(self, kit: Path | None = None) -> Device:
        """The device, with another kit if need be."""
        device = LocalDevice(kit) if self.kind == "local" else self._remote(kit)
        self._opened.append(device)
        return device

    def _remote(self, kit: Path | None) -> RemoteDevice:
        channel: SshChannel | AdbChannel
        if self.kind == "ssh":
            channel = SshChannel(parse_address(self._request.getfixturevalue("sshd").address))
        else:
            channel = AdbChannel(parse_address("adb:board-7"))
        return RemoteDevice(channel, kit=kit, folder=str(self.board), python=sys.executable)

    def close(self) -> None:
        for device in self._opened:
            device.close()

    def left(self) -> list[str]:
        """What is left behind of closed devices."""
        files = [str(path) for path in self.temporary.iterdir()]
        board = (
            [] if not self.board.exists() or kept_on(self.board) == NOTHING else [str(kept_on(self.board))]
        )
        return [*files, *board, *processes_of(str(self.temporary)), *processes_of(str(self.board))]


@pytest.fixture(params=["local", "ssh", "adb"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path / "a folder, Küche", request)
    monkeypatch.setenv("TMPDIR", str(bench.temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    program = bench.folder / "adb.py"
    program.write_text(
        ADB.replace("PATH=PATH", f"PATH={str(Path(sys.executable).parent) + ':/usr/bin:/bin'!r}")
    )
    monkeypatch.setenv("EDGEKD_ADB", shlex.join([sys.executable, str(program)]))
    yield bench
    bench.close()
    assert bench.left() == []


def doubling(folder: Path, mode: str, **changes: object) -> Job:
    """A job of the real kit, whose graph gives twice its input."""
    onnx.save(parser.parse_model(DOUBLE), folder / "数 of 学生.onnx")
    np.save(folder / "x y.npy", np.arange(40, dtype=np.float32).reshape(5, 8))
    graph = {"name": "Schüler ½", "path": str(folder / "数 of 学生.onnx")}
    whole = {"mode": mode, "runtime": "onnxruntime", "graphs": [graph], "inputs": str(folder / "x y.npy")}
    quick = {"warmup_s": 0.0, "max_warmup_s": 0.01, "min_time_s": 0.0, "min_samples": 20}
    return Job.parse({"schema": 1, **whole, **quick, **changes}, where="test")


def failure(kind: type[EdgekdError], device: Device, job: Job, timeout_s: float = 60) -> str:
    """The whole text of the error of a job, without the device's name."""
    with pytest.raises(EdgekdError) as caught:
        device.run(job, timeout_s=timeout_s)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.startswith(f"{device.name}: ")
    return text.removeprefix(f"{device.name}: ")


def test_facts(bench):
    found = bench.device().facts("onnxruntime")
    here = LocalDevice().facts("onnxruntime")
    assert (found.machine, found.cpu, found.versions) == (here.machine, here.cpu, here.versions)


def test_latency(bench):
    (graph,) = bench.device().run(doubling(bench.folder, "latency"), timeout_s=60).graphs
    assert (graph.name, len(graph.latency_ns)) == ("Schüler ½", 20)
    assert min(graph.latency_ns) > 0


def test_outputs_come_as_they_are_to_a_path_of_the_host(bench, monkeypatch):
    job = doubling(bench.folder, "outputs")
    monkeypatch.chdir(bench.folder)
    graph = job.graphs[0].model_copy(update={"path": "数 of 学生.onnx"})
    paths = {"graphs": (graph,), "inputs": "x y.npy", "outputs": "logits of ü.npy", "batch_size": 2}
    bench.device().run(job.model_copy(update=paths), timeout_s=60)
    given = np.load(bench.folder / "x y.npy")
    np.testing.assert_array_equal(np.load(bench.folder / "logits of ü.npy"), 2 * given)


def test_several_jobs_of_one_device(bench):
    device = bench.device(kit_that(bench.folder))
    names = [device.run(job_of(bench.folder, mode=mode), timeout_s=60).mode for mode in ("cold", "latency")]
    assert names == ["cold", "latency"]


def test_what_the_kit_is_given(bench):
    does = """
names = sorted(name for name in os.environ if name.endswith("NUM_THREADS"))
log["error"] = json.dumps([[os.environ[name] for name in names], open(job["inputs"]).read(),
    open(job["graphs"][0]["path"]).read(), job["graphs"][0]["name"], job["session_options"]])
write()"""
    job = job_of(bench.folder, threads=3, session_options={"a 'b'": '"$c" ü'})
    text = failure(MeasurementError, bench.device(kit_that(bench.folder, does)), job)
    assert text == (
        'cold of student: [["3", "3", "3"], "some inputs", "a graph", "student", '
        '{"a \'b\'": "\\"$c\\" \\u00fc"}]'
    )


def test_the_kits_own_error(bench):
    job = doubling(bench.folder, "latency", batch_size=9)
    text = failure(MeasurementError, bench.device(), job)
    assert text.startswith("latency of Schüler ½: ")
    assert text.endswith(".npy: holds 5 inputs, the batch takes 9")


def test_a_missing_runtime(bench):
    does = "log['error'] = 'there is no such runtime; try: pip install it'; write(); sys.exit(3)"
    device = bench.device(kit_that(bench.folder, does))
    hints = {"local": "edgekd doctor"}
    hint = hints.get(bench.kind, f"name the Python there that has it: '{device.name}?python=PATH'")
    text = failure(MissingError, device, job_of(bench.folder))
    assert text == f"cold of student: there is no such runtime; try: pip install it\n  try: {hint}"
    assert MissingError.exit_code == 3


def test_a_crash_of_the_runtime(bench):
    does = "print('about to fail', flush=True); os.kill(os.getpid(), 11); time.sleep(9)"
    text = failure(DeviceError, bench.device(kit_that(bench.folder, does)), job_of(bench.folder))
    assert text == (
        "cold of student: the runtime crashed (SIGSEGV); its last words:\nabout to fail\n"
        "  try: edgekd audit on the graph, and another version of the runtime"
    )


def test_a_kit_that_is_killed(bench):
    device = bench.device(kit_that(bench.folder, "os.kill(os.getpid(), 9); time.sleep(9)"))
    assert failure(DeviceError, device, job_of(bench.folder)) == (
        "cold of student: the kit was killed (SIGKILL)\n"
        "  try: look for a lack of memory: dmesg names what the kernel killed"
    )


def test_one_that_never_ends_is_ended_with_its_children(bench):
    kit = kit_that(bench.folder, "subprocess.run(['sleep', '60'])")
    assert failure(DeviceError, bench.device(kit), job_of(bench.folder), timeout_s=0.7) == (
        "cold of student: no result after 0.7 s; the kit was stopped\n"
        "  try: look for a graph that never ends or is far slower than expected"
    )


def test_a_kit_that_leaves_no_log(bench):
    kit = kit_that(bench.folder, "print('no room', file=sys.stderr); sys.exit(1)")
    assert failure(DeviceError, bench.device(kit), job_of(bench.folder)) == (
        "cold of student: the kit ended with exit code 1 and left no log; its last words:\nno room"
        "\n  try: look at the disk and the memory there, then run it again"
    )


def test_of_a_huge_output_the_end_is_quoted(bench):
    kit = kit_that(bench.folder, "sys.stdout.write('x' * 30_000_000 + 'end'); sys.exit(1)")
    text = failure(DeviceError, bench.device(kit), job_of(bench.folder))
    assert "xxxend\n  try: look at the disk" in text
    assert len(text) < 2200


def test_large_arrays_and_any_bytes_come_as_they_are(bench):
    does = """
data = bytes(range(256)) * 40_000 + b"\\r\\n\\x00edgekd"
open(job["outputs"], "wb").write(data)
log["outputs_sha256"] = hashlib.sha256(data).hexdigest()
write()"""
    job = job_of(bench.folder, mode="outputs", outputs=str(bench.folder / "y.npy"))
    bench.device(kit_that(bench.folder, does)).run(job, timeout_s=60)
    assert (bench.folder / "y.npy").read_bytes() == bytes(range(256)) * 40_000 + b"\r\n\0edgekd"


@pytest.mark.parametrize("name", ["g.onnx", "x.npy"])
def test_a_graph_or_inputs_that_are_not_here(bench, name):
    device = bench.device(kit_that(bench.folder, "open(job['graphs'][0]['path']); open(job['inputs'])"))
    job = job_of(bench.folder)
    (bench.folder / name).unlink()
    with pytest.raises(EdgekdError, match="No such file or directory") as caught:
        device.run(job, timeout_s=60)
    assert str(bench.folder / name) in str(caught.value)
    if bench.kind != "local":
        assert isinstance(caught.value, StorageError)
        assert str(caught.value) == f"{bench.folder / name}: cannot be read: No such file or directory"
