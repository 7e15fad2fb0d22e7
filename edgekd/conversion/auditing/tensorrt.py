"""Which weighted operators TensorRT's parsed network holds in int8, and why not the others.

The network definition is what the parser made of the graph. Which kernels (tactics) the builder chooses, and
how fast they are, is decided on a GPU; here none is asked, and the audit says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx

from edgekd.conversion.audit import TOO_LARGE, inlined, quantization_of
from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.tensorrt import concat_scales, remarks, static_cause
from edgekd.conversion.auditing.findings import counted, finding
from edgekd.conversion.auditing.optimized import Operator, numbered, weighted_operators, with_names
from edgekd.conversion.graph_view import label, views
from edgekd.documents.audit import Audit, AuditedOperator, Finding
from edgekd.files import sha256_file
from edgekd.runtimes.onnxruntime import machine_isa
from edgekd.runtimes.tensorrt import parse_network
from edgekd.runtimes.tensorrt_network import Layer, ParsedNetwork, Refusal

NOTE = (
    "read from the network that the parser made: the kernels (tactics) that the builder chooses on a GPU are "
    "not known here, and nothing was timed"
)
_COMPUTES = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM")
_MOVES = ("SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE", "SLICE", "CAST")
_FOLDS = ("RELU", "CLIP")
_ISLANDS = frozenset(
    {
        *("ACTIVATION", "UNARY", "SOFTMAX", "NORMALIZATION", "REDUCE", "ELEMENTWISE", "SCALE", "PADDING"),
        *("PARAMETRIC_RELU", "CUMULATIVE", "SELECT", "GRID_SAMPLE", "RESIZE", "POOLING", "CONCATENATION"),
        *("LRN", "TOPK", "RAGGED_SOFTMAX", "GATHER"),
    }
)
_SHORT = {"FLOAT": "float", "HALF": "half", "BF16": "bfloat16", "INT8": "int8", "FP8": "fp8", "INT4": "int4"}
_EIGHT_BITS = ("INT8",)
_LISTED = 6


def audit_tensorrt(model: onnx.ModelProto, path: Path, *, whole: bool = True) -> Audit:
    """Audit a graph that was read from `path` on the network that TensorRT's parser makes of it.

    A graph that is not `whole` lacks its large weights: the parser is not asked.

    Raises:
        MissingError: neither TensorRT nor TensorRT for RTX can parse here.
    """
    model = inlined(model)
    network = parse_network(numbered(model)) if whole else _UNASKED
    operators = tuple(weighted_operators(model))
    audited = tuple(_audited(operator, network) for operator in operators)
    findings = [*_remarks(operators, audited), *_concats(model)]
    if network.layers:
        findings += [*_float_results(operators, audited, network), *_islands(model, network)]
    return Audit(
        graph=path.name,
        graph_sha256=sha256_file(path),
        runtime="tensorrt",
        runtime_version=f"{network.tool} {network.tool_version}",
        machine=machine_isa(),
        operators=audited,
        optimized_operators=dict(sorted(Counter(layer.kind for layer in network.layers).items())),
        loaded=bool(network.layers),
        problems=tuple(_problems(model, network)),
        quantization=quantization_of(model),
        findings=tuple(findings),
        notes=(NOTE, *(f"the parser says: {with_names(text, model)}" for text in _warnings(network))),
    )


_UNASKED = ParsedNetwork("tensorrt", "not asked", (), {}, (Refusal("", "", TOO_LARGE),))


def _problems(model: onnx.ModelProto, network: ParsedNetwork) -> Iterator[str]:
    """What the parser refused, or that it made nothing of the graph."""
    for one in network.refused:
        why = " ".join(with_names(one.why, model).split())
        place = f"{one.operator} '{with_names(one.node, model)}'" if one.node else "the graph"
        yield why if network is _UNASKED else f"{network.tool}'s parser refuses {place}: {why}"
    if not network.layers and not network.refused:
        yield f"{network.tool}'s parser made no network of the graph"


def _warnings(network: ParsedNetwork) -> tuple[str, ...]:
    """What the parser warned of a graph that it took; of one that it refused the problems tell."""
    return network.messages if network.layers else ()


def _audited(operator: Operator, network: ParsedNetwork) -> AuditedOperator:
    layer = _layer(operator, network)
    cause = static_cause(operator.view, operator.node)
    types = () if layer is None else _types(layer, network)
    int8 = cause is None and len(types) == 2 and all(kind in _EIGHT_BITS for kind in types)
    if not int8 and cause is None:
        cause = _unexplained(layer, types, network)
    return AuditedOperator(
        name=label(operator.node),
        op_type=operator.node.op_type,
        int8=int8,
        runs_as=_runs_as(layer, types),
        cause=None if cause is None else cause.text,
        advice=None if cause is None else cause.advice,
        cause_id=None if cause is None else cause.cause_id,
    )


def _unexplained(layer: Layer | None, types: tuple[str, ...], network: ParsedNetwork) -> Explanation:
    if layer is None:
        return because("parser-refused" if not network.layers else "removed")
    if types and set(types) == {"FP8"}:
        return because("fp8-codes")
    found = " and ".join(_SHORT.get(kind, kind.lower()) for kind in types) or "nothing quantized"
    return because("not-fused", f"the parser gives it {found}, for a reason that edgekd does not know")


def _layer(operator: Operator, network: ParsedNetwork) -> Layer | None:
    """The layer that does a weighted operator's work."""
    layers = network.layers_of(f"<{operator.number}>")
    return next((layer for layer in layers if layer.kind in _COMPUTES), None)


