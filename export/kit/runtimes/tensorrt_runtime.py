"""TensorRT 10 and 11 on an NVIDIA GPU: an engine file is deserialized, an .onnx is built here first.

Written to the API that both majors share (tensors by name, execute_async_v3, strongly typed networks); it
is not run by edgekd's own tests, which have no GPU. CUDA is reached through the driver's libcuda alone, so
that the board needs no further package. `run` is host end to end: copy in, infer, copy out, synchronize.
"""

import ctypes
import time

import numpy as np
import tensorrt as trt

VERSION = trt.__version__


class _Cuda:
    """The few calls of the CUDA driver that inference needs, on the first visible GPU."""

    def __init__(self):
        self._library = ctypes.CDLL("libcuda.so.1")
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self.stream = stream.value

    def allocate(self, size_bytes):
        """Address of device memory; it lives as long as the process."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, size_bytes)))
        return address.value

    def copy_in(self, address, array):
        """Queue a copy of a contiguous array to the device."""
        host = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, *self._size_and_stream(array))

    def copy_out(self, array, address):
        """Queue a copy from the device into a contiguous array."""
        host = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), *self._size_and_stream(array))

    def synchronize(self):
        """Wait until the queue is empty."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def _size_and_stream(self, array):
        return ctypes.c_size_t(array.nbytes), ctypes.c_void_p(self.stream)

    def _call(self, name, *arguments):
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError("CUDA: %s: %s" % (name, (text.value or b"error %d" % code).decode()))


class Session:
    """A loaded engine. `run(feed)` is the one call that is timed; its first result is the logits."""

    def __init__(self, path, job):
        if job["session_options"]:
            found = ", ".join(sorted(job["session_options"]))
            raise ValueError("TensorRT has no session options, found %s" % found)
        self._cuda = _Cuda()
        self._logger = trt.Logger(trt.Logger.ERROR)
        plan, self.build_ns = self._plan(path, job["batch_size"])
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ValueError("%s: TensorRT %s cannot load it; build it on this device" % (path, VERSION))
        self._context = self._engine.create_execution_context()
        self._input, self._output = self._tensors()
        self._buffers = {}
        self._shape = None

    def prepare(self, x_BX):
        """What `run` takes for one batch; made outside of the timed region."""
        return np.ascontiguousarray(x_BX, dtype=trt.nptype(self._engine.get_tensor_dtype(self._input)))

    def run(self, x_BX):
        """Copy in, infer, copy out; returns [logits]."""
        if x_BX.shape != self._shape:
            self._bind(x_BX)
        self._cuda.copy_in(self._buffers[self._input], x_BX)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise RuntimeError("TensorRT: the inference could not be started")
        self._cuda.copy_out(self._logits, self._buffers[self._output])
        self._cuda.synchronize()
        return [self._logits]

    def _plan(self, path, batch_size):
        if not path.endswith(".onnx"):
            with open(path, "rb") as file:
                return file.read(), None
        start = time.perf_counter_ns()
        plan = _build(path, batch_size, self._logger)
        return plan, time.perf_counter_ns() - start

    def _tensors(self):
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or not outputs:
            raise ValueError("a graph with one input is expected, found %s" % (", ".join(inputs) or "none"))
        return inputs[0], outputs[0]

    def _bind(self, x_BX):
        """Tell the context this batch's shape and give every tensor memory of its size."""
        if not self._context.set_input_shape(self._input, x_BX.shape):
            raise ValueError("the engine does not take inputs of shape %s" % (x_BX.shape,))
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            dtype = trt.nptype(self._engine.get_tensor_dtype(name))
            array = np.empty(tuple(self._context.get_tensor_shape(name)), dtype=dtype)
            self._buffers[name] = self._cuda.allocate(array.nbytes)
            self._context.set_tensor_address(name, self._buffers[name])
            if name == self._output:
                self._logits = array
        self._shape = x_BX.shape


def _build(path, batch_size, logger):
    """Serialized engine of an ONNX graph, strongly typed: the Q/DQ nodes alone decide what runs in int8."""
    builder = trt.Builder(logger)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ValueError("%s: TensorRT cannot parse this graph: %s" % (path, "; ".join(found)))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            most = tuple(batch_size if size == -1 else size for size in shape)
            profile.set_shape(tensor.name, tuple(1 if size == -1 else size for size in shape), most, most)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError("%s: TensorRT cannot build an engine of this graph on this device" % path)
    return plan
