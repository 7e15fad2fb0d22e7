"""What every runtime of the kit keeps to, by its name, through the real program.

A runtime that is not on this machine is skipped, with what is missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekd.devices.local import LocalDevice
from edgekd.documents.job import Job, JobGraph
from edgekd.documents.run_log import RunLog
from edgekd.documents.runtime import RUNTIME_PATTERN
from edgekd.errors import MeasurementError, MissingError
from edgekd.shipped import shipped
from tests.conversion.graphs import inputs as image_inputs
from tests.conversion.graphs import residual
from tests.kit.runtimes import graphs

KIT = shipped("export", "kit")
PROVIDERS = (
    *("cuda", "tensorrt", "openvino", "xnnpack", "qnn", "dml", "coreml", "acl", "dnnl", "migraphx"),
    *("webgpu", "vitisai"),
)
RUNTIMES = (
    "onnxruntime",
    *(f"onnxruntime-{name}" for name in PROVIDERS),
    *("tensorrt", "tensorrt-rtx", "openvino", "reference", "null"),
)
"""All but torch-tensorrt, which runs no ONNX graph; see test_torch_tensorrt.py."""
CACHES = {
    *("tensorrt", "tensorrt-rtx", "openvino"),
    *("onnxruntime-tensorrt", "onnxruntime-openvino", "onnxruntime-coreml"),
}
"""Runtimes that keep what they build."""
NO_FREE_AXES = {"onnxruntime-qnn"}
INT8_DIFFERENCE = {"onnxruntime-qnn": 0.1}
"""Mean difference of an int8 graph's logits, in their standard deviations; 0.02 for all others. QNN quantizes
biases and the output itself: its emulation on x86 differs by 0.055."""
LIMIT_S = 120.0


@functools.cache
def what_is_missing(name: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        graphs.dense(Path(folder) / "g.onnx", batch=1)
        graphs.inputs(Path(folder) / "x.npy")
        try:
            run(name, Path(folder))
        except MissingError as error:
            return error.message
    return None


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"runtime {name}")) for name in RUNTIMES]
)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime that is here."""
    missing = what_is_missing(request.param)
    if missing:
        pytest.skip(missing)
    return request.param


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are kept in the test's folder, wherever the device at hand keeps them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def run(runtime: str, folder: Path, mode: str = "cold", graph: str = "g.onnx", **changes: object) -> RunLog:
    """One job on `folder`'s graph and its x.npy; the modes with outputs write o.npy."""
    job = {
        "schema": 1,
        "mode": mode,
        "runtime": runtime,
        "graphs": [JobGraph(name="g", path=str(folder / graph)).model_dump()],
        "inputs": str(folder / "x.npy"),
        "outputs": str(folder / "o.npy"),
        "warmup_s": 0.0,
        "max_warmup_s": 0.05,
        "min_time_s": 0.0,
        "min_samples": 20,
        "scope_samples": 3,
        **changes,
    }
    return LocalDevice().run(Job.parse(job, where="test"), timeout_s=LIMIT_S)


def batch(runtime: str, size: int) -> int | str:
    """The graph's axis of the batch: free, where the runtime can."""
    return size if runtime in NO_FREE_AXES else "batch"


def refusal(runtime: str, folder: Path, **changes: object) -> str:
    """Why the kit refuses a job."""
    with pytest.raises(MeasurementError) as caught:
        run(runtime, folder, **changes)
    return caught.value.message


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("free", [True, False], ids=["free batch", "fixed batch"])
def test_the_logits_are_the_graphs(runtime: str, tmp_path: Path, batch_size: int, free: bool) -> None:
    weights = graphs.dense(tmp_path / "g.onnx", batch="batch" if free else batch_size)
    x_NX = graphs.inputs(tmp_path / "x.npy", count=10 if free else 9)  # ten: the last batch of 3 is smaller
    if free and runtime in NO_FREE_AXES:
        assert refusal(runtime, tmp_path).endswith("it takes no free axes, so try a graph with a fixed batch")
        return
    run(runtime, tmp_path, "outputs", batch_size=batch_size)
    logits_NK = np.load(tmp_path / "o.npy")
    if runtime == "null":
        np.testing.assert_array_equal(logits_NK, np.zeros((len(x_NX), 1), np.float32))
        return
    assert logits_NK.dtype == np.float32
    np.testing.assert_allclose(logits_NK, np.maximum(x_NX, 0) @ weights, rtol=1e-3, atol=1e-3)


