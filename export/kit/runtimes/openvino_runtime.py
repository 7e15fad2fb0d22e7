"""OpenVINO by its own package, on the processor: one stream, tuned for latency, floats computed as float32.

Without the hint f32 it computes floats as bfloat16 on processors with AMX, so that logits and time would be
those of another graph. A graph with a free batch axis is compiled for each size of batch that comes, as an
application would: the job's size when it is loaded, another one (the rest of the inputs) when it comes.
Session options are OpenVINO's properties, by their names.
"""

import os
import sys

# Importing the package imports its tools for converting, which report usage; without this module they do not.
sys.modules["openvino_telemetry"] = None

import openvino  # noqa: E402

from runtimes import RefusedError, graphs  # noqa: E402

VERSION = openvino.__version__.split("-")[0]


class Session:
    """A compiled graph. `run(feed)` is the one call that is timed; its first result is the logits."""

    build_ns = None
    note = None

    def __init__(self, path, job):
        graphs.check_file(path)
        self._path, self._core = path, openvino.Core()
        self._properties = _properties(job, graphs.cache_folder(job, path))
        self._model = self._checked(self._core.read_model, path)
        self._shapes = {port.get_any_name(): self._sizes(port) for port in self._model.inputs}
        self._requests = {}
        first = {
            name: (job["batch_size"], *sizes[1:]) for name, sizes in self._shapes.items() if None in sizes
        }
        if not any(None in sizes for sizes in first.values()):
            self._request(first)

    def prepare(self, feed):
        """What `run` takes for one batch; made outside of the timed region."""
        feed = graphs.named(self._path, self._shapes, feed)
        free = {name: feed[name].shape for name, sizes in self._shapes.items() if None in sizes}
        return self._request(free), feed

    def run(self, prepared):
        """The graph's outputs; the arrays are the runtime's own, as good as any until the next run."""
        request, inputs = prepared
        return [request.infer(inputs, share_inputs=True, share_outputs=True)[0]]

    def _sizes(self, port):
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic:
            raise RefusedError("%s: the number of its input's axes is not known" % self._path)
        return [None if size.is_dynamic else size.get_length() for size in shape]

    def _request(self, free):
        """What runs the graph for these shapes of its inputs with free axes; compiled when first asked."""
        key = tuple(sorted(free.items()))
        if key not in self._requests:
            if free:
                self._checked(self._model.reshape, {name: list(shape) for name, shape in free.items()})
            compiled = self._checked(self._core.compile_model, self._model, "CPU", self._properties)
            if compiled.get_property("LOADED_FROM_CACHE"):
                self.note = "the compiled graph was taken from the cache"
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]

    def _checked(self, call, *arguments):
        try:
            return call(*arguments)
        except Exception as error:  # RuntimeError for most, TypeError for a property of another kind
            text = (self._path, VERSION, graphs.one_line(error))
            raise RefusedError("%s: OpenVINO %s cannot load this graph: %s" % text) from error


def _properties(job, folder):
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(job["threads"]),
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if folder:
        properties["CACHE_DIR"] = os.path.join(folder, "openvino")
    return dict(properties, **job["session_options"])
