"""`run_graphs.py FOLDER`: run each NAME.onnx on NAME.x.npy with ONNX Runtime and write NAME.npy."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

for graph in sorted(Path(sys.argv[1]).glob("*.onnx")):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
    x = np.load(graph.with_suffix(".x.npy"))
    np.save(graph.with_suffix(".npy"), session.run(None, {session.get_inputs()[0].name: x})[0])
