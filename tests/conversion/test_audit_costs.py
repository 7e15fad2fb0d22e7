"""Where the time goes: times that were made up, so that every share is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd.conversion.audit import Examined, examine
from edgekd.conversion.auditing.costs import FloatTwin, with_costs
from edgekd.conversion.auditing.optimized import Optimized, numbered
from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.float_graph import float_graph
from edgekd.documents.audit import Audit
from edgekd.runtimes.profiling import KernelTimes
from tests.conversion.audit_cases import image, unsigned
from tests.conversion.graphs import Writer, depthwise, residual

RUNS = 4
Us = Callable[[onnx.NodeProto], int]


def examined(model: onnx.ModelProto, tmp_path: Path) -> Examined:
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return examine(model, path)


def times(optimized: Optimized, us: Us) -> KernelTimes:
    """Times of every node that runs, the same in each run."""
    keys: dict[tuple[str, str], int] = {}
    for one in optimized.nodes:
        key = one.node.name, one.node.op_type
        keys[key] = keys.get(key, 0) + us(one.node)
    return KernelTimes(tuple(keys), np.array([[value] * RUNS for value in keys.values()], np.int64))


def costed(model: onnx.ModelProto, tmp_path: Path, us: Us, float_us: Us) -> Audit:
    found = examined(model, tmp_path)
    twin = FloatTwin.of(float_graph(numbered(model)))
    twin_times = times(Optimized.of(twin.model, threads=1), float_us)
    return with_costs(found, times(found.optimized, us), twin, twin_times)


def test_all_of_the_time_is_put_down_to_something(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    found = costed(residual(), tmp_path, lambda node: int(random.integers(1, 50)), lambda node: 5)
    assert sum(cost.share for cost in found.costs) == pytest.approx(1)
    assert [cost.share for cost in found.costs] == sorted((cost.share for cost in found.costs), reverse=True)
    assert found.profile is not None
    assert found.profile.runs == RUNS


def test_a_cause_has_the_time_of_its_operators_and_their_quantizers(tmp_path: Path) -> None:
    model = residual()
    found = costed(model, tmp_path, lambda node: 10, lambda node: 5)
    nodes = len(examined(model, tmp_path).optimized.nodes)
    parts = examined(model, tmp_path).work.parts.values()
    wanted = sum(part.cause_id == "relu-zero-point" for part in parts) / nodes
    (cost,) = [cost for cost in found.costs if cost.cause_id == "relu-zero-point"]
    assert (cost.bucket, cost.count) == ("float", 2)
    assert cost.share == pytest.approx(wanted)
    assert cost.title == (
        "weighted operators in float and their quantizers: "
        "the Relu that follows is quantized to codes that do not start at zero"
    )
    (cost,) = [cost for cost in found.costs if cost.bucket == "island"]
    assert cost.count == 2  # Add and Relu, without the quantizers around them
    (island,) = [one for one in found.findings if one.cause_id == "add-in-float"]
    assert island.share == pytest.approx(sum(part.island == 0 for part in parts) / nodes)


def test_an_operator_has_its_own_time_and_that_of_its_float_form(tmp_path: Path) -> None:
    model = to_dialect(depthwise(), "onnxruntime-u8")
    convolutions = iter([40, 10, 20])
    found = costed(
        model,
        tmp_path,
        lambda node: next(convolutions) if node.op_type == "QLinearConv" else 2,
        lambda node: 8 if node.op_type == "Conv" else 1,
    )
    assert [one.time_us for one in found.operators] == [40, 10, 20, 2]
    assert [one.float_time_us for one in found.operators][:3] == [8, 8, 8]
    total = sum((one.time_us or 0) / (one.share or 1) for one in found.operators) / 4
    assert found.operators[0].share == pytest.approx(40 / total)


def test_what_is_slower_in_int8_is_told(tmp_path: Path) -> None:
    model = to_dialect(depthwise(), "onnxruntime-u8")
    convolutions = iter([40, 30, 9])
    found = costed(
        model,
        tmp_path,
        lambda node: next(convolutions) if node.op_type == "QLinearConv" else 2,
        lambda node: 8 if node.op_type == "Conv" else 4,
    )
    slower = [one for one in found.findings if "slower" in one.message]
    assert [(one.cause_id, one.level) for one in slower] == [
        ("slower-in-int8", "note"),
        ("depthwise", "note"),
    ]
    names = [operator.name for operator in found.operators]
    text = "it is depthwise, and the int8 kernel is slower than the float kernel here: 30 us, in float 8 us"
    assert slower[1].message == f"{names[1]}: {text}"
    assert slower[1].share == found.operators[1].share


def test_one_input_channel_is_not_depthwise(tmp_path: Path) -> None:
    write = unsigned()
    x = write.quantize(write.conv(write.quantize("input"), 1, 8))
    model = write.graph(x, shape=(1, 12, 12), rank=4)
    found = costed(model, tmp_path, lambda node: 90 if node.op_type == "QLinearConv" else 1, lambda node: 9)
    assert [one.cause_id for one in found.findings] == ["slower-in-int8"]


def test_operators_with_and_without_weights_are_counted_apart(tmp_path: Path) -> None:
    found = costed(to_dialect(residual(), "onnxruntime-u8"), tmp_path, lambda node: 1, lambda node: 1)
    counts = {cost.title: cost.count for cost in found.costs if cost.bucket == "int8"}
    assert counts["weighted operators in int8"] == 4
    assert counts["other operators in int8"] >= 2


def grouped(write: Writer, x: str) -> str:
    return write.quantize(write.conv(write.quantize(write.conv(x, 3, 8)), 8, 8, group=2))


def test_groups_are_told(tmp_path: Path) -> None:
    found = costed(
        image(grouped)(), tmp_path, lambda node: 90 if node.op_type == "QLinearConv" else 1, lambda node: 9
    )
    assert [one.cause_id for one in found.findings if one.share] == ["slower-in-int8", "grouped"]


def test_small_differences_are_not_told(tmp_path: Path) -> None:
    model = to_dialect(depthwise(), "onnxruntime-u8")
    found = costed(model, tmp_path, lambda node: 5, lambda node: 4)
    assert [one for one in found.findings if "slower" in one.message] == []


def test_a_known_reason_is_told_alone(tmp_path: Path) -> None:
    def asymmetric(write: Writer, x: str) -> str:
        codes = write.constant("codes", np.ones((8, 3, 3, 3), np.int8))
        zero = write.constant("five", np.int8(5))
        weight = write.op("DequantizeLinear", codes, write.constant("small", np.float32(0.01)), zero)
        return write.quantize(write.op("Conv", x, weight))

    found = costed(image(asymmetric)(), tmp_path, lambda node: 50, lambda node: 5)
    (one,) = [one for one in found.findings if one.level != "error" and one.operators]
    assert one.cause_id == "asymmetric-weights"
    assert one.share == found.operators[0].share


def test_an_operator_that_was_removed_has_no_time(tmp_path: Path) -> None:
    write = Writer()
    product = write.op("MatMul", write.float_weight(4, 4), write.float_weight(4, 4))
    model = write.graph(write.op("Add", "input", product), shape=(4, 4), rank=3)
    found = examined(model, tmp_path)
    result = with_costs(found, times(found.optimized, lambda node: 7), None, None)
    assert (result.operators[0].time_us, result.operators[0].share) == (None, None)
    assert result.profile is not None
    assert result.profile.float_kernels_us is None


def test_a_profile_without_times_changes_nothing(tmp_path: Path) -> None:
    found = examined(residual(), tmp_path)
    assert with_costs(found, KernelTimes((), np.zeros((0, 3), np.int64)), None, None) == found.audit


def test_nodes_of_one_name_share_its_time(tmp_path: Path) -> None:
    """HardSwish is expanded to nodes without a name, whose times the profiler adds up under none."""

    def twice(write: Writer, x: str) -> str:
        for _ in range(2):
            x = write.quantize(write.op("HardSwish", write.quantize(write.conv(x, 3, 3))))
        return x

    found = costed(image(twice)(), tmp_path, lambda node: 10, lambda node: 5)
    shares = [one.share for one in found.findings if one.cause_id == "activation-in-float"]
    nodes = len(examined(image(twice)(), tmp_path).optimized.nodes)
    assert shares == [pytest.approx(4 / nodes)] * 2  # each with its two quantizers
