"""Trace a network into a torch.fx graph whose batch size stays open.

Every operation is carried out on two example batches of different size while it is recorded. A size, flag
or type that comes out the same for both is a fact of the network and becomes a plain Python value, so that
`if x.shape[1] == 3` or `range(x.shape[2])` trace as written. What differs depends on the batch and stays a
node. Only a decision on the data itself cannot be recorded: it gets a NetworkError with module and line.
"""

from __future__ import annotations

import copy
import linecache
import operator
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from edgekd.errors import NetworkError

SHAPE = "shape"
"""Key of node.meta: the shape of the node's value for the first example batch; absent for other values."""
LABEL = "label"
"""Key of node.meta: the module's path, or that of the module around it with the operation's name."""

_USER_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_ROOT = "network"
_BATCH_SIZES = (2, 3)
_TRACE_HINT = (
    "decide on sizes, options or modules rather than on the values of a tensor, "
    "and write loops over fixed ranges"
)


def trace(network: nn.Module, example_x: Tensor) -> fx.GraphModule:
    """The operations of `network` in evaluation, as a graph that takes any batch size.

    The network itself is left alone: the graph holds copies of its modules.

    Args:
        network: takes one tensor (B, ...) and returns one tensor (B, K).
        example_x: a batch (B, ...) of any size, of the network's dtype.

    Raises:
        NetworkError: the network fails on the example, or cannot be traced (names the module and the line).
    """
    root = _Root(copy.deepcopy(network).eval())
    examples = _example_batches(example_x)
    with torch.no_grad():
        reference = _run(root.network, examples[1])
        traced = _record(root, examples)
        _check_same(traced, examples[1], reference)
    return traced


def attribute_of(root: nn.Module, target: str) -> Any:
    """The parameter, buffer or other attribute at a dotted path."""
    path, _, name = target.rpartition(".")
    return getattr(root.get_submodule(path), name)


class _Root(nn.Module):
    """A forward with exactly one argument, whatever options the network's own forward has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class _Value(fx.Proxy):
    """A recorded value; its examples answer what does not depend on the batch."""

    tracer: _ExampleTracer

    def __getattr__(self, name: str) -> Any:
        examples = self.tracer.examples_of(self)
        if callable(getattr(examples[0], name)):
            return super().__getattr__(name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __iter__(self) -> Iterator[Any]:
        return iter([self.tracer.item(self, index) for index in range(len(self))])

    def __len__(self) -> int:
        lengths = [len(example) for example in self.tracer.examples_of(self)]
        if lengths[0] != lengths[1]:
            raise TraceError("len() depends on the batch size; x.shape[0] may")
        return lengths[0]


class _ExampleTracer(fx.Tracer):
    """Records operations and carries each out on the example batches."""

    def __init__(self, batches: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self._batches = batches
        self._examples: dict[fx.Node, tuple[Any, Any]] = {}
        self._computing = False
        self.path = ""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def examples_of(self, value: fx.Proxy) -> tuple[Any, Any]:
        return self._examples[value.node]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._computing:
            return forward(*args, **kwargs)
        outer, self.path = self.path, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.path = outer  # left as it is when the module fails: the error names it
        return result

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        value = super().create_proxy(kind, target, args, kwargs, *more, **options)
        if kind == "output":
            return value
        examples = self._compute(kind, target, args, kwargs)
        self._examples[value.node] = examples
        value.node.meta[LABEL] = self._label(kind, target)
        if isinstance(examples[0], Tensor):
            value.node.meta[SHAPE] = tuple(examples[0].shape)
            return value
        return self._plain(value, examples)

    def _label(self, kind: str, target: Any) -> str:
        name = "" if kind == "call_module" else getattr(target, "__name__", str(target))
        return ".".join(part for part in (_without_root(self.path), name) if part)

    def to_bool(self, obj: fx.Proxy) -> bool:
        if isinstance(self.examples_of(obj)[0], Tensor):
            raise TraceError("a decision depends on the values of a tensor")
        raise TraceError("a decision depends on the batch size")

    def _plain(self, value: fx.Proxy, examples: tuple[Any, Any]) -> Any:
        """The Python value where both examples agree; of a shape, axis by axis."""
        first, second = examples
        if isinstance(first, torch.Size):
            pairs = enumerate(zip(first, second, strict=True))
            return tuple(size if size == other else self.item(value, axis) for axis, (size, other) in pairs)
        if _holds_tensors(first) or first != second:
            return value
        return first

    def item(self, value: fx.Proxy, index: int) -> Any:
        """One axis of a shape, or one of several tensors."""
        return self.create_proxy("call_function", operator.getitem, (value, index), {})

    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        self._computing = True
        try:
            first, second = (self._compute_one(which, kind, target, args, kwargs) for which in (0, 1))
        finally:
            self._computing = False
        return first, second

    def _compute_one(self, which: int, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self._batches[which]
        if kind == "get_attr":
            return attribute_of(self.root, target)

        def example(value: Any) -> Any:
            return self._examples[value.node][which] if isinstance(value, fx.Proxy) else value

        args = fx.node.map_aggregate(args, example)
        kwargs = fx.node.map_aggregate(kwargs, example)
        match kind:
            case "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
            case "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            case _:
                return target(*args, **kwargs)


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_tensors(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_tensors(item) for item in value)
    return isinstance(value, Tensor)


def _example_batches(example_x: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches that differ in size and in values, so that nothing of either passes for a constant."""
    small, large = (example_x[torch.arange(size) % len(example_x)] for size in _BATCH_SIZES)
    return small, large * 0.5 if large.is_floating_point() else large


