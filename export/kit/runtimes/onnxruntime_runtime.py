"""ONNX Runtime on the processor: all graph optimizations, operators one after another."""

import functools
import os

# From 1.29 on its wheels report usage over the network unless this is set before they are imported. A device
# in the field shall not, and the reporting would be measured too.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime  # noqa: E402

VERSION = onnxruntime.__version__


class Session:
    """A loaded graph. `run(feed)` is the one call that is timed; its first result is the logits."""

    build_ns = None  # nothing is built: the graph is optimized while it is loaded

    def __init__(self, path, job):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        for key, value in job["session_options"].items():
            options.add_session_config_entry(key, value)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = [found.name for found in session.get_inputs()]
        if len(inputs) != 1:
            raise ValueError("a graph with one input is expected, found %s" % (", ".join(inputs) or "none"))
        self._input = inputs[0]
        # A partial, not a method: nothing of ours runs between the two clock readings.
        self.run = functools.partial(session.run, None)

    def prepare(self, x_BX):
        """What `run` takes for one batch; made outside of the timed region."""
        return {self._input: x_BX}
