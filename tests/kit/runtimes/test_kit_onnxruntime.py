"""ONNX Runtime's adapter where this machine has no such provider: what it asks for and makes of it."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from tests.kit.runtimes import graphs as small


@pytest.fixture
def adapter(kit_module, monkeypatch):
    module = kit_module("onnxruntime_runtime")
    offered = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "XnnpackExecutionProvider"]
    offered += ["OpenVINOExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*offered, "CPUExecutionProvider"])
    return module


@pytest.fixture
def path(tmp_path):
    small.dense(tmp_path / "g.onnx")
    return str(tmp_path / "g.onnx")


@pytest.fixture
def asked(monkeypatch):
    """What the last session was asked for; sessions are real ones, on the CPU provider."""
    seen, real = SimpleNamespace(ran_on=None, parts=None), onnxruntime.InferenceSession

    class Session(real):
        def __init__(self, path, options, providers, **more):
            seen.options, seen.providers, seen.more = options, providers, more
            super().__init__(path, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return seen.ran_on or [one[0] if isinstance(one, tuple) else one for one in seen.providers]

        def get_provider_graph_assignment_info(self):
            parts = seen.parts or {self.get_providers()[0]: ["Relu", "MatMul"]}
            return [
                SimpleNamespace(
                    ep_name=name,
                    get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=one) for one in kinds],
                )
                for name, kinds in parts.items()
            ]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return seen


def job(runtime="onnxruntime", **changes):
    return {"runtime": runtime, "threads": 3, "session_options": {}, "cache": None, **changes}


def entry(options, key):
    try:
        return options.get_session_config_entry(key)
    except Exception:
        return None


def test_the_cpu_provider(adapter, asked, path):
    session = adapter.Session(path, job())
    assert asked.providers == ["CPUExecutionProvider"]
    assert asked.more == {"enable_fallback": 0}
    assert (asked.options.intra_op_num_threads, asked.options.inter_op_num_threads) == (3, 1)
    assert entry(asked.options, "session.intra_op.allow_spinning") is None
    assert session.note is None
    assert not hasattr(session, "time_scopes")


def test_xnnpack_has_the_threads(adapter, asked, path):
    adapter.Session(path, job("onnxruntime-xnnpack"))
    own = ("XnnpackExecutionProvider", {"intra_op_num_threads": "3"})
    assert asked.providers == [own, "CPUExecutionProvider"]
    assert asked.options.intra_op_num_threads == 1
    assert entry(asked.options, "session.intra_op.allow_spinning") == "0"


def test_tensorrt_keeps_engines_and_timings_by_content(adapter, asked, path, tmp_path, kit_module):
    adapter.Session(path, job("onnxruntime-tensorrt", cache=str(tmp_path / "cache")))
    folder = f"{tmp_path}/cache/{kit_module('graphs').sha256(path)}/onnxruntime-tensorrt"
    own = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }
    after = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert asked.providers == [("TensorrtExecutionProvider", own), *after]
    assert list((tmp_path / "cache").glob("*/*")) == [
        tmp_path / "cache" / folder.split("/")[-2] / "onnxruntime-tensorrt"
    ]


def test_tensorrt_computes_quantized_graphs_in_int8(adapter, asked, path):
    with open(path, "ab") as file:  # an unknown field of the message: `QuantizeLinear`
        file.write(b"\xa2\x06\x0eQuantizeLinear")
    adapter.Session(path, job("onnxruntime-tensorrt"))
    assert asked.providers[0] == ("TensorrtExecutionProvider", {"trt_int8_enable": "1"})


def test_options_for_the_provider(adapter, asked, path):
    options = {"provider.device_type": "GPU", "session.disable_cpu_ep_fallback": "1"}
    adapter.Session(path, job("onnxruntime-openvino", session_options=options))
    ((name, own),) = asked.providers  # without the CPU provider, which the second option forbids
    assert name == "OpenVINOExecutionProvider"
    assert (own["device_type"], own["num_of_threads"]) == ("GPU", "3")
    assert entry(asked.options, "session.disable_cpu_ep_fallback") == "1"
    assert entry(asked.options, "provider.device_type") is None


def test_directml_has_no_memory_patterns(adapter, asked, path):
    adapter.Session(path, job("onnxruntime-dml"))
    assert asked.options.enable_mem_pattern is False


def test_a_provider_that_did_not_load(adapter, asked, path, kit_module):
    asked.ran_on = ["CPUExecutionProvider"]
    with pytest.raises(kit_module("graphs").RefusedError) as caught:
        adapter.Session(path, job("onnxruntime-cuda"))
    assert str(caught.value) == (
        f"{path}: CUDAExecutionProvider did not load; onnxruntime took CPUExecutionProvider instead"
    )


def test_operators_that_fell_back(adapter, asked, path):
    asked.parts = {"CoreMLExecutionProvider": ["MatMul"], "CPUExecutionProvider": ["Relu", "Relu"]}
    note = adapter.Session(path, job("onnxruntime-coreml")).note
    assert note == "2 of 3 operators fell back: Relu on CPUExecutionProvider"


def test_a_provider_that_takes_nothing(adapter, asked, path, kit_module):
    asked.parts = {"CPUExecutionProvider": ["Relu", "MatMul"]}
    with pytest.raises(kit_module("graphs").RefusedError) as caught:
        adapter.Session(path, job("onnxruntime-xnnpack"))
    assert str(caught.value) == f"{path}: XnnpackExecutionProvider took none of the 2 operators of this graph"


def test_an_onnxruntime_that_does_not_tell(adapter, asked, path):
    asked.parts = {"XnnpackExecutionProvider": []}
    note = adapter.Session(path, job("onnxruntime-xnnpack")).note
    assert note == (
        f"onnxruntime {onnxruntime.__version__} does not tell which operators run on XnnpackExecutionProvider"
    )


def test_scopes_with_inputs_and_outputs_bound(kit_module, path):
    """On the processor's memory, the same calls as on a GPU's."""
    binding = kit_module("onnxruntime_binding")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = binding.Binding(session, "cpu")
    for size in (3, 3, 1):
        scopes = found.time_scopes({"input": np.ones((size, 8), np.float32)})
        assert set(scopes) == {"device", "compute"}
        assert 0 < scopes["compute"] <= scopes["device"]


def test_the_name_of_a_provider(adapter):
    assert adapter.provider_of("onnxruntime") == "CPUExecutionProvider"
    assert adapter.provider_of("onnxruntime-tensorrt") == "TensorrtExecutionProvider"
    assert adapter.provider_of("onnxruntime-nosuch") is None


def test_every_provider_of_onnxruntime_has_such_a_name(kit_module):
    """Its names end alike, and the rest is unique whatever the case: the rule needs no table."""
    names = onnxruntime.get_all_providers()
    assert [name for name in names if not name.endswith("ExecutionProvider")] == []
    short = {name.lower().removesuffix("executionprovider") for name in names}
    assert len(short) == len(names)
    from tests.kit.runtimes.test_contract import PROVIDERS

    assert set(PROVIDERS) <= short


def test_a_plugin_is_asked_for_by_its_devices(kit_module, monkeypatch):
    plugins = kit_module("onnxruntime_plugins")
    registered = []
    plugin = SimpleNamespace(
        get_ep_name=lambda: "FooExecutionProvider", get_library_path=lambda: "/libfoo.so"
    )
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime_ep_foo", plugin)
    monkeypatch.setattr(
        onnxruntime, "register_execution_provider_library", lambda *two: registered.append(two)
    )
    for _ in range(2):
        plugins.register("foo")
    plugins.register("bar")
    assert registered == [("FooExecutionProvider", "/libfoo.so")]
    assert plugins.is_plugin("FooExecutionProvider")
    assert not plugins.is_plugin("CPUExecutionProvider")
