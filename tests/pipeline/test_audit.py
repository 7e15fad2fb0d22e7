"""The whole audit, measured: shares and a ratio, never seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.conversion.dialects import to_dialect
from edgekd.documents.audit import Audit
from edgekd.documents.recipe import Measuring
from edgekd.errors import MeasurementError, UsageError
from edgekd.pipeline import audit as pipeline
from edgekd.pipeline.audit import Request, audit
from tests.conversion.graphs import Writer, residual


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = Measuring(processes=2, warmup_s=0.01, max_warmup_s=0.05, min_time_s=0.02, min_samples=20)
    monkeypatch.setattr(pipeline, "MEASURING", measuring)
    monkeypatch.setattr("edgekd.runtimes.onnxruntime_worker.BUDGET_S", 0.1)


def written(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


def test_latency_and_profile_beside_the_same_graph_in_float(tmp_path: Path) -> None:
    found = audit(written(to_dialect(residual(), "onnxruntime-u8"), tmp_path))
    assert (found.int8_ops, found.weighted_ops) == (4, 4)
    assert found.speed is not None
    assert found.speed.interval.lower <= found.speed.ratio <= found.speed.interval.upper
    assert found.speed.interval.confidence == 0.95
    assert (found.speed.processes, found.speed.samples >= 40) == (2, True)
    assert found.profile is not None
    assert found.profile.float_kernels_us is not None
    assert all(one.time_us is not None and one.float_time_us is not None for one in found.operators)
    assert sum(cost.share for cost in found.costs) == pytest.approx(1)
    assert found.not_measured == ()
    assert found.notes == ("measured with made-up inputs: time seldom depends on their values",)
    assert Audit.parse(found.model_dump(mode="json", by_alias=True), where="here") == found


def test_nothing_is_run_when_cost_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "profile", None)
    monkeypatch.setattr(pipeline, "measure_latency", None)
    found = audit(written(residual(), tmp_path), Request(cost=False))
    assert (found.speed, found.profile, found.costs, found.not_measured) == (None, None, (), ())


def test_the_users_arrays_are_measured_with(tmp_path: Path) -> None:
    path = written(residual(), tmp_path)
    np.save(tmp_path / "x.npy", np.ones((3, 3, 12, 12), np.float32))
    found = audit(path, Request(inputs=tmp_path / "x.npy"))
    assert found.profile is not None
    assert found.notes == ()


def test_several_inputs_come_in_an_npz(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[N, S] x, float[N, S] z) => (float[N, S] y) { y = Add (x, z) }"""
    )
    path = written(model, tmp_path)
    assert audit(path).not_measured[0] == (
        "neither latency nor a profile: axes of its input 'x' are free: S; "
        "give arrays of a fixed shape with --inputs"
    )
    np.savez(tmp_path / "in.npz", x=np.ones((2, 5), np.float32), z=np.ones((1, 5), np.float32))
    found = audit(path, Request(inputs=tmp_path / "in.npz"))
    assert found.profile is not None
    assert found.not_measured == ("no latency against fp32: the graph is not quantized",)


def test_an_archive_of_objects_is_no_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"is no \.npy or \.npz of numbers"):
        audit(written(residual(), tmp_path), Request(inputs=tmp_path / "x.npy"))
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UsageError, match=r"is no \.npy or \.npz of numbers"):
        audit(written(residual(), tmp_path), Request(inputs=tmp_path / "x.npz"))


def test_a_graph_that_is_not_quantized_is_profiled_alone(tmp_path: Path) -> None:
    write = Writer()
    y = write.op("Relu", write.op("Conv", "input", write.float_weight(8, 3, 3, 3)))
    found = audit(written(write.graph(y, rank=4), tmp_path))
    assert found.speed is None
    assert found.profile is not None
    assert found.profile.float_kernels_us is None
    assert found.not_measured == ("no latency against fp32: the graph is not quantized",)


def test_a_failure_of_the_profiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MeasurementError("the profiler crashed (SIGSEGV)")

    monkeypatch.setattr(pipeline, "profile", fail)
    found = audit(written(residual(), tmp_path))
    assert found.not_measured == ("neither latency nor a profile: the profiler crashed (SIGSEGV)",)
    assert found.weighted_ops == 4


def test_a_failure_of_the_measurement_leaves_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MeasurementError("no result after 120 s")

    monkeypatch.setattr(pipeline, "measure_latency", fail)
    found = audit(written(residual(), tmp_path))
    assert found.profile is not None
    assert found.not_measured == ("no latency: no result after 120 s",)


def test_what_has_no_float_form_is_profiled_alone(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 4] x) => (float[N, 4] y) <float s = {0.1}, uint8 z = {0}, uint8 one = {1}>
        { q = QuantizeLinear (x, s, z) b = BitwiseOr (q, one) y = DequantizeLinear (b, s, z) }"""
    )
    found = audit(written(model, tmp_path))
    assert found.profile is not None
    assert found.not_measured == (
        "no latency against fp32: the graph cannot be written in float: "
        "QuantizeLinear 'QuantizeLinear of 'q'' has no float form: it computes with codes",
    )


def test_a_float_form_in_half_precision_is_told(tmp_path: Path) -> None:
    from tests.conversion.audit_cases import half

    found = audit(written(half(), tmp_path))
    assert found.notes[1] == (
        "its float form is in half precision, which ONNX Runtime computes in float32 between casts"
    )