def test_an_int8_graph(runtime: str, tmp_path: Path) -> None:
    """In the form for TensorRT, which every runtime computes: signed codes, zero point 0."""
    model = residual()
    for info in (model.graph.input[0], model.graph.output[0]) if runtime in NO_FREE_AXES else ():
        info.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "g.onnx")
    np.save(tmp_path / "x.npy", image_inputs(model, 16))
    logits_NK = {}
    for name in (runtime, "reference"):
        run(name, tmp_path, "outputs", batch_size=4)
        logits_NK[name] = np.load(tmp_path / "o.npy")
    if runtime != "null":
        difference = np.abs(logits_NK[runtime] - logits_NK["reference"]).mean()
        assert difference < INT8_DIFFERENCE.get(runtime, 0.02) * logits_NK["reference"].std()


def test_latency(runtime: str, tmp_path: Path) -> None:
    graphs.dense(tmp_path / "g.onnx", batch=batch(runtime, 3))
    graphs.inputs(tmp_path / "x.npy")
    log = run(runtime, tmp_path, "latency", batch_size=3, threads=2)
    (found,) = log.graphs
    assert len(found.latency_ns) >= 20
    assert min(found.latency_ns) > 0
    assert found.build_ns is None or found.build_ns > 0
    assert set(found.scope_ns) in (set(), {"device", "compute"})
    for compute, device in zip(
        found.scope_ns.get("compute", ()), found.scope_ns.get("device", ()), strict=True
    ):
        assert 0 < compute <= device
    assert runtime == "null" or runtime in log.facts.versions


def test_a_missing_graph(runtime: str, tmp_path: Path) -> None:
    graphs.inputs(tmp_path / "x.npy")
    assert refusal(runtime, tmp_path) == f"{tmp_path}/g.onnx: there is no such graph"


def test_an_unreadable_graph(runtime: str, tmp_path: Path) -> None:
    graphs.inputs(tmp_path / "x.npy")
    (tmp_path / "g.onnx").write_bytes(b"\x08\x07no graph at all")
    if runtime == "null":
        run(runtime, tmp_path)
        return
    words = r"\S+ \S+ cannot load this graph( on \w+)?: \S.*"
    assert re.fullmatch(re.escape(f"{tmp_path}/g.onnx: ") + words, refusal(runtime, tmp_path))


def test_two_inputs(runtime: str, tmp_path: Path) -> None:
    graphs.two_inputs(tmp_path / "g.onnx", batch(runtime, 1))
    graphs.inputs(tmp_path / "x.npy")
    if runtime != "null":
        wanted = f"{tmp_path}/g.onnx: a graph with one input is expected, found a, b"
        assert refusal(runtime, tmp_path) == wanted


