"""How long it takes to calibrate ResNet-20 in every way, and to write both runtimes' graphs.

    python benchmarks/int8/ptq_seconds.py [OUT.json]

32x32x3, 512 random examples; from the network in memory to checked graphs on the disk, in a process that has
imported everything. Each step is timed once a round, three rounds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import torch

from edgekd.conversion.check_graph import check_graph, read_graph
from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.specs import load_spec, spec_of
from edgekd.conversion.to_onnx import export_int8
from edgekd.devices.local import LocalDevice
from edgekd.documents.common import InputSpec
from edgekd.documents.quantization import Calibrator
from edgekd.documents.spec import DEFAULT_DIALECT
from edgekd.networks.network import build_network
from edgekd.pipeline.provenance import versions
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare

SHAPE, CLASSES, EXAMPLES, BATCH, ROUNDS = (3, 32, 32), 100, 512, 128, 3
SPEC = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)


def one_round(folder: Path) -> dict[str, float]:
    """Seconds of each step."""
    torch.manual_seed(0)
    network = build_network("resnet20", in_channels=3, num_classes=CLASSES, input_shape=SHAPE, args={}).eval()
    x = torch.randn(EXAMPLES, *SHAPE)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - began
        return result

    quantized: QuantizedNetwork = timed("insert quantizers", lambda: prepare(network, x[:2]).eval())
    for calibrator in get_args(Calibrator):
        timed(f"calibrate, {calibrator}", partial(calibrate, quantized, x.split(BATCH), calibrator))
    quantized.set_fake_quantizing(True)
    path = folder / "canonical.onnx"
    opset = load_spec("tensorrt").opset
    timed("export", lambda: export_int8(quantized, SPEC, path, opset=opset))
    timed("write the dialects", lambda: write_dialects(onnx.load(path), folder))
    return {**seconds, "all": sum(seconds.values())}


def write_dialects(canonical: onnx.ModelProto, folder: Path) -> None:
    """The graph of each runtime, written and checked."""
    for dialect in DEFAULT_DIALECT.values():
        graph = folder / f"{dialect}.onnx"
        write_graph(to_dialect(canonical, dialect), graph)
        check_graph(read_graph(graph), spec_of(dialect), graph)


def main() -> None:
    """Time it, and print it."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = [one_round(Path(folder)) for _ in range(ROUNDS)]
    found = {name: [one[name] for one in rounds] for name in rounds[0]}
    for name, values in found.items():
        print(f"{name:22} {np.median(values):6.2f} s ({min(values):.2f} to {max(values):.2f})")
    if len(sys.argv) > 1:
        facts = LocalDevice().facts("onnxruntime").model_dump(mode="json")
        result = {"seconds": found, "facts": facts, "versions": versions().model_dump(mode="json")}
        Path(sys.argv[1]).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
