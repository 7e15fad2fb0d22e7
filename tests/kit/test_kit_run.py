"""The kit as a program: what it writes, how it fails, what it needs."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgekd.documents.job import Job
from edgekd.documents.run_log import RunLog
from edgekd.shipped import shipped

KIT = shipped("export", "kit")
WEIGHTS = np.arange(24, dtype=np.float32).reshape(8, 3) / 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a space in its name, a graph and inputs."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    values = ", ".join(map(str, WEIGHTS.ravel()))
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,8] input) => (float[N,3] logits) <float[8,3] W = {{{values}}}>
        {{ logits = MatMul(input, W) }}
    """
    onnx.save(parser.parse_model(text), folder / "g.onnx")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(70, 8)).astype(np.float32))
    return folder


def job(folder: Path, mode: str, **changes) -> dict:
    graph = {"name": "g", "path": str(folder / "g.onnx")}
    whole = {
        "schema": 1,
        "mode": mode,
        "runtime": "onnxruntime",
        "graphs": [graph],
        "inputs": str(folder / "x.npy"),
    }
    small = {"warmup_s": 0.01, "max_warmup_s": 0.05, "min_time_s": 0.01, "min_samples": 40}
    return json.loads(Job.parse({**whole, **small, **changes}, where="test").to_json())


def kit(folder: Path, job: dict | str, env: dict[str, str] | None = None) -> tuple[int, RunLog, str]:
    (folder / "job.json").write_text(job if isinstance(job, str) else json.dumps(job))
    command = [sys.executable, "-B", str(KIT / "run.py"), str(folder / "job.json"), str(folder / "log.json")]
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    return done.returncode, RunLog.read(folder / "log.json"), done.stdout + done.stderr


def test_latency(folder):
    graphs = [{"name": name, "path": str(folder / "g.onnx")} for name in ("a", "b")]
    code, log, said = kit(folder, job(folder, "latency", graphs=graphs, batch_size=4))
    assert (code, log.error, said) == (0, None, "")
    assert [graph.name for graph in log.graphs] == ["a", "b"]
    for graph in log.graphs:
        assert len(graph.latency_ns) == len(graph.block_of_sample) >= 40
        assert sum(graph.latency_ns) >= 10_000_000
        assert graph.block_of_sample[0] == 0
        assert sorted(graph.block_of_sample) == list(graph.block_of_sample)
        assert graph.warmup_ns >= 10_000_000
        assert graph.build_ns is None
    assert log.conditions is not None
    assert log.facts.versions["onnxruntime"]
    assert (log.import_ns, log.process_ns, log.outputs_sha256) == (None, None, None)


def test_cold_counts_from_the_start_of_the_program(folder):
    code, log, _ = kit(folder, job(folder, "cold"))
    assert (code, log.error) == (0, None)
    assert log.import_ns > 1_000_000  # numpy and the runtime
    assert log.process_ns > log.import_ns + log.graphs[0].load_ns + log.graphs[0].first_ns
    assert log.graphs[0].latency_ns == ()


def test_a_foreign_mark_of_the_start_is_not_believed(folder):
    code, log, _ = kit(folder, job(folder, "cold"), env={"EDGEKD_KIT_STARTED": "1:0"})
    assert code == 0
    assert log.process_ns < 60e9  # not the time since boot


@pytest.mark.parametrize("batch_size", [1, 32, 70, 100])
def test_outputs_are_all_logits_whatever_the_batch(folder, batch_size):
    outputs = folder / "logits.npy"
    code, log, _ = kit(folder, job(folder, "outputs", outputs=str(outputs), batch_size=batch_size))
    assert (code, log.error) == (0, None)
    np.testing.assert_allclose(np.load(outputs), np.load(folder / "x.npy") @ WEIGHTS, rtol=1e-5, atol=1e-5)
    assert log.outputs_sha256 == hashlib.sha256(outputs.read_bytes()).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == [
        "g.onnx",
        "job.json",
        "log.json",
        "logits.npy",
        "x.npy",
    ]


def test_facts_need_neither_numpy_nor_the_runtime(folder):
    for name in ("numpy", "onnxruntime"):
        (folder / f"{name}.py").write_text("raise RuntimeError('imported')")
    code, log, _ = kit(
        folder, {"schema": 1, "mode": "facts", "runtime": "onnxruntime"}, {"PYTHONPATH": str(folder)}
    )
    assert (code, log.error) == (0, None)
    assert log.facts.cores >= 1


def test_the_kit_imports_neither_torch_nor_edgekd(folder):
    for name in ("torch", "edgekd", "pydantic", "onnx"):
        (folder / f"{name}.py").write_text("raise RuntimeError('imported')")
    code, log, _ = kit(folder, job(folder, "latency"), {"PYTHONPATH": str(folder)})
    assert (code, log.error) == (0, None)


