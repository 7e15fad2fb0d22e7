"""The kit's TensorRT without a GPU: fakes of TensorRT 10 and 11, and the real builder of TensorRT for RTX."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.kit.runtimes.fake_tensorrt import FakeGpu, fake_tensorrt

TEN, ELEVEN = "10.16.1", "11.4.0"


@pytest.fixture
def engines(kit_module) -> ModuleType:
    return kit_module("tensorrt_engine")


@pytest.fixture
def sessions(kit_module) -> ModuleType:
    return kit_module("tensorrt_session")


@pytest.fixture
def refused(kit_module) -> type[Exception]:
    return kit_module("graphs").RefusedError


def job(tmp_path: Path | None = None, **changes: object) -> dict:
    cache = None if tmp_path is None else str(tmp_path / "cache")
    return {"runtime": "tensorrt", "batch_size": 4, "session_options": {}, "cache": cache, **changes}


def written(tmp_path: Path, seed: int = 0, name: str = "g.onnx") -> str:
    """A graph as the fake parser reads it."""
    (tmp_path / name).write_text(str(seed))
    return str(tmp_path / name)


def logits(seed: int, x_BX: np.ndarray) -> np.ndarray:
    return np.maximum(x_BX, 0) @ np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)


def open_session(sessions: ModuleType, version: str, path: str, job: dict, **more: object) -> SimpleNamespace:
    gpu = FakeGpu(more.pop("sm", 89))
    trt = fake_tensorrt(gpu, version, **more)
    return SimpleNamespace(session=sessions.Session(trt, path, job, gpu), gpu=gpu, trt=trt)


@pytest.mark.parametrize("version", [TEN, ELEVEN])
def test_the_same_steps_on_both_majors(sessions, tmp_path, version):
    drops = ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH",) if version == ELEVEN else ()
    found = open_session(sessions, version, written(tmp_path, 3), job(), drops=drops)
    x_BX = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    feed = found.session.prepare(x_BX)
    np.testing.assert_allclose(found.session.run(feed)[0], logits(3, x_BX), rtol=1e-6)
    assert found.gpu.calls == ["in", "infer", "out", "wait"]
    (build,) = found.trt.builds
    assert build.network.flags == 0b10  # strongly typed
    assert build.config.flags == []  # no precision
    assert build.config.profiles[0].shapes == {"input": ((1, 8), (4, 8), (4, 8))}
    assert found.session.build_ns > 0
    assert found.session.note is None


def test_batches_up_to_the_jobs(sessions, refused, tmp_path):
    found = open_session(sessions, TEN, written(tmp_path), job()).session
    for size in (4, 1, 3, 4):
        x_BX = np.random.default_rng(size).normal(size=(size, 8)).astype(np.float32)
        np.testing.assert_allclose(found.run(found.prepare(x_BX))[0], logits(0, x_BX), rtol=1e-6)
    with pytest.raises(refused) as caught:
        found.run(found.prepare(np.zeros((5, 8), np.float32)))
    assert str(caught.value) == f"{tmp_path}/g.onnx: its engine takes no inputs of shape (5, 8)"


def test_the_scopes_are_timed_by_the_gpu(sessions, tmp_path):
    """The fake's clock counts calls: mark, in, mark, infer, mark, out, mark."""
    found = open_session(sessions, TEN, written(tmp_path), job())
    feed = found.session.prepare(np.zeros((2, 8), np.float32))
    assert found.session.time_scopes(feed) == {"device": 6, "compute": 2}
    assert found.gpu.calls[-1] == "wait"


def test_an_engine_is_kept_and_found_again(sessions, tmp_path):
    path, kept = written(tmp_path, 5), job(tmp_path)
    first, second = (open_session(sessions, TEN, path, kept) for _ in range(2))
    assert (len(first.trt.builds), len(second.trt.builds)) == (1, 0)
    assert second.session.build_ns is None
    assert second.session.note == "the engine was taken from the cache"
    x_BX = np.ones((4, 8), np.float32)
    np.testing.assert_allclose(
        second.session.run(second.session.prepare(x_BX))[0], logits(5, x_BX), rtol=1e-6
    )


