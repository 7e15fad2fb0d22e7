"""ONNX Runtime: all graph optimizations, operators one after another, on one execution provider.

`onnxruntime` is the CPU provider. `onnxruntime-NAME` is the provider NAME + `ExecutionProvider` of the
installed package, whatever the case of its letters: cuda, tensorrt, openvino, xnnpack, qnn, dml, coreml ...
A provider that fails to load is an error: ONNX Runtime itself would go on with the CPU provider and print.
Operators that a provider leaves to another one are counted in the session's `note`.

Session options that begin with `provider.` go to the provider: `provider.device_type = "GPU"` for OpenVINO.
"""

import functools
import os

# From 1.29 on its wheels report usage over the network unless this is set before they are imported. A device
# in the field shall not, and the reporting would be measured too.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime  # noqa: E402

import runtimes  # noqa: E402
from runtimes import RefusedError, graphs, onnxruntime_plugins, onnxruntime_providers  # noqa: E402
from runtimes.onnxruntime_binding import DEVICES, Binding  # noqa: E402

VERSION = onnxruntime.__version__
CPU = "CPUExecutionProvider"
_ASSIGNMENT = "get_provider_graph_assignment_info"  # from 1.24 on


def missing(runtime):
    """Why the provider of a runtime's name cannot be used here and what to try, or None."""
    if runtime == "onnxruntime-azure":
        return "its provider asks a service for the answer, so no device is measured; try: onnxruntime"
    if provider_of(runtime) is None:
        offered = ", ".join(onnxruntime.get_available_providers())
        name = runtime.partition("-")[2]
        text = (VERSION, name, offered, runtimes.by_name(runtimes.INSTALL, runtime))
        return "onnxruntime %s has no provider called %s, it offers %s; try: %s" % text
    return None


def provider_of(runtime):
    """ONNX Runtime's name of the provider that a runtime's name means; None if it is not offered."""
    name = runtime.partition("-")[2] or "cpu"
    onnxruntime_plugins.register(name)
    offered = onnxruntime.get_available_providers()
    return next((found for found in offered if found.lower() == name + "executionprovider"), None)


class Session:
    """A loaded graph. `run(feed)` is the one call that is timed; its first result is the logits."""

    build_ns = None  # what a provider builds, it builds while the graph is loaded

    def __init__(self, path, job):
        graphs.check_file(path)
        self._path, self._provider = path, provider_of(job["runtime"])
        session = self._open(job)
        self._shapes = {found.name: found.shape for found in session.get_inputs()}
        self.note = self._note(session)
        if self._provider in DEVICES:
            self.time_scopes = Binding(session, DEVICES[self._provider]).time_scopes
        # A partial, not a method: nothing of ours runs between the two clock readings.
        self.run = functools.partial(session.run, None)

    def prepare(self, feed):
        """What `run` takes for one batch; made outside of the timed region."""
        return graphs.named(self._path, self._shapes, feed)

    def _open(self, job):
        options, given = onnxruntime.SessionOptions(), job["session_options"]
        _set_options(options, job, self._provider)
        for key in sorted(set(given) - set(onnxruntime_providers.own_options(given))):
            options.add_session_config_entry(key, given[key])
        providers = self._providers(options, job)
        try:
            session = onnxruntime.InferenceSession(
                self._path, options, providers=providers, enable_fallback=0
            )
        except Exception as error:  # its exceptions have no parent of their own
            text = (self._path, VERSION, self._provider, graphs.one_line(error))
            raise RefusedError("%s: onnxruntime %s cannot load this graph on %s: %s" % text) from error
        session.disable_fallback()
        if self._provider not in session.get_providers():
            text = (self._path, self._provider, ", ".join(session.get_providers()))
            raise RefusedError("%s: %s did not load; onnxruntime took %s instead" % text)
        return session

    def _providers(self, options, job):
        """The providers to ask for by name; a plug-in is put into the options instead."""
        offered = onnxruntime.get_available_providers()
        chain = onnxruntime_providers.chain(self._provider, job, self._path, offered)
        if not onnxruntime_plugins.is_plugin(self._provider):
            return chain
        onnxruntime_plugins.add(options, *chain[0])
        return None

    def _note(self, session):
        """Which operators do not run on the provider that was asked for."""
        if self._provider == CPU:
            return None
        tell = getattr(session, _ASSIGNMENT, list)
        nodes = [(part.ep_name, node.op_type) for part in tell() for node in part.get_nodes()]
        if not nodes:
            return "onnxruntime %s does not tell which operators run on %s" % (VERSION, self._provider)
        total, elsewhere = len(nodes), [node for node in nodes if node[0] != self._provider]
        if len(elsewhere) == total:
            text = (self._path, self._provider, total)
            hint = onnxruntime_providers.HINTS.get(self._provider, "")
            raise RefusedError("%s: %s took none of the %d operators of this graph%s" % (*text, hint))
        text = ", ".join(sorted({"%s on %s" % (kind, name) for name, kind in elsewhere}))
        return "%d of %d operators fell back: %s" % (len(elsewhere), total, text) if elsewhere else None


def _set_options(options, job, provider):
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if provider != CPU and hasattr(onnxruntime.InferenceSession, _ASSIGNMENT):
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider == "XnnpackExecutionProvider":  # it has threads of its own, which would fight with these
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider == "DmlExecutionProvider":  # it supports no memory patterns
        options.enable_mem_pattern = False
