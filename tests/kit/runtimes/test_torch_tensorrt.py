"""Torch-TensorRT, host and kit. Here a stand-in with the published signatures compiles nothing.

Where there is a GPU and the real one, the last test compiles a network and runs it through the kit.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.devices.local import LocalDevice
from edgekd.documents.job import Job
from edgekd.errors import ConversionError, MissingError
from edgekd.runtimes.torch_tensorrt import compile_student
from tests.kit.runtimes import graphs

torch = pytest.importorskip("torch")


class Student(torch.nn.Module):
    """relu(x) W; with `real` False it stays where it is, whatever device it is sent to."""

    def __init__(self, weights: np.ndarray, *, real: bool = False) -> None:
        super().__init__()
        self.weights, self._real = torch.nn.Parameter(torch.from_numpy(weights)), real

    def forward(self, x):
        return torch.relu(x) @ self.weights

    def to(self, device):
        return super().to(device) if self._real else self


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


@pytest.fixture
def stand_in(monkeypatch) -> SimpleNamespace:
    """The functions that are called, with their parameters as torch-tensorrt 2.14.0 has them."""
    calls = []

    def compile(
        exported_program, inputs=None, *, arg_inputs=None, require_full_compilation=False, min_block_size=5
    ):
        calls.append((inputs, len(arg_inputs), require_full_compilation, min_block_size))
        return exported_program

    def save(module, file_path="", *, output_format="exported_program", inputs=None, arg_inputs=None):
        assert (output_format, len(arg_inputs)) == ("exported_program", 1)
        torch.export.save(module, file_path)

    module = SimpleNamespace(
        dynamo=SimpleNamespace(compile=compile), save=save, calls=calls, __version__="2.14.0"
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return module


def example(size: int = 3) -> SimpleNamespace:
    return SimpleNamespace(to=lambda device: torch.zeros(size, 8))


def test_a_network_is_compiled_whole_and_saved(stand_in, weights, tmp_path):
    path = compile_student(Student(weights), example(), tmp_path / "made")
    assert path == tmp_path / "made" / "student.pt2"
    assert list(path.parent.iterdir()) == [path]
    assert stand_in.calls == [(None, 1, True, 1)]
    x = torch.randn(3, 8)
    assert torch.equal(torch.export.load(path).module()(x), Student(weights)(x))


@pytest.mark.parametrize(
    ("step", "words"), [("compile", "compile the network"), ("save", "save the program")]
)
def test_what_it_cannot_compile(stand_in, weights, tmp_path, monkeypatch, step, words):
    def refuse(*given, **more):
        raise KeyError("no converter")

    monkeypatch.setattr(stand_in.dynamo if step == "compile" else stand_in, step, refuse)
    with pytest.raises(ConversionError) as caught:
        compile_student(Student(weights), example(), tmp_path)
    assert str(caught.value) == f"Torch-TensorRT cannot {words}: 'no converter'"
    assert list(tmp_path.iterdir()) == []


def test_what_to_install(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(MissingError) as caught:
        compile_student(Student(weights), example(), tmp_path)
    assert caught.value.message.startswith("Torch-TensorRT cannot be imported: ")
    assert caught.value.hint == "pip install 'edgekd[tensorrt]', on a machine with an NVIDIA GPU"


def test_no_gpu(stand_in, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError) as caught:
        compile_student(Student(weights), example(), tmp_path)
    assert caught.value.message == "Torch-TensorRT compiles for the GPU at hand, and there is none here"


class TestKit:
    @pytest.fixture
    def adapter(self, stand_in, kit_module, monkeypatch):
        """The adapter on the processor, with events that count."""
        ticks = iter(range(100))

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = next(ticks)

            def elapsed_time(self, later):
                return float(later.at - self.at)

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        module = kit_module("torch_tensorrt_runtime")
        monkeypatch.setattr(module, "DEVICE", "cpu")
        return module

    @pytest.fixture
    def refused(self, kit_module):
        return kit_module("graphs").RefusedError

    def test_logits_and_scopes(self, adapter, weights, tmp_path):
        path = compile_student(Student(weights), example(), tmp_path)
        session = adapter.Session(str(path), {"runtime": "torch-tensorrt", "session_options": {}})
        x_BX = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
        (logits_BK,) = session.run(session.prepare(x_BX))
        np.testing.assert_allclose(logits_BK, np.maximum(x_BX, 0) @ weights, rtol=1e-5)
        assert session.time_scopes(session.prepare(x_BX)) == {"device": 3_000_000, "compute": 1_000_000}
        assert adapter.missing("torch-tensorrt") is None

    def test_what_it_refuses(self, adapter, refused, weights, tmp_path):
        path = compile_student(Student(weights), example(), tmp_path)
        (tmp_path / "g.onnx").write_bytes(b"")
        (tmp_path / "bad.pt2").write_bytes(b"no archive")
        job = {"runtime": "torch-tensorrt", "session_options": {}}
        for name, given, problem in (
            ("g.onnx", job, f"{tmp_path}/g.onnx: torch-tensorrt takes an exported program, a .pt2 file"),
            ("no.pt2", job, f"{tmp_path}/no.pt2: there is no such graph"),
            ("bad.pt2", job, f"{tmp_path}/bad.pt2: torch-tensorrt 2.14.0 cannot load this program: "),
            (
                path.name,
                {**job, "session_options": {"a": "1"}},
                "torch-tensorrt has no session options, found a",
            ),
        ):
            with pytest.raises(refused) as caught:
                adapter.Session(str(tmp_path / name), given)
            assert str(caught.value).startswith(problem)
        session = adapter.Session(str(path), job)
        with pytest.raises(refused) as caught:
            session.prepare(np.zeros((2, 8), np.float32))
        assert str(caught.value) == f"{path}: takes inputs of shape (3, 8), found (2, 8)"


def test_the_real_one(weights, tmp_path: Path) -> None:
    if importlib.util.find_spec("torch_tensorrt") is None:
        pytest.skip("torch-tensorrt is not installed; try: pip install torch-tensorrt")
    if not torch.cuda.is_available():
        pytest.skip("torch-tensorrt: there is no NVIDIA GPU here")
    path = compile_student(Student(weights, real=True), torch.zeros(3, 8), tmp_path)
    x_NX = graphs.inputs(tmp_path / "x.npy")
    job = {
        "schema": 1,
        "mode": "outputs",
        "runtime": "torch-tensorrt",
        "graphs": [{"name": "student", "path": str(path)}],
        "inputs": str(tmp_path / "x.npy"),
        "outputs": str(tmp_path / "o.npy"),
        "batch_size": 3,
    }
    LocalDevice().run(Job.parse(job, where="test"), timeout_s=300)
    wanted = np.maximum(x_NX, 0) @ weights
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), wanted, rtol=1e-3, atol=1e-3)