def test_an_engine_belongs_to_all_that_it_depends_on(sessions, tmp_path):
    path = written(tmp_path)
    hardware, version = {"hardware_compatible": "1"}, {"version_compatible": "1"}
    for number, (release, changes, sm) in enumerate(
        [
            (TEN, {}, 89),
            (ELEVEN, {}, 89),
            (TEN, {}, 87),
            (TEN, {"batch_size": 1}, 89),
            (TEN, {"session_options": hardware}, 89),
            (TEN, {"session_options": version}, 89),
            (TEN, {"session_options": {**hardware, **version}}, 89),
            (TEN, {"runtime": "tensorrt-rtx"}, 89),
        ]
    ):
        for builds in (1, 0):
            found = open_session(sessions, release, path, job(tmp_path, **changes), sm=sm)
            assert len(found.trt.builds) == builds, (number, builds)
    (folder,) = (one for one in (tmp_path / "cache").iterdir() if one.is_dir())
    assert sorted(one.name for one in folder.iterdir()) == [
        "tensorrt-10.16.1-sm87-batch4.engine",
        "tensorrt-10.16.1-sm89-batch1.engine",
        "tensorrt-10.16.1-sm89-batch4-hardware_compatible-version_compatible.engine",
        "tensorrt-10.16.1-sm89-batch4-hardware_compatible.engine",
        "tensorrt-10.16.1-sm89-batch4-version_compatible.engine",
        "tensorrt-10.16.1-sm89-batch4.engine",
        "tensorrt-11.4.0-sm89-batch4.engine",
        "tensorrt-rtx-10.16.1-sm89-batch4.engine",
    ]


def test_graphs_of_other_weights_share_no_engine(sessions, tmp_path):
    for seed, name in ((1, "a.onnx"), (2, "b.onnx"), (1, "a.onnx")):
        found = open_session(sessions, TEN, written(tmp_path, seed, name), job(tmp_path)).session
        x_BX = np.ones((4, 8), np.float32)
        np.testing.assert_allclose(found.run(found.prepare(x_BX))[0], logits(seed, x_BX), rtol=1e-6)
    assert len([one for one in (tmp_path / "cache").iterdir() if one.is_dir()]) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_engine_is_built_anew(sessions, tmp_path, damage):
    path, kept = written(tmp_path), job(tmp_path)
    open_session(sessions, TEN, path, kept)
    (file,) = (tmp_path / "cache").rglob("*.engine")
    data = file.read_bytes()
    flipped = data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]  # a batch of 5, which the fake would take
    file.write_bytes({"cut": data[:-1], "flipped": flipped, "empty": b"", "foreign": data[48:]}[damage])
    assert len(open_session(sessions, TEN, path, kept).trt.builds) == 1
    assert file.read_bytes() == data
    assert len(open_session(sessions, TEN, path, kept).trt.builds) == 0


def test_an_engine_that_tensorrt_refuses_is_built_anew(engines, sessions, tmp_path):
    path, kept = written(tmp_path), job(tmp_path)
    open_session(sessions, TEN, path, kept)
    (file,) = (tmp_path / "cache").rglob("*.engine")
    engines.keep(str(file), b"whole, and of no use")
    assert len(open_session(sessions, TEN, path, kept).trt.builds) == 1


def test_timings_are_kept_for_the_next_graph(sessions, tmp_path):
    """The fake adds a letter to the timings with each build."""
    for seed, name in ((1, "a.onnx"), (2, "b.onnx")):
        found = open_session(sessions, TEN, written(tmp_path, seed, name), job(tmp_path))
    assert found.trt.builds[0].config.timings == b"tt"
    other = open_session(sessions, TEN, written(tmp_path, 3, "c.onnx"), job(tmp_path), sm=87)
    assert other.trt.builds[0].config.timings == b"t"


def test_compatible_engines(sessions, tmp_path):
    options = {"hardware_compatible": "1", "version_compatible": "1"}
    found = open_session(sessions, ELEVEN, written(tmp_path), job(session_options=options))
    assert found.trt.builds[0].config.hardware_compatibility_level == "ampere+"
    assert found.trt.builds[0].config.flags == ["version"]
    assert found.trt.host_code is True
    plain = open_session(
        sessions, ELEVEN, written(tmp_path), job(session_options={"hardware_compatible": "0"})
    )
    assert plain.trt.builds[0].config.hardware_compatibility_level is None
    assert plain.trt.host_code is False


@pytest.mark.parametrize(
    ("options", "drops", "problem"),
    [
        (
            {"b": "1", "a": "1"},
            (),
            "tensorrt knows the session options hardware_compatible, version_compatible, found a, b",
        ),
        ({"version_compatible": "yes"}, (), "the session option version_compatible is 0 or 1, found yes"),
        (
            {"hardware_compatible": "1"},
            ("HardwareCompatibilityLevel",),
            "tensorrt 10.16.1 makes no hardware_compatible engines",
        ),
        (
            {"version_compatible": "1"},
            ("BuilderFlag.VERSION_COMPATIBLE",),
            "tensorrt 10.16.1 makes no version_compatible engines",
        ),
    ],
)
def test_options_that_are_refused(sessions, refused, tmp_path, options, drops, problem):
    with pytest.raises(refused) as caught:
        open_session(sessions, TEN, written(tmp_path), job(session_options=options), drops=drops)
    assert str(caught.value) == problem


