"""A session of TensorRT 10, TensorRT 11 or TensorRT for RTX: the module `trt` is given, the code is one.

It keeps to the names that all of them have (tensors by name, execute_async_v3); edgekd's tests hold every
name against the published bindings of both majors. The measuring mode is the same whatever the tools of a
major do by default (trtexec 11 leaves the copies out, uses a CUDA graph and spins; 10 does none of that): one
stream, pageable host memory, copy in, infer, copy out, one wait; no CUDA graph, no spinning of ours.

`run` is host end to end. `time_scopes` reads CUDA events around the same steps.
"""

import numpy as np

from runtimes import RefusedError, cuda, graphs, tensorrt_engine


class Session:
    """A loaded engine. `run(feed)` is the one call that is timed; its first result is the logits."""

    note = None

    def __init__(self, trt, path, job, gpu=None):
        graphs.check_file(path)
        graphs.no_session_options(job, tensorrt_engine.OPTIONS)
        self._trt, self._path = trt, path
        self._cuda = gpu or cuda.Cuda()
        self._engine, self.build_ns = tensorrt_engine.open_engine(trt, path, job, self._cuda.sm())
        if path.endswith(".onnx") and self.build_ns is None:
            self.note = "the engine was taken from the cache"
        self._context = self._engine.create_execution_context()
        self._inputs, self._output = self._tensors()
        self._buffers, self._shapes, self._logits = {}, None, None
        self._events = [self._cuda.event() for _ in range(4)]

    def prepare(self, feed):
        """What `run` takes for one batch, shapes and arrays by name; made outside of the timed region."""
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in self._inputs}
        feed = graphs.named(self._path, shapes, feed)
        arrays = {name: np.array(feed[name], dtype=self._dtype(name), order="C") for name in shapes}
        return {name: arrays[name].shape for name in shapes}, arrays

    def run(self, prepared):
        """Copy in, infer, copy out; returns [logits], an array that the next run writes over."""
        shapes, arrays = prepared
        if shapes != self._shapes:
            self._bind(shapes)
        self._copy_in(arrays)
        self._infer()
        self._cuda.copy_out(self._logits, self._buffers[self._output])
        self._cuda.synchronize()
        return [self._logits]

    def time_scopes(self, prepared):
        """Nanoseconds on the GPU's clock: `device` from before the copy in to after the copy out."""
        shapes, arrays = prepared
        if shapes != self._shapes:
            self._bind(shapes)
        begin, copied, ran, end = self._events
        self._cuda.mark(begin)
        self._copy_in(arrays)
        self._cuda.mark(copied)
        self._infer()
        self._cuda.mark(ran)
        self._cuda.copy_out(self._logits, self._buffers[self._output])
        self._cuda.mark(end)
        self._cuda.synchronize()
        between = self._cuda.between_ns
        return {"device": between(begin, end), "compute": between(copied, ran)}

    def _copy_in(self, arrays):
        for name, array in arrays.items():
            self._cuda.copy_in(self._buffers[name], array)

    def _infer(self):
        if not self._context.execute_async_v3(self._cuda.stream):
            raise RuntimeError("TensorRT: the inference could not be started")

    def _tensors(self):
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        kind = self._trt.TensorIOMode.INPUT
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == kind]
        outputs = [name for name in names if name not in inputs]
        return inputs, outputs[0]

    def _bind(self, shapes):
        """Tell the context this batch's shapes and give every tensor memory of its size."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                text = (self._path, ", ".join(map(str, shape)))
                raise RefusedError("%s: its engine takes no inputs of shape (%s)" % text)
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(self._context.get_tensor_shape(name))
            on_host = self._engine.get_tensor_location(name).name == "HOST"
            if on_host or -1 in shape:
                text = (self._path, name)
                raise RefusedError("%s: %s is a shape, or has one that its data tell: not measured" % text)
            array = np.empty(shape, dtype=self._dtype(name))
            self._buffers[name] = self._cuda.allocate(array.nbytes)
            self._context.set_tensor_address(name, self._buffers[name])
            if name == self._output:
                self._logits = array
        self._shapes = shapes

    def _dtype(self, name):
        return self._trt.nptype(self._engine.get_tensor_dtype(name))
