"""Engines are built by the real tensorrt-rtx; TensorRT 10 and 11 are played by fakes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from edgekd.conversion.dialects import to_dialect
from edgekd.errors import BundleError
from edgekd.runtimes import tensorrt, tensorrt_worker
from edgekd.runtimes.tensorrt import parse_and_build
from edgekd.runtimes.tensorrt_worker import MAX_BATCH, work
from tests.conversion.graphs import CASES, Writer, matmul, residual


def saved(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return path


class TestTensorRtForRtx:
    """The real parser and ahead-of-time builder; neither needs a GPU."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("tensorrt_rtx")

    @pytest.mark.parametrize("sm", [86, 89, None])
    def test_an_engine_is_built(self, sm: int | None, tmp_path: Path) -> None:
        path, engine = saved(residual(), tmp_path), tmp_path / "engines" / "student.engine"
        record = parse_and_build(path, sm=sm, engine=engine)
        target = f"for SM {sm}" if sm else "for every GPU that it supports"
        assert (record.status, record.note) == ("built", f"an engine was built ahead of time {target}")
        assert (record.tool, record.sm, record.messages) == ("tensorrt-rtx", sm, ())
        assert record.graph_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert record.engine_sha256 == hashlib.sha256(engine.read_bytes()).hexdigest()
        assert record.engine_bytes == engine.stat().st_size > 1000
        assert list(engine.parent.iterdir()) == [engine]

    @pytest.mark.parametrize("sm", [87, 90])
    def test_an_sm_that_it_does_not_list_is_left_to_the_device(self, sm: int, tmp_path: Path) -> None:
        record = parse_and_build(saved(residual(), tmp_path), sm=sm, engine=tmp_path / "engine")
        assert record.status == "parsed"
        assert record.note == (
            "the parser took the graph; "
            f"TensorRT for RTX does not build for SM {sm}, so the engine is built on the device"
        )
        assert record.engine_sha256 is None
        assert not (tmp_path / "engine").exists()

    @pytest.mark.parametrize("name", CASES)
    def test_the_parser_takes_every_canonical_graph(self, name: str, tmp_path: Path) -> None:
        record = parse_and_build(saved(CASES[name](), tmp_path), sm=89, engine=None)
        assert (record.status, record.messages) == ("parsed", ())
        assert record.note == "the parser took the graph; no engine was asked for"

    def test_a_rejected_graph_names_the_node(self, tmp_path: Path) -> None:
        write = Writer()
        bias = write.op("DequantizeLinear", write.constant("b", _int32(8)), "scale")
        conv = write.op("Conv", write.quantize("input"), write.weight(8, 3, 1, 1), bias)
        record = parse_and_build(
            saved(write.graph(conv, rank=4), tmp_path), sm=89, engine=tmp_path / "engine"
        )
        assert (record.status, record.note) == ("rejected", "the parser refused the graph")
        assert any(
            message.startswith("/DequantizeLinear_0 (DequantizeLinear): ") and "Int32" in message
            for message in record.messages
        )
        assert not (tmp_path / "engine").exists()

    def test_an_engine_takes_the_place_of_an_older_one(self, tmp_path: Path) -> None:
        engine = tmp_path / "engine"
        engine.write_bytes(b"old")
        parse_and_build(saved(matmul(), tmp_path), sm=89, engine=engine)
        assert engine.stat().st_size > 1000

    def test_its_networks_are_strongly_typed(self) -> None:
        assert tensorrt_worker._network_flags(pytest.importorskip("tensorrt_rtx")) == 1

    def test_nothing_is_printed(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        parse_and_build(saved(residual(), tmp_path), sm=89, engine=tmp_path / "engine")
        assert capfd.readouterr() == ("", "")


def _int32(size: int) -> Any:
    import numpy as np

    return np.ones(size, np.int32)


@pytest.mark.parametrize("name", ["linear_residual", "conv_relu"])
def test_uint8_codes_are_refused_whatever_the_parser_says(name: str, tmp_path: Path) -> None:
    record = parse_and_build(saved(to_dialect(CASES[name](), "onnxruntime-u8"), tmp_path), sm=89, engine=None)
    assert record.status == "rejected"
    assert record.note == (
        "it has uint8 codes, which TensorRT would read as int8 and so clip at half of their range"
    )
    assert record.messages[0] == "/QuantizeLinear_0 (QuantizeLinear): uint8"


def test_a_quantizer_without_zero_point_has_uint8_codes(tmp_path: Path) -> None:
    def record(**attributes: int) -> str:
        write = Writer()
        codes = write.op("QuantizeLinear", "input", "scale", **attributes)
        return parse_and_build(
            saved(write.graph(write.op("DequantizeLinear", codes, "scale"), rank=4), tmp_path),
            sm=89,
            engine=None,
        ).status

    assert record() == "rejected"
    assert record(output_dtype=onnx.TensorProto.INT8) != "rejected"


def test_nothing_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "_TOOLS", {"edgekd_no_such_module": "none"})
    record = parse_and_build(saved(residual(), tmp_path), sm=89, engine=tmp_path / "engine")
    assert (record.status, record.tool, record.messages) == ("not-run", None, ())
    assert record.note == (
        'neither tensorrt-rtx nor tensorrt is installed: pip install "edgekd[tensorrt-rtx]"'
    )


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError):
        parse_and_build(tmp_path / "graph.onnx", sm=89, engine=None)


