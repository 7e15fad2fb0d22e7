"""Times inside an inference of ONNX Runtime on a GPU: inputs and outputs are bound to its memory.

`device` is copy in, inference, copy out; `compute` is the inference alone. Both are read from the host's
clock, each step having waited for the GPU, so that starting the kernels is in them.
"""

import time

import onnxruntime

DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
"""Providers whose memory ONNX Runtime's Python can bind to, and its name for that memory."""


class Binding:
    """A session with its input and outputs in a device's memory."""

    def __init__(self, session, device):
        self._session, self._device = session, device
        self._binding, self._shapes = session.io_binding(), None

    def time_scopes(self, feed):
        """Nanoseconds of each scope, for a feed that `run` takes."""
        if {name: array.shape for name, array in feed.items()} != self._shapes:
            self._bind(feed)
            self._session.run_with_iobinding(self._binding)  # the first run of a shape makes room for it
        start = time.perf_counter_ns()
        for name, array in feed.items():
            self._values[name].update_inplace(array)
        copied = time.perf_counter_ns()
        self._session.run_with_iobinding(self._binding)
        ran = time.perf_counter_ns()
        self._binding.copy_outputs_to_cpu()
        return {"device": time.perf_counter_ns() - start, "compute": ran - copied}

    def _bind(self, feed):
        place = onnxruntime.OrtValue.ortvalue_from_numpy
        self._values = {name: place(array, self._device, 0) for name, array in feed.items()}
        for name, value in self._values.items():
            self._binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, self._device)
        self._shapes = {name: array.shape for name, array in feed.items()}
