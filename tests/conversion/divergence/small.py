"""Small networks twice: in float, and quantized from those floats as a tool would; no torch is needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.divergence.chain import Answer, compare
from edgekd.conversion.divergence.probe import probe
from edgekd.conversion.divergence.question import Question, Runtime, Subject
from edgekd.conversion.remove_quantizers import quantized_tensors, remove_quantizers
from edgekd.documents.spec import Int8Dialect
from edgekd.runtimes.onnxruntime import open_session, run_batches
from tests.conversion.graphs import CASES, inputs

SHA = "0" * 64
_NUMBERS = count()
DIALECTS: tuple[Int8Dialect, ...] = ("onnxruntime-u8", "tensorrt-s8")


@dataclass(frozen=True)
class Small:
    """A network in float and in one dialect, with examples."""

    reference: onnx.ModelProto
    candidate: onnx.ModelProto
    x: np.ndarray
    dialect: str


@cache
def small(name: str, dialect: Int8Dialect) -> Small:
    """A case of tests/conversion/graphs.py, with scales that fit data and weights off their grid."""
    canonical = CASES[name]()
    x = inputs(canonical, 96)
    reference = _off_the_grid(canonical)
    _fit_scales(canonical, reference, np.concatenate([x, inputs(canonical, 256)[96:]]))
    return Small(reference, to_dialect(canonical, dialect), x[:48], dialect)


def ask(
    given: Small,
    candidate: onnx.ModelProto | None = None,
    *,
    reference: onnx.ModelProto | None = None,
    runtime: Runtime | None = None,
    representative: bool = True,
    student_graph: onnx.ModelProto | None = None,
) -> Answer:
    """Compare a candidate, by default the healthy one, with the float network."""
    return compare(
        Question(
            candidate=Subject("candidate.onnx", candidate or given.candidate, SHA),
            reference=Subject("float.onnx", reference or given.reference, SHA),
            dialect=given.dialect,
            x=given.x,
            representative=representative,
            student_graph=student_graph,
            runtime=runtime,
        )
    )


def optimized(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Logits with every rewrite of ONNX Runtime."""
    return run_batches(open_session(model), x)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def constant(model: onnx.ModelProto, value: object) -> str:
    """Name of a new initializer."""
    name = f"planted_{next(_NUMBERS)}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def value_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    """Value of an initializer."""
    return np.array(numpy_helper.to_array(next(one for one in model.graph.initializer if one.name == name)))


def _off_the_grid(canonical: onnx.ModelProto) -> onnx.ModelProto:
    """The float network whose weights round to the canonical graph's codes."""
    random = np.random.default_rng(3)
    reference = remove_quantizers(canonical)
    for one in quantized_tensors(canonical):
        node = one.dequantizers[0]
        tensor = next((t for t in reference.graph.initializer if t.name == node.output[0]), None)
        if one.kind == "constant" and tensor is not None:
            codes, scale = value_of(canonical, node.input[0]), value_of(canonical, node.input[1])
            axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
            step = scale.reshape([-1 if index == axis else 1 for index in range(codes.ndim)])
            # The largest code of a channel is the end of its grid, and stays where it is.
            inner = np.abs(codes) < 127
            noise = inner * random.uniform(-0.5, 0.5, codes.shape)
            weight = (codes + noise) * step
            tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), tensor.name))
    return reference


def _fit_scales(canonical: onnx.ModelProto, reference: onnx.ModelProto, x: np.ndarray) -> None:
    """Give each activation the scale of its largest magnitude, and to what only moves it the same."""
    graph = canonical.graph
    made = {name: node for node in reference.graph.node for name in node.output}
    tensors = [one for one in quantized_tensors(canonical) if one.kind == "activation"]
    name = graph.input[0].name
    values = probe(reference, [one.name for one in tensors if one.name != name]).run({name: x})
    values[name] = x
    nodes = {node.output[0]: node for node in graph.node}
    for one in tensors:
        source = one.name
        while source in made and made[source].op_type in ("Flatten", "MaxPool"):
            source = made[source].input[0]
        scale = constant(canonical, np.float32(np.abs(values.get(source, x)).max() / 127))
        assert one.quantizer is not None
        for node in (one.quantizer, *one.dequantizers):
            nodes[node.output[0]].input[1] = scale
