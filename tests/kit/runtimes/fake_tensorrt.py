"""A TensorRT and a GPU of Python: enough to see what the adapter asks of them, and that its logits are right.

An engine is a JSON text; the "network" computes relu(x) W with the weights that tests/kit/runtimes/graphs.py
gives to the seed that the graph's file holds. Memory of the GPU is a dictionary, its clock counts calls.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np


class FakeGpu:
    """Stands in for the kit's cuda.Cuda."""

    stream = 11

    def __init__(self, sm: int = 89) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.calls: list[str] = []
        self._sm, self._times = sm, {}

    def sm(self) -> int:
        return self._sm

    def allocate(self, size_bytes: int) -> int:
        self.memory[len(self.memory) + 1] = np.zeros(size_bytes, np.uint8)
        return len(self.memory)

    def copy_in(self, address: int, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self.calls.append("in")
        self.memory[address][: array.nbytes] = array.view(np.uint8).ravel()

    def copy_out(self, array: np.ndarray, address: int) -> None:
        self.calls.append("out")
        array.view(np.uint8).ravel()[:] = self.memory[address][: array.nbytes]

    def synchronize(self) -> None:
        self.calls.append("wait")

    def event(self) -> int:
        self._times[len(self._times)] = None
        return len(self._times) - 1

    def mark(self, event: int) -> None:
        self.calls.append("mark")
        self._times[event] = len(self.calls)

    def between_ns(self, first: int, second: int) -> int:
        return self._times[second] - self._times[first]


def fake_tensorrt(gpu: FakeGpu, version: str, *, drops: tuple[str, ...] = ()) -> SimpleNamespace:
    """A module like tensorrt of `version`, without the names in `drops`; `builds` counts what was built."""
    trt = SimpleNamespace(
        __version__=version,
        builds=[],
        Logger=_Logger,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1),
        BuilderFlag=SimpleNamespace(VERSION_COMPATIBLE="version"),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere+"),
        OnnxParser=_Parser,
        nptype=lambda dtype: dtype,
    )
    trt.Builder = lambda logger: _Builder(trt)
    trt.Runtime = lambda logger: _Runtime(trt, gpu)
    for name in drops:
        owner, _, last = name.rpartition(".")
        delattr(getattr(trt, owner) if owner else trt, last)
    return trt


class _Logger:
    ERROR = "error"

    def __init__(self, severity: str) -> None:
        assert severity == "error"


class _Parser:
    num_errors = 1

    def __init__(self, network: SimpleNamespace, logger: _Logger) -> None:
        self._network = network

    def parse_from_file(self, path: str) -> bool:
        text = Path(path).read_text(errors="replace")
        if not text.isdigit():
            return False
        self._network.seed = int(text)
        return True

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: "no graph\nat all")


class _Builder:
    def __init__(self, trt: SimpleNamespace) -> None:
        self._trt = trt

    def create_network(self, flags: int) -> SimpleNamespace:
        tensor = SimpleNamespace(name="input", shape=(-1, 8))
        return SimpleNamespace(flags=flags, num_inputs=1, get_input=lambda index: tensor)

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> SimpleNamespace:
        profile = SimpleNamespace(shapes={})
        profile.set_shape = lambda name, *shapes: profile.shapes.update({name: shapes})
        return profile

    def build_serialized_network(self, network: SimpleNamespace, config: _Config) -> bytes:
        self._trt.builds.append(SimpleNamespace(network=network, config=config))
        most = config.profiles[0].shapes["input"][2][0]
        config.timings += b"t"
        return json.dumps({"seed": network.seed, "most": most}).encode()


class _Config:
    hardware_compatibility_level = None

    def __init__(self) -> None:
        self.profiles: list[SimpleNamespace] = []
        self.flags: list[str] = []
        self.timings = b""

    def add_optimization_profile(self, profile: SimpleNamespace) -> int:
        self.profiles.append(profile)
        return 0

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def create_timing_cache(self, data: bytes) -> SimpleNamespace:
        return SimpleNamespace(data=data)

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timings = bytes(cache.data)
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.timings)


class _Runtime:
    engine_host_code_allowed = False

    def __init__(self, trt: SimpleNamespace, gpu: FakeGpu) -> None:
        self._trt, self._gpu = trt, gpu

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        try:
            found = json.loads(bytes(plan))
        except ValueError:
            return None
        self._trt.host_code = self.engine_host_code_allowed
        return _Engine(found, self._gpu)


class _Engine:
    num_io_tensors = 2

    def __init__(self, plan: dict, gpu: FakeGpu) -> None:
        self.plan, self.gpu = plan, gpu

    def get_tensor_name(self, index: int) -> str:
        return ("input", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "input" else "out"

    def get_tensor_location(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="DEVICE")

    def get_tensor_dtype(self, name: str) -> type:
        return np.float32

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return (-1, 8) if name == "input" else (-1, 3)

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine, self._addresses, self._batch = engine, {}, 0
        self._weights = np.random.default_rng(engine.plan["seed"]).normal(size=(8, 3)).astype(np.float32)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._batch = shape[0]
        return self._batch <= self._engine.plan["most"]

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return (self._batch, 8 if name == "input" else 3)

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self._engine.gpu
        assert stream == gpu.stream
        gpu.calls.append("infer")
        x_BX = gpu.memory[self._addresses["input"]].view(np.float32).reshape(self._batch, 8)
        logits = np.maximum(x_BX, 0) @ self._weights
        gpu.memory[self._addresses["logits"]][: logits.nbytes] = logits.view(np.uint8).ravel()
        return True
