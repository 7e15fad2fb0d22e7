"""What each of ONNX Runtime's execution providers is told: threads, precision and its own cache folder.

Keys and values are those of its documentation, one page a provider under "Execution Providers".
"""

import os
import sys

from runtimes import graphs

CPU = "CPUExecutionProvider"
OWN = "provider."
"""What session options for the provider begin with."""


def own_options(session_options):
    """Those session options that are the provider's, their whole names to their values."""
    return {key: value for key, value in session_options.items() if key.startswith(OWN)}


def chain(provider, job, path, offered):
    """The providers to ask in turn, with their options; the CPU provider takes what no other one does.

    With the session option `session.disable_cpu_ep_fallback = "1"` it is not asked, and ONNX Runtime refuses
    such a graph.
    """
    if provider == CPU:
        return [CPU]
    options = options_of(provider, job["threads"], _folder(provider, job, path), path)
    for key, value in own_options(job["session_options"]).items():
        options[key[len(OWN) :]] = value
    after = [name for name in _HELPERS.get(provider, ()) if name in offered]
    if job["session_options"].get("session.disable_cpu_ep_fallback") != "1":
        after.append(CPU)
    return [(provider, options), *after]


def options_of(provider, threads, folder, path):
    """Options of one provider; `folder` is its cache for this graph, or None."""
    make = _OPTIONS.get(provider)
    return make(threads, folder, path) if make else {}


def _tensorrt(threads, folder, path):
    # Its engines' names leave the weights out, so that no two graphs may share a folder.
    with open(path, "rb") as file:
        quantized = b"QuantizeLinear" in file.read()
    options = {"trt_int8_enable": "1"} if quantized else {}
    if folder:
        options.update(
            trt_engine_cache_enable="1",
            trt_engine_cache_path=folder,
            trt_timing_cache_enable="1",
            trt_timing_cache_path=folder,
        )
    return options


def _openvino(threads, folder, path):
    options = {"device_type": "CPU", "num_of_threads": str(threads), "num_streams": "1", "precision": "FP32"}
    return dict(options, cache_dir=folder) if folder else options


def _coreml(threads, folder, path):
    options = {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "0"}
    return dict(options, ModelCacheDirectory=folder) if folder else options


def _qnn(threads, folder, path):
    return {"backend_path": "QnnHtp.dll" if sys.platform == "win32" else "libQnnHtp.so"}


def _xnnpack(threads, folder, path):
    return {"intra_op_num_threads": str(threads)}


_OPTIONS = {
    "TensorrtExecutionProvider": _tensorrt,
    "OpenVINOExecutionProvider": _openvino,
    "CoreMLExecutionProvider": _coreml,
    "QNNExecutionProvider": _qnn,
    "XnnpackExecutionProvider": _xnnpack,
}
HINTS = {"QNNExecutionProvider": "; it takes no free axes, so try a graph with a fixed batch"}
"""What to add where a provider took no operator."""
_CACHING = ("TensorrtExecutionProvider", "OpenVINOExecutionProvider", "CoreMLExecutionProvider")
_HELPERS = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}


def _folder(provider, job, path):
    folder = graphs.cache_folder(job, path) if provider in _CACHING else None
    if folder is None:
        return None
    folder = os.path.join(folder, job["runtime"])
    os.makedirs(folder, exist_ok=True)
    return folder