def test_two_inputs_by_name(runtime: str, tmp_path: Path) -> None:
    """A .npz has an array for each input, feeds first: those of the wrong names are refused."""
    graphs.two_inputs(tmp_path / "g.onnx", batch(runtime, 3))
    a, b = np.random.default_rng(0).normal(size=(2, 4, 3, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", b=b, a=a)
    log = run(runtime, tmp_path, "latency", inputs=str(tmp_path / "x.npz"))
    assert len(log.graphs[0].latency_ns) >= 20
    np.savez(tmp_path / "y.npz", a=a, c=b)
    if runtime != "null":
        found = refusal(runtime, tmp_path, inputs=str(tmp_path / "y.npz"))
        assert found == f"{tmp_path}/g.onnx: takes the inputs a, b, found a, c"


@pytest.mark.parametrize(("size", "wanted"), [("batch", "any, 8"), (2, "2, 8")])
def test_inputs_of_another_shape(runtime: str, tmp_path: Path, size: int | str, wanted: str) -> None:
    graphs.dense(tmp_path / "g.onnx", batch=size)
    np.save(tmp_path / "x.npy", np.zeros((4, 7), np.float32))
    if runtime != "null" and not (size == "batch" and runtime in NO_FREE_AXES):
        found = refusal(runtime, tmp_path, batch_size=2)
        assert found == f"{tmp_path}/g.onnx: takes inputs of shape ({wanted}), found (2, 7)"


def test_session_options_that_it_does_not_have(runtime: str, tmp_path: Path) -> None:
    if runtime.startswith("onnxruntime"):
        return  # takes any entry, of which it reads those that it knows
    graphs.dense(tmp_path / "g.onnx")
    graphs.inputs(tmp_path / "x.npy")
    found = refusal(runtime, tmp_path, session_options={"no_such": "1", "nor_such": "1"})
    if runtime == "openvino":
        assert found.startswith(f"{tmp_path}/g.onnx: OpenVINO {version('openvino')} cannot load this graph: ")
        assert "no_such" in found
    elif runtime.startswith("tensorrt"):
        known = "hardware_compatible, version_compatible"
        assert found == f"{runtime} knows the session options {known}, found no_such, nor_such"
    else:
        assert found == f"{runtime} has no session options, found no_such, nor_such"


def test_the_cache_has_one_folder_a_content(runtime: str, tmp_path: Path) -> None:
    """Graphs that differ in nothing but their weights share no engine, and each finds its own again."""
    x_NX = graphs.inputs(tmp_path / "x.npy")
    size = batch(runtime, 3)
    weights = {
        name: graphs.dense(tmp_path / name, seed, size) for seed, name in enumerate(("a.onnx", "b.onnx"))
    }
    for name in ("a.onnx", "b.onnx", "a.onnx"):
        log = run(runtime, tmp_path, "outputs", graph=name, batch_size=3, cache=str(tmp_path / "cache"))
        if runtime != "null":
            wanted = np.maximum(x_NX, 0) @ weights[name]
            np.testing.assert_allclose(np.load(tmp_path / "o.npy"), wanted, rtol=1e-3, atol=1e-3)
    folders = {path.name: path for path in tmp_path.rglob("*") if re.fullmatch("[0-9a-f]{64}", path.name)}
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in weights}
    assert set(folders) == (digests if runtime in CACHES else set())
    assert all(any(path.rglob("*.*")) for path in folders.values())
    if not runtime.startswith("onnxruntime") and folders:
        assert "taken from the cache" in (log.graphs[0].note or "")


def test_nothing_is_reported_over_the_network(runtime: str) -> None:
    """ONNX Runtime is told so before it is imported; of the others, none brings a module that would."""
    program = f"""
        import os, sys
        sys.path.insert(0, {str(KIT)!r})
        import importlib, runtimes
        importlib.import_module("runtimes." + runtimes.by_name(runtimes.ADAPTERS, {runtime!r}))
        found = [name for name in sys.modules if "telemetry" in name.split(".")[0] and sys.modules[name]]
        print(found, "onnxruntime" in sys.modules, os.environ.get("ORT_DISABLE_TELEMETRY"))
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    done = subprocess.run(
        [sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=True
    )
    imported = runtime.startswith("onnxruntime")
    assert done.stdout.split("\n")[-2] == f"[] {imported} {'1' if imported else None}"


def test_every_name_is_told_of() -> None:
    """Whatever the kit has is in this suite, and is a name that documents take."""
    program = f"import sys; sys.path.insert(0, {str(KIT)!r}); import runtimes; print(*runtimes.ADAPTERS)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {*RUNTIMES, "torch-tensorrt"} - {
        f"onnxruntime-{one}" for one in PROVIDERS
    }
    assert [name for name in RUNTIMES if not re.search(RUNTIME_PATTERN, name)] == []


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-nosuch", "onnxruntime-azure"])
def test_a_provider_that_is_not_here(name: str, tmp_path: Path) -> None:
    offered = ", ".join(onnxruntime.get_available_providers())
    if f"{name.partition('-')[2]}executionprovider" in offered.lower() and name != "onnxruntime-azure":
        pytest.skip(f"{name} is here")
    graphs.dense(tmp_path / "g.onnx")
    graphs.inputs(tmp_path / "x.npy")
    with pytest.raises(MissingError) as caught:
        run(name, tmp_path)
    found = f"onnxruntime {onnxruntime.__version__}"
    what = {
        "onnxruntime-cuda": f"{found} has no provider called cuda, it offers {offered}; "
        "try: pip install onnxruntime-gpu numpy",
        "onnxruntime-nosuch": f"{found} has no provider called nosuch, it offers {offered}; "
        "try: pip install onnxruntime numpy",
        "onnxruntime-azure": "its provider asks a service for the answer, so no device is measured; "
        "try: onnxruntime",
    }
    assert caught.value.message == f"{name}: {what[name]}"
