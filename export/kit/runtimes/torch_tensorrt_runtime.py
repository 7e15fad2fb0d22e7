"""Torch-TensorRT on an NVIDIA GPU: an exported program (.pt2 or .ep) that edgekd compiled, run by torch.

edgekd/runtimes/torch_tensorrt.py makes such a file. It holds engines, so that it runs on the kind of GPU and
the version of TensorRT that it was compiled with. Not run by edgekd's own tests, which have no GPU.
"""

import torch
import torch_tensorrt  # registers the operator that runs an engine

from runtimes import RefusedError, cuda, graphs

VERSION = torch_tensorrt.__version__
SUFFIXES = (".pt2", ".ep")
DEVICE = "cuda"


def missing(runtime):
    """Why it cannot be used here and what to try, or None."""
    if torch.cuda.is_available():
        return None
    return cuda.missing() or "torch %s sees no GPU; try: a build of torch for CUDA" % torch.__version__


class Session:
    """A loaded program. `run(feed)` is the one call that is timed; its first result is the logits."""

    build_ns = None
    note = None

    def __init__(self, path, job):
        graphs.check_file(path)
        graphs.no_session_options(job)
        if not path.endswith(SUFFIXES):
            raise RefusedError("%s: torch-tensorrt takes an exported program, a .pt2 file" % path)
        self._path = path
        try:
            program = torch.export.load(path)
        except Exception as error:  # zip, JSON and torch's own errors have no common parent
            text = (path, VERSION, graphs.one_line(error))
            raise RefusedError("%s: torch-tensorrt %s cannot load this program: %s" % text) from error
        names = program.graph_signature.user_inputs
        nodes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.name in names}
        self._shapes = {
            name: [size if isinstance(size, int) else None for size in nodes[name]] for name in names
        }
        self._module = program.module().to(DEVICE)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]

    def prepare(self, feed):
        """What `run` takes for one batch; made outside of the timed region."""
        feed = graphs.named(self._path, self._shapes, feed)
        return [
            torch.from_numpy(feed[name].copy()) for name in self._shapes
        ]  # the file's arrays are read-only

    def run(self, prepared):
        """Copy in, infer, copy out; returns [logits]."""
        with torch.inference_mode():
            return [_first(self._module(*[x.to(DEVICE) for x in prepared])).cpu().numpy()]

    def time_scopes(self, prepared):
        """Nanoseconds on the GPU's clock: `device` from before the copy in to after the copy out."""
        begin, copied, ran, end = self._events
        with torch.inference_mode():
            begin.record()
            inputs = [x.to(DEVICE) for x in prepared]
            copied.record()
            logits_BK = _first(self._module(*inputs))
            ran.record()
            logits_BK.cpu()
            end.record()
        torch.cuda.synchronize()
        return {"device": _between_ns(begin, end), "compute": _between_ns(copied, ran)}


def _first(outputs):
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


def _between_ns(first, second):
    return round(first.elapsed_time(second) * 1e6)