def _run(network: nn.Module, x: Tensor) -> Tensor:
    try:
        logits = network(x)
    except _USER_MISTAKES as error:
        raise NetworkError(
            f"the network fails on a batch of shape {tuple(x.shape)}: {_first_line(error)}",
            where=_place(error) or type(network).__name__,
            hint="check the network's input channels and size against the task's",
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise NetworkError(
            f"the network returns {found} for a batch of {len(x)}, not one tensor of logits (batch, classes)",
            where=type(network).__name__,
        )
    return logits


def _record(root: _Root, examples: tuple[Tensor, Tensor]) -> fx.GraphModule:
    tracer = _ExampleTracer(examples)
    try:
        graph = tracer.trace(root)
    except _USER_MISTAKES as error:
        module = _without_root(tracer.path)
        inside = f" inside module {module}" if module else ""
        raise NetworkError(
            f"the network cannot be traced{inside}: {_first_line(error)}{_source_line(error)}",
            where=_place(error) or type(root.network).__name__,
            hint=_TRACE_HINT,
        ) from error
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = _without_root(node.target)
    _move_constants(root)
    graph._tracer_cls = None  # a copy in another process must not trace on these examples again
    return fx.GraphModule(root.network, graph, type(root.network).__name__)


def _move_constants(root: _Root) -> None:
    """Tensors made inside forward hang on the traced root; they belong to the network's copy."""
    for name, value in list(vars(root).items()):
        if isinstance(value, Tensor):
            root.network.register_buffer(name, value)


def _check_same(traced: fx.GraphModule, x: Tensor, reference: Tensor) -> None:
    difference = float((traced(x.clone()) - reference).abs().max())
    if not difference <= 1e-4 * max(1.0, float(reference.abs().max())):
        raise NetworkError(
            f"the traced graph differs from the network by {difference:.3g} on the same batch",
            where=type(traced).__name__,
            hint="remove randomness and state from the network's forward in evaluation",
        )


def _without_root(path: str) -> str:
    return path.removeprefix(_ROOT).removeprefix(".")


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _user_frame(error: Exception) -> traceback.FrameSummary | None:
    """The innermost frame of the user's own source: neither torch's nor ours."""
    ours = (str(Path(torch.__file__).parent), __file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".py")]
    return next((frame for frame in reversed(frames) if not frame.filename.startswith(ours)), None)


def _place(error: Exception) -> str | None:
    frame = _user_frame(error)
    return f"{frame.filename}:{frame.lineno}" if frame else None


def _source_line(error: Exception) -> str:
    frame = _user_frame(error)
    line = linecache.getline(frame.filename, frame.lineno or 0).strip() if frame else ""
    return f"\n  {line}" if line else ""
