"""What runs a candidate in earnest: ONNX Runtime with all its optimizations, TensorRT through the kit."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import onnx

from edgekd.conversion.dialects import write_graph
from edgekd.conversion.divergence.probe import fixed_batch
from edgekd.conversion.divergence.question import Runtime
from edgekd.devices.local import LocalDevice
from edgekd.measure.accuracy import measure_outputs
from edgekd.pipeline.prove import save_array
from edgekd.runtimes.onnxruntime import open_session, run_batches, version

_BATCH = 64
ONNXRUNTIME = "onnxruntime, optimized"
TENSORRT = "tensorrt"


def onnxruntime() -> Runtime:
    """ONNX Runtime's CPU provider with every rewrite on."""
    return Runtime(ONNXRUNTIME, _optimized)


def tensorrt() -> Runtime | None:
    """TensorRT on the GPU at hand; None where there is none of either."""
    if importlib.util.find_spec("tensorrt") is None or not LocalDevice().facts("tensorrt").gpus:
        return None
    return Runtime(TENSORRT, _by_the_kit)


def about() -> str:
    """What runs the graphs that are probed."""
    return f"onnxruntime {version()}"


def _optimized(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return run_batches(open_session(model), x, fixed_batch(model) or _BATCH)


def _by_the_kit(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="edgekd-debug-") as folder:
        graph, inputs = Path(folder) / "model.onnx", Path(folder) / "inputs.npy"
        write_graph(model, graph)
        save_array(inputs, x)
        return measure_outputs(LocalDevice(), graph, inputs, runtime="tensorrt", threads=1)
