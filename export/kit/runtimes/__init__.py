"""One file a runtime, each with `VERSION` and `Session`; importing a file imports its runtime.

This file imports none of them: it says which file a runtime's name means, and how to install it.
"""

ADAPTERS = {
    "onnxruntime": "onnxruntime_runtime",
    "tensorrt": "tensorrt_runtime",
}
"""Name, or the part before the dash, to the file."""
INSTALL = {
    "onnxruntime": "pip install onnxruntime numpy",
    "tensorrt": "pip install tensorrt numpy; on a Jetson, apt install python3-libnvinfer",
}
"""How to install a runtime."""
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
}
"""Packages that hold a runtime; the first one that is installed tells its version."""


def by_name(table, runtime):
    """What a table says of a runtime, or of its family: `onnxruntime` for `onnxruntime-cuda`."""
    return table.get(runtime, table.get(runtime.partition("-")[0]))
