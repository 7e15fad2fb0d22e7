"""Why ONNX Runtime leaves a weighted operator in float, and what is wrong with one that it runs in int8.

One function a cause, asked in order: a cause is given only where none before it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx

from edgekd.conversion.auditing.causes import activations, readers, weights
from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.lookup import code_type, input_of, readers_of, weight_of
from edgekd.conversion.auditing.causes.processor import Processor
from edgekd.conversion.graph_view import WEIGHTED_OPS, GraphView, label

_Ask = Callable[[GraphView, onnx.NodeProto], Explanation | None]
_CAUSES: tuple[_Ask, ...] = (
    weights.graph_not_quantized,
    weights.no_int8_kernel,
    weights.weight_not_constant,
    weights.weight_not_quantized,
    activations.input_not_quantized,
    weights.half_precision,
    activations.activation_type,
    weights.weight_type,
    activations.activation_per_channel,
    activations.scale_not_constant,
    weights.bias,
    weights.gemm_factor,
    weights.weight_axis,
    readers.batch_norm,
    readers.dedicated_quantizers,
    readers.float_output,
    readers.relu_zero_point,
    readers.clip_range,
    readers.activation_not_folded,
    readers.float_reader,
    activations.mixed_types,
)
_WRONG: tuple[_Ask, ...] = (weights.weight_axis, activations.activation_per_channel)


def explain(view: GraphView, node: onnx.NodeProto, runs_as: str | None, processor: Processor) -> Explanation:
    """The first cause that holds for an operator that does not run in int8.

    Args:
        view: the graph that it stands in.
        node: a weighted operator.
        runs_as: type of the operator that runs in its place; None where none was found.
        processor: what runs it.
    """
    if runs_as is None:
        if all(view.is_constant(name) for name in node.input if name) or not _is_used(view, node):
            return because("removed")
        return because("not-fused", "edgekd did not find it in the graph that runs: it may run in float")
    if runs_as == "MatMulNBits":
        return because("weight-only")
    found = static_cause(view, node, processor)
    if found is not None:
        return found
    return because(
        "not-fused",
        f"ONNX Runtime did not fuse it, for a reason that edgekd does not know: {_facts(view, node)}",
    )


def _is_used(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether an output of the graph, or a graph inside a node, may depend on a node."""
    waiting, seen = list(node.output), set(node.output)
    while waiting:
        name = waiting.pop()
        readers = view.consumers.get(name, [])
        if view.is_output(name) or any(reader.op_type in ("If", "Loop", "Scan") for reader in readers):
            return True
        made = {output for reader in readers for output in reader.output} - seen
        seen |= made
        waiting += made
    return False


def static_cause(view: GraphView, node: onnx.NodeProto, processor: Processor) -> Explanation | None:
    """The first cause that the file alone tells; None where nothing speaks against int8."""
    if node.op_type not in WEIGHTED_OPS:
        kind = _weight_only(node) or weights.graph_not_quantized(view, node)
        return kind or weights.no_int8_kernel(view, node)
    codes = activations.signed_codes if processor.unsigned_alone else activations.mixed_with_weight
    asked = (*_CAUSES, codes, weights.float_gemm_bias)
    return next(filter(None, (ask(view, node) for ask in asked)), None)


def _weight_only(node: onnx.NodeProto) -> Explanation | None:
    """A product whose weight alone is in codes."""
    return because("weight-only") if node.op_type == "MatMulNBits" else None


def faults(view: GraphView, node: onnx.NodeProto) -> Iterator[Explanation]:
    """What makes an operator that runs in int8 compute something else, or fail when it runs."""
    if node.op_type in WEIGHTED_OPS:
        yield from filter(None, (ask(view, node) for ask in _WRONG))


def remarks(view: GraphView, node: onnx.NodeProto, processor: Processor) -> Iterator[Explanation]:
    """What makes an operator that runs in int8 slower than it could be, as far as the file tells."""
    asked: list[_Ask] = [activations.dynamic]
    asked += [weights.asymmetric_weight] if node.op_type in WEIGHTED_OPS else []
    asked += [activations.signed_activations] if processor.unsigned_alone else []
    asked += [weights.unsigned_weight] if processor.signed_weights else []
    yield from filter(None, (ask(view, node) for ask in asked))


def _facts(view: GraphView, node: onnx.NodeProto) -> str:
    """What is known of an operator that no cause explains."""
    reads = f"it reads {code_type(view, input_of(view, node))}"
    weight = f"its weight is {code_type(view, weight_of(view, node))}"
    after = [f"{reader.op_type} '{label(reader)}'" for reader in readers_of(view, node)]
    return f"{reads}, {weight}, and its result goes into {', '.join(after) or 'the output'}"