@pytest.mark.parametrize(
    ("body", "note", "messages"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "fake crashed (SIGSEGV)", ()),
        (
            "import sys; sys.exit('libcudart.so is missing')",
            "fake failed with exit code 1",
            ("libcudart.so is missing",),
        ),
    ],
)
def test_a_crash_of_the_tool_is_a_record(
    body: str, note: str, messages: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake_tensorrt.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(tensorrt, "_TOOLS", {"fake_tensorrt": "fake"})
    record = parse_and_build(saved(residual(), tmp_path), sm=89, engine=tmp_path / "engine")
    assert (record.status, record.note, record.messages) == ("rejected", note, messages)


def test_a_build_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_tensorrt.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(tensorrt, "_TOOLS", {"fake_tensorrt": "fake"})
    monkeypatch.setattr(tensorrt, "TIMEOUT_S", 0.5)
    record = parse_and_build(saved(residual(), tmp_path), sm=89, engine=None)
    assert (record.status, record.note) == ("rejected", "fake did not end within 0 s")


def test_the_current_folder_is_not_searched_for_modules(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('read from the current folder')")
    program = (
        "from edgekd.runtimes.tensorrt import parse_and_build; from pathlib import Path;"
        f"print(parse_and_build(Path({str(saved(residual(), tmp_path))!r}), sm=89, engine=None).status)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() in ("parsed", "not-run"), done.stderr


class Fake:
    """A TensorRT module with exactly the names of one generation: anything else is an AttributeError."""

    def __init__(
        self, version: str, flags: dict[str, int], accepts: bool = True, builds: bool = True
    ) -> None:
        self.__version__ = version
        self.calls: dict[str, Any] = {}
        self.NetworkDefinitionCreationFlag = type("NetworkDefinitionCreationFlag", (), flags)
        self.ILogger = type("ILogger", (), {"ERROR": 1, "WARNING": 2, "INFO": 3})
        self.accepts, self.builds = accepts, builds

    def Builder(self, logger: Any) -> SimpleNamespace:
        logger.log(self.ILogger.INFO, "hello")
        logger.log(self.ILogger.WARNING, "careful")
        logger.log(self.ILogger.WARNING, "careful")
        self.network = SimpleNamespace(
            num_inputs=1, get_input=lambda index: SimpleNamespace(name="input", shape=self.input_shape)
        )
        profile = SimpleNamespace(
            set_shape=lambda *shapes: self.calls.__setitem__("shapes", shapes),
        )
        config = SimpleNamespace(add_optimization_profile=self._add_profile)
        return SimpleNamespace(
            create_network=self._create_network,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: profile,
            build_serialized_network=lambda network, config: memoryview(b"plan") if self.builds else None,
        )

    input_shape: tuple[int, ...] = (-1, 3, 12, 12)

    def _create_network(self, flags: int) -> Any:
        self.calls["flags"] = flags
        return self.network

    def _add_profile(self, profile: Any) -> int:
        self.calls["profiles"] = self.calls.get("profiles", 0) + 1
        return 0

    def OnnxParser(self, network: Any, logger: Any) -> SimpleNamespace:
        error = SimpleNamespace(
            node_name=lambda: "/Q", node_operator=lambda: "QuantizeLinear", desc=lambda: "no"
        )
        return SimpleNamespace(
            parse=lambda data: self.accepts and data == b"graph", num_errors=1, get_error=lambda index: error
        )


TEN = ("10.13.0", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
ELEVEN = ("11.1.0", {})
generations = pytest.mark.parametrize("generation", [TEN, ELEVEN], ids=["10", "11"])


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "graph").write_bytes(b"graph")
    return {"graph": str(tmp_path / "graph"), "sm": 89, "engine": str(tmp_path / "engine")}


@generations
def test_full_tensorrt_builds_for_the_gpu_at_hand(
    generation: tuple[str, dict[str, int]], job: dict[str, Any]
) -> None:
    fake = Fake(*generation)
    assert work(fake, job, gpu=89) == {
        "status": "built",
        "note": "an engine was built for the GPU at hand",
        "messages": ["careful"],
        "tool_version": generation[0],
    }
    assert Path(job["engine"]).read_bytes() == b"plan"
    assert fake.calls["flags"] == (3 if generation is TEN else 0)
    rest = (3, 12, 12)
    assert fake.calls["shapes"] == ("input", (1, *rest), (1, *rest), (MAX_BATCH, *rest))
    assert fake.calls["profiles"] == 1


@generations
def test_full_tensorrt_without_a_gpu(generation: tuple[str, dict[str, int]], job: dict[str, Any]) -> None:
    result = work(Fake(*generation), job, gpu=None)
    assert result["status"] == "not-run"
    assert result["note"] == "TensorRT needs a GPU even to parse, and there is none here"


@generations
def test_full_tensorrt_on_another_gpu(generation: tuple[str, dict[str, int]], job: dict[str, Any]) -> None:
    result = work(Fake(*generation), {**job, "sm": 87}, gpu=90)
    assert result["status"] == "parsed"
    assert result["note"] == (
        "the parser took the graph; the GPU here is SM 90, so the engine for SM 87 is built on the device"
    )
    assert not Path(job["engine"]).exists()


def test_the_parser_and_the_builder_may_refuse(job: dict[str, Any]) -> None:
    refused = work(Fake(*TEN, accepts=False), job, gpu=89)
    assert (refused["status"], refused["messages"]) == ("rejected", ["/Q (QuantizeLinear): no"])
    unbuilt = work(Fake(*TEN, builds=False), job, gpu=89)
    assert unbuilt["status"] == "rejected"
    assert unbuilt["note"] == "the parser took the graph, the builder made no engine of it"


def test_a_fixed_batch_needs_no_profile_and_other_free_axes_are_refused(job: dict[str, Any]) -> None:
    fixed = Fake(*TEN)
    fixed.input_shape = (4, 3)
    assert work(fixed, job, gpu=89)["status"] == "built"
    assert "profiles" not in fixed.calls
    free = Fake(*TEN)
    free.input_shape = (-1, 3, -1)
    result = work(free, job, gpu=89)
    assert result["status"] == "rejected"
    assert result["note"] == "input 'input' has a free axis besides the batch: (-1, 3, -1)"


def test_the_gpu_is_asked_through_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def attribute(value: Any, which: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 9}[which]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: 0, cuDeviceGet=lambda device, index: 0, cuDeviceGetAttribute=attribute
    )
    monkeypatch.setattr(tensorrt_worker.ctypes, "CDLL", lambda name: driver)
    assert tensorrt_worker.gpu_sm() == 89
    driver.cuInit = lambda flags: 100
    assert tensorrt_worker.gpu_sm() is None


def test_the_worker_leaves_its_result_in_a_file(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "result.json"
    monkeypatch.setitem(sys.modules, "fake_tensorrt", Fake(*ELEVEN))  # type: ignore[arg-type]
    monkeypatch.setattr(tensorrt_worker, "gpu_sm", lambda: 89)
    text = json.dumps({**job, "module": "fake_tensorrt", "result": str(result)})
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(read=lambda: text))
    assert tensorrt_worker.main() == 0
    assert json.loads(result.read_text())["status"] == "built"
