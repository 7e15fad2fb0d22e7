"""One file a runtime; importing a file imports its runtime. This file imports none of them.

It says which file a runtime's name means, and how to install it. Each of those files has

    VERSION                 the runtime's version
    Session(path, job)      a loaded graph; `job` as edgekd writes it. What it refuses is a RefusedError
    missing(runtime)        optional: what is missing on this device and what to try, or None

and each session has

    prepare(feed)           what `run` takes for one batch: an array, or arrays by name; not timed
    run(prepared)           the one call that is timed; a list whose first item is the logits, as numpy
    build_ns                nanoseconds spent building an engine, or None
    time_scopes(prepared)   optional: {"device": ns, "compute": ns}, copies and inference of the accelerator,
                            and the inference alone
    note                    optional: what was done otherwise than one might expect, or None
"""

ADAPTERS = {
    "onnxruntime": "onnxruntime_runtime",
    "tensorrt": "tensorrt_runtime",
    "tensorrt-rtx": "tensorrt_rtx_runtime",
    "torch-tensorrt": "torch_tensorrt_runtime",
    "openvino": "openvino_runtime",
    "reference": "reference_runtime",
    "null": "null_runtime",
}
"""Name, or the part before the dash, to the file."""
INSTALL = {
    "onnxruntime": "pip install onnxruntime numpy",
    "onnxruntime-cuda": "pip install onnxruntime-gpu numpy",
    "onnxruntime-tensorrt": "pip install onnxruntime-gpu tensorrt numpy",
    "onnxruntime-openvino": "pip install onnxruntime-openvino numpy",
    "onnxruntime-qnn": "pip install onnxruntime onnxruntime-qnn numpy",
    "onnxruntime-dml": "pip install onnxruntime-directml numpy, on Windows",
    "onnxruntime-migraphx": "pip install onnxruntime-migraphx numpy",
    "onnxruntime-coreml": "pip install onnxruntime numpy, on macOS",
    "onnxruntime-webgpu": "pip install onnxruntime-webgpu numpy",
    "onnxruntime-xnnpack": "build onnxruntime with --use_xnnpack: no published wheel has it",
    "onnxruntime-acl": "build onnxruntime with --use_acl: no published wheel has it",
    "onnxruntime-dnnl": "build onnxruntime with --use_dnnl: no published wheel has it",
    "tensorrt": "pip install tensorrt numpy; on a Jetson, apt install python3-libnvinfer",
    "tensorrt-rtx": "pip install tensorrt-rtx numpy",
    "torch-tensorrt": "pip install torch-tensorrt numpy",
    "openvino": "pip install openvino numpy",
    "reference": "pip install onnx numpy",
    "null": "pip install numpy",
}
"""How to install a runtime."""
DISTRIBUTIONS = {
    "onnxruntime": (
        *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-webgpu"),
        *("onnxruntime-directml", "onnxruntime-migraphx"),
    ),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx",),
    "torch-tensorrt": ("torch-tensorrt",),
    "openvino": ("openvino",),
    "reference": ("onnx",),
}
"""Packages that hold a runtime; the first one that is installed tells its version."""


class RefusedError(Exception):
    """A runtime cannot do what the job asks; the message is for people and names the graph."""


def by_name(table, runtime):
    """What a table says of a runtime, or of its family: `onnxruntime` for `onnxruntime-cuda`."""
    return table.get(runtime, table.get(runtime.partition("-")[0]))
