"""onnx's own evaluator, in numpy: slow, each operator as the ONNX specification words it."""

import onnx
import onnx.reference
from google.protobuf.message import DecodeError

from runtimes import RefusedError, graphs

VERSION = onnx.__version__


class Session:
    """A loaded graph. `run(feed)` is the one call that is timed; its first result is the logits."""

    build_ns = None
    note = None

    def __init__(self, path, job):
        graphs.check_file(path)
        graphs.no_session_options(job)
        model = _load(path)
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [found for found in model.graph.input if found.name not in weights]
        dims = {found.name: found.type.tensor_type.shape.dim for found in inputs}
        self._shapes = {name: [size.dim_value for size in sizes] for name, sizes in dims.items()}
        self._path = path
        self._evaluator = onnx.reference.ReferenceEvaluator(model)

    def prepare(self, feed):
        """What `run` takes for one batch; made outside of the timed region."""
        return graphs.named(self._path, self._shapes, feed)

    def run(self, feed):
        """The graph's outputs."""
        return self._evaluator.run(None, feed)


def _load(path):
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        text = "%s: onnx %s cannot load this graph: %s" % (path, VERSION, graphs.one_line(error))
        raise RefusedError(text) from error
    return model