def test_the_runtime_reports_nothing_over_the_network(folder):
    (folder / "tmp").mkdir()
    assert kit(folder, job(folder, "cold"), {"TMPDIR": str(folder / "tmp"), "CI": ""})[0] == 0
    assert list((folder / "tmp").iterdir()) == []  # its reporting would leave the file .ses there


def test_a_runtime_that_is_not_installed(folder):
    (folder / "onnxruntime.py").write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")")
    code, log, _ = kit(folder, job(folder, "cold"), {"PYTHONPATH": str(folder)})
    assert code == 3
    assert log.error == (
        f"onnxruntime cannot be imported by {sys.executable}: No module named 'onnxruntime'; "
        "try: pip install onnxruntime numpy"
    )


def test_a_truncated_graph(folder):
    whole = (folder / "g.onnx").read_bytes()
    (folder / "g.onnx").write_bytes(whole[: len(whole) // 2])
    code, log, said = kit(folder, job(folder, "latency"))
    assert (code, said) == (1, "")
    assert "Protobuf parsing failed" in log.error
    assert log.graphs == ()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"mode": "cold", "graphs": []}, "the mode cold takes one graph, found 0"),
        ({"mode": "latency", "inputs": None}, "the mode latency needs inputs"),
        ({"mode": "latency", "batch_size": 71}, "{folder}/x.npy: holds 70 inputs, the batch takes 71"),
        (
            {"mode": "latency", "inputs": "/no/such/x.npy"},
            "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/x.npy'",
        ),
    ],
)
def test_jobs_that_cannot_be_done(folder, changes, error):
    code, log, _ = kit(folder, {**job(folder, "facts"), **changes})
    assert (code, log.error) == (1, error.format(folder=folder))


def test_inputs_that_are_pickled_objects(folder):
    np.save(folder / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    code, log, _ = kit(folder, job(folder, "cold"))
    assert code == 1
    assert log.error.startswith("ValueError: ")


def test_no_inputs(folder):
    np.save(folder / "x.npy", np.zeros((0, 8), np.float32))
    assert kit(folder, job(folder, "cold"))[1].error == f"{folder}/x.npy: holds no inputs"


def test_a_graph_with_two_inputs(folder):
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,8] a, float[N,8] b) => (float[N,8] logits) { logits = Add(a, b) }"""
    onnx.save(parser.parse_model(text), folder / "g.onnx")
    error = kit(folder, job(folder, "cold"))[1].error
    assert error == f"{folder}/g.onnx: a graph with one input is expected, found a, b"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"schema": 2}', "{folder}/job.json: this kit takes jobs with schema = 1"),
        ("[]", "{folder}/job.json: this kit takes jobs with schema = 1"),
        (
            '{"schema": 1, "mode": "dance"}',
            "{folder}/job.json: mode is none of latency, cold, outputs, sustained, paced, facts",
        ),
        ("{", "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_jobs_that_are_none(folder, text, error):
    code, log, _ = kit(folder, text)
    assert (code, log.mode, log.error) == (1, "unknown", error.format(folder=folder))


def test_wrong_usage():
    done = subprocess.run(
        [sys.executable, str(KIT / "run.py"), "one"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("The kit, `python run.py JOB.json LOG.json`")


def test_the_log_is_whole_or_absent(folder):
    (folder / "log.json").mkdir()  # nothing can be moved onto a folder
    (folder / "job.json").write_text('{"schema": 1, "mode": "facts", "runtime": "onnxruntime"}')
    command = [sys.executable, "-B", str(KIT / "run.py"), str(folder / "job.json"), str(folder / "log.json")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert [path.name for path in folder.iterdir() if path.suffix == ".part"] == []


def test_the_kit_is_small_and_old_python_reads_it():
    files = [path for path in KIT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 200_000
    for path in files:
        ast.parse(path.read_text(), feature_version=(3, 8))


def has_python_3_8() -> bool:
    """Whether python3.8 is there and starts; a version manager's stand-in for it may not."""
    found = shutil.which("python3.8")
    return found is not None and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_python_3_8(), reason="no python3.8 on the path")
def test_facts_on_python_3_8(folder):
    (folder / "job.json").write_text('{"schema": 1, "mode": "facts", "runtime": "onnxruntime"}')
    command = ["python3.8", "-B", str(KIT / "run.py"), str(folder / "job.json"), str(folder / "log.json")]
    assert subprocess.run(command, check=False).returncode == 0
    assert RunLog.read(folder / "log.json").facts.versions["python"].startswith("3.8")