def test_files_that_cannot_be_loaded(sessions, refused, tmp_path):
    (tmp_path / "g.onnx").write_text("no graph")
    (tmp_path / "g.engine").write_text("no engine")
    for name, problem in (
        ("g.onnx", "tensorrt 10.16.1 cannot load this graph: no graph at all"),
        ("g.engine", "TensorRT 10.16.1 cannot load this engine; build it on this device"),
        ("h.onnx", "there is no such graph"),
    ):
        with pytest.raises(refused) as caught:
            open_session(sessions, TEN, str(tmp_path / name), job())
        assert str(caught.value) == f"{tmp_path}/{name}: {problem}"


def test_an_engine_file_is_loaded_as_it_is(sessions, tmp_path):
    (tmp_path / "g.engine").write_text('{"seed": 9, "most": 2}')
    found = open_session(sessions, TEN, str(tmp_path / "g.engine"), job(tmp_path))
    x_BX = np.ones((2, 8), np.float32)
    np.testing.assert_allclose(found.session.run(found.session.prepare(x_BX))[0], logits(9, x_BX), rtol=1e-6)
    assert (found.session.build_ns, found.session.note, found.trt.builds) == (None, None, [])
    assert not (tmp_path / "cache").exists()


def test_no_driver(kit_module, monkeypatch):
    cuda = kit_module("cuda")
    monkeypatch.setattr(cuda, "LIBRARY", "libno_such_driver.so.1")
    assert cuda.missing() == (
        "there is no NVIDIA driver here: libno_such_driver.so.1 cannot be loaded; "
        "try: a machine with an NVIDIA GPU"
    )


class TestTensorRtForRtx:
    """The real parser and ahead-of-time builder, which need no GPU."""

    @pytest.fixture(autouse=True)
    def trt(self) -> ModuleType:
        return pytest.importorskip("tensorrt_rtx")

    @pytest.fixture
    def graph(self, tmp_path: Path) -> str:
        text = """<ir_version: 8, opset_import: ["" : 17]>
            g (float[N,8] input) => (float[N,8] logits) { logits = Relu(input) }"""
        onnx.save(parser.parse_model(text), tmp_path / "g.onnx")
        return str(tmp_path / "g.onnx")

    @pytest.mark.parametrize("sm", [86, 120])
    def test_an_engine_is_built_for_a_gpu_that_is_not_here(self, engines, trt, graph, sm):
        logger = trt.Logger(trt.Logger.ERROR)
        plan = engines.build(trt, graph, job(runtime="tensorrt-rtx"), sm, logger)
        assert plan.nbytes > 1000

    def test_an_engine_is_kept_and_no_timings(self, engines, trt, graph, tmp_path):
        kept = job(tmp_path, runtime="tensorrt-rtx")
        (tmp_path / "cache").mkdir()
        plan = engines.build(trt, graph, kept, 86, trt.Logger(trt.Logger.ERROR))
        path = engines.engine_file(trt, graph, kept, 86)
        assert engines.read_kept(path) is None
        engines.keep(path, plan)
        assert engines.read_kept(path) == bytes(plan)
        assert Path(path).name == f"tensorrt-rtx-{trt.__version__}-sm86-batch4.engine"
        assert list((tmp_path / "cache").glob("*.timing")) == []

    def test_a_graph_that_cannot_be_parsed(self, engines, refused, trt, graph):
        Path(graph).write_bytes(b"no graph")
        with pytest.raises(
            refused, match=rf"{graph}: tensorrt-rtx {trt.__version__} cannot load this graph: \S"
        ):
            engines.build(trt, graph, job(runtime="tensorrt-rtx"), 86, trt.Logger(trt.Logger.INTERNAL_ERROR))


def test_a_tensor_that_tensorrt_wants_on_the_host_is_refused(sessions, refused, tmp_path, monkeypatch):
    found = open_session(sessions, TEN, written(tmp_path), job()).session
    host = SimpleNamespace(name="HOST")
    monkeypatch.setattr(found._engine, "get_tensor_location", lambda name: host)
    with pytest.raises(refused) as caught:
        found.run(found.prepare(np.zeros((2, 8), np.float32)))
    assert str(caught.value) == (
        f"{tmp_path}/g.onnx: input is a shape, or has one that its data tell: not measured"
    )