def _types(layer: Layer, network: ParsedNetwork) -> tuple[str, ...]:
    """Element types that a layer's first two inputs are held in, through their DEQUANTIZE layers.

    A convolution with one input has its weight inside, in float.
    """
    return tuple(_held_in(name, network) for name in layer.inputs[:2])


def _held_in(tensor: str, network: ParsedNetwork) -> str:
    maker = network.maker(tensor)
    while maker is not None and maker.kind in _MOVES and maker.inputs:
        maker = network.maker(maker.inputs[0])
    if maker is not None and maker.kind == "DEQUANTIZE":
        return network.dtypes.get(maker.inputs[0], "UNKNOWN")
    return network.dtypes.get(tensor, "UNKNOWN")


def _runs_as(layer: Layer | None, types: tuple[str, ...]) -> str:
    if layer is None:
        return "not parsed"
    return f"{layer.kind} of {' x '.join(_SHORT.get(kind, kind.lower()) for kind in types)}"


def _remarks(operators: tuple[Operator, ...], audited: tuple[AuditedOperator, ...]) -> Iterator[Finding]:
    for operator, one in zip(operators, audited, strict=True):
        for remark in remarks(operator.view, operator.node) if one.int8 else ():
            yield finding(remark, (one.name,), f"{one.name}: {remark.text}")


def _concats(model: onnx.ModelProto) -> Iterator[Finding]:
    for view in views(model):
        for node in view.graph.node:
            found = concat_scales(view, node)
            if found is not None:
                yield finding(found, (label(node),), f"Concat '{label(node)}': {found.text}")


def _float_results(
    operators: tuple[Operator, ...], audited: tuple[AuditedOperator, ...], network: ParsedNetwork
) -> Iterator[Finding]:
    """Operators in int8 whose result no QUANTIZE takes in."""
    for operator, one in zip(operators, audited, strict=True):
        layer = _layer(operator, network)
        if not one.int8 or layer is None:
            continue
        readers = _readers_behind_folded(network.layers_of(f"<{operator.number}>")[-1], network)
        kinds = [reader.kind for reader in readers]
        if readers and "QUANTIZE" not in kinds:
            text = f"{one.name} writes float: {', '.join(dict.fromkeys(kinds))} read it without a quantizer"
            yield finding(because("float-result"), (one.name,), text)


def _readers_behind_folded(layer: Layer, network: ParsedNetwork) -> list[Layer]:
    """What reads a layer, seen through the activation and the addition that its kernel takes in."""
    readers = network.readers(layer.outputs[0])
    while len(readers) == 1 and readers[0].operation in (*_FOLDS, "SUM"):
        readers = network.readers(readers[0].outputs[0])
    return readers


def _islands(model: onnx.ModelProto, network: ParsedNetwork) -> Iterator[Finding]:
    """Sets of layers in float next to int8 that neither fold nor have quantizers all around."""
    left = {layer.name: layer for layer in network.layers if _is_work(layer, network)}
    while left:
        found = [left.pop(next(iter(left)))]
        for layer in found:  # grows while it is walked
            for neighbor in _neighbors(layer, network):
                if neighbor.name in left:
                    found.append(left.pop(neighbor.name))
        if _is_island(found, network):
            names = dict.fromkeys(with_names(node, model) for layer in found for node in layer.nodes)
            yield _island_finding(list(names), found)


def _island_finding(names: list[str], layers: list[Layer]) -> Finding:
    types = counted(Counter(layer.operation or layer.kind for layer in layers))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    text = f"{types} in float ({', '.join(names[:_LISTED])}{more}): expect reformats at its ends"
    return finding(because("float-island"), tuple(names), text)


def _is_work(layer: Layer, network: ParsedNetwork) -> bool:
    return layer.kind in _ISLANDS and any(
        network.dtypes.get(name) in ("FLOAT", "HALF", "BF16") for name in layer.outputs
    )


def _neighbors(layer: Layer, network: ParsedNetwork) -> Iterator[Layer]:
    for name in layer.inputs:
        maker = network.maker(name)
        if maker is not None:
            yield maker
    for name in layer.outputs:
        yield from network.readers(name)


def _is_island(layers: list[Layer], network: ParsedNetwork) -> bool:
    """Whether int8 ends or begins at a set of layers without a quantizer where a kernel could take it in."""
    inside = {layer.name for layer in layers}
    around = [one for layer in layers for one in _neighbors(layer, network) if one.name not in inside]
    kinds = {one.kind for one in around}
    if not kinds & {"QUANTIZE", "DEQUANTIZE"}:
        return False
    if all(layer.operation in (*_FOLDS, "SUM") for layer in layers):
        return False  # goes into the kernel before it, or is one on codes
    simple = len(layers) == 1 and layers[0].kind in ("POOLING", "CONCATENATION", "RESIZE", "REDUCE")
    return not (simple and kinds <= {"QUANTIZE", "DEQUANTIZE", "CONSTANT"})
