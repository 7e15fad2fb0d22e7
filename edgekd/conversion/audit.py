"""Which weighted operators of a graph really run in int8 on this machine, and why the others do not.

ONNX Runtime is asked for the graph that it runs after all its optimizations. Every node of the graph that was
given is named with a number first; the runtime keeps names or builds new ones from them ("fused <7>",
"<7>_nhwc"), and where it does not, the tensor that the operator made or the weight that it read leads on.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import inliner

from edgekd.conversion.causes import explain
from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.graph_view import GraphView, is_weighted, label, views
from edgekd.documents.audit import Audit, AuditedOperator
from edgekd.errors import ConversionError
from edgekd.files import sha256_file
from edgekd.runtimes.onnxruntime import machine_isa, open_session, version

_COMPUTES = re.compile(r"Conv|Gemm|MatMul|Attention|QkvTo|Einsum")
_INT8 = re.compile(r"QLinear|QGemm|ConvInteger|MatMulInteger|DynamicQuantizeMatMul|QAttention|QMoE")
_FURTHEST = 8
"""How many operators the runtime may have merged into one behind a weighted operator."""


def audit_graph(path: Path, *, threads: int = 1) -> Audit:
    """Audit any ONNX file on ONNX Runtime's CPU provider.

    Raises:
        BundleError: the file is no valid ONNX graph, or its external data is unsafe or missing.
        ConversionError: ONNX Runtime cannot load the graph.
    """
    model = read_graph(path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    optimized = _Optimized.of(_optimize(model, path, threads))
    return Audit(
        graph=path.name,
        graph_sha256=sha256_file(path),
        runtime="onnxruntime",
        runtime_version=version(),
        machine=machine_isa(),
        operators=tuple(_audited(view, number, node, optimized) for view, number, node in _weighted(model)),
        optimized_operators=dict(sorted(optimized.counts.items())),
    )


@dataclass(frozen=True)
class _Optimized:
    """What runs: types of the computing nodes by the numbers, outputs and inputs that they carry."""

    by_number: dict[int, str]
    by_output: dict[str, str]
    by_input: dict[str, str]
    counts: Counter[str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Optimized:
        by_number: dict[int, str] = {}
        by_output: dict[str, str] = {}
        by_input: dict[str, str] = {}
        nodes = [node for view in views(model) for node in view.graph.node]
        for node in filter(lambda node: _COMPUTES.search(node.op_type), nodes):
            by_number.update((int(number), node.op_type) for number in re.findall(r"<(\d+)>", node.name))
            by_output.update((name, node.op_type) for name in node.output if name)
            by_output.setdefault(re.sub(r"_nchwc(_token_\d+)?$", "", node.name), node.op_type)
            by_input.update((name, node.op_type) for name in node.input if name)
        return cls(by_number, by_output, by_input, Counter(node.op_type for node in nodes))


def _with_names(message: str, model: onnx.ModelProto) -> str:
    """A message of the runtime with the nodes' own names in the place of their numbers."""
    nodes = [node for view in views(model) for node in view.graph.node]
    return re.sub(r"<(\d+)>", lambda found: label(nodes[int(found[1])]), message)


def _numbered(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, node in enumerate(node for view in views(copy) for node in view.graph.node):
        node.name = f"<{number}>"
    return copy


def _weighted(model: onnx.ModelProto) -> Iterator[tuple[GraphView, int, onnx.NodeProto]]:
    nodes = ((view, node) for view in views(model) for node in view.graph.node)
    for number, (view, node) in enumerate(nodes):
        if is_weighted(view, node):
            yield view, number, node


def _optimize(model: onnx.ModelProto, path: Path, threads: int) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="edgekd-audit-") as folder:
        file = Path(folder) / "optimized.onnx"
        try:
            open_session(_numbered(model), threads=threads, optimized=file)
        except ConversionError as error:
            raise ConversionError(_with_names(error.message, model), where=path) from None
        return onnx.load(file)


def _audited(view: GraphView, number: int, node: onnx.NodeProto, optimized: _Optimized) -> AuditedOperator:
    runs_as = _runs_as(view, number, node, optimized)
    int8 = runs_as is not None and _INT8.search(runs_as) is not None
    cause, advice = (None, None) if int8 else explain(view, node, runs_as)
    return AuditedOperator(
        name=label(node),
        op_type=node.op_type,
        int8=int8,
        runs_as=runs_as or "nothing",
        cause=cause,
        advice=advice,
    )


def _runs_as(view: GraphView, number: int, node: onnx.NodeProto, optimized: _Optimized) -> str | None:
    """Type of the node that does a weighted operator's work; None when the runtime removed the operator."""
    if number in optimized.by_number:
        return optimized.by_number[number]
    for name in _downstream(view, node):
        if name in optimized.by_output:
            return optimized.by_output[name]
    weights = [name for name in node.input[:2] if view.is_constant(name)]
    return next((optimized.by_input[name] for name in weights if name in optimized.by_input), None)


def _downstream(view: GraphView, node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that the node in an operator's place may make: its own, then those of what may be merged."""
    name = node.output[0]
    for _ in range(_FURTHEST):
        yield name
        readers = view.consumers.get(name, [])
        if len(readers) != 1 or is_weighted(view, readers[0]) or not readers[0].output:
            return
        name = readers[0].output[0]
