from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgekd.conversion.channel_groups import filters_of
from edgekd.conversion.check_graph import check_graph
from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.graph_view import GraphView, attribute
from edgekd.conversion.specs import spec_of
from edgekd.runtimes.onnxruntime import open_session, run_batches
from tests.conversion.graphs import CASES, CLASSES, Writer, inputs

UNPADDED = {"pad_channels": False}


def padded(canonical: onnx.ModelProto) -> onnx.ModelProto:
    return to_dialect(canonical, "onnxruntime-u8")


def widths(model: onnx.ModelProto) -> list[tuple[int, int, int]]:
    """Outputs, inputs a group and groups of every convolution."""
    view = GraphView.of(model.graph)
    found = [filters_of(view, node) for node in model.graph.node if node.op_type == "Conv"]
    return [(each.outputs, each.inputs, each.groups) for each in found if each is not None]


def assert_same(canonical: onnx.ModelProto) -> onnx.ModelProto:
    """The padded graph, after it gave the same bits as the plain one, optimized and as it is written."""
    plain, wide, x = to_dialect(canonical, "onnxruntime-u8", UNPADDED), padded(canonical), inputs(canonical)
    check_graph(wide, spec_of("onnxruntime-u8"), "padded")
    for as_written in (False, True):
        found, expected = (
            run_batches(open_session(model, as_written=as_written), x) for model in (wide, plain)
        )
        # Gemm and pool sum floats, in an order that depends on the kernel, where nothing is optimized.
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 if as_written else 0)
    return wide


class Builder(Writer):
    """Writes a random network of blocks, all of whose widths are whatever they are."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.x, self.width = self.quantize("input"), 3

    def add(self, block: str, width: int, kernel: int) -> None:
        x, old = self.x, self.width
        match block:
            case "dense":
                self.x, self.width = self.block(x, old, width, kernel), width
            case "linear":
                self.x, self.width = self.quantize(self.conv(x, old, width, kernel)), width
            case "depthwise" if old > 1:
                self.x = self.block(x, old, old, kernel, group=old)
            case "residual":
                y = self.quantize(self.conv(self.block(x, old, width, kernel), width, old, 1))
                self.x = self.quantize(self.op("Add", y, x))
            case "pool":
                self.x = self.quantize(self.op("MaxPool", x, kernel_shape=[2, 2], pads=[0, 0, 1, 1]))
            case "gate":
                pooled = self.quantize(self.op("GlobalAveragePool", x))
                gate = self.op("Sigmoid", self.quantize(self.conv(pooled, old, old, 1)))
                self.x = self.quantize(self.op("Mul", x, self.quantize(gate)))
            case "concat":
                both = self.op("Concat", x, self.block(x, old, width, 1), axis=1)
                self.x, self.width = self.quantize(both), old + width
            case "reshape":
                self.x = self.quantize(self.op("Identity", x))
            case _:
                pass


BLOCKS = ("dense", "linear", "depthwise", "residual", "pool", "gate", "concat", "reshape")


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    blocks=st.lists(
        st.tuples(st.sampled_from(BLOCKS), st.integers(1, 40), st.sampled_from((1, 3))),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 99),
)
def test_padding_changes_no_logit(blocks: list[tuple[str, int, int]], seed: int) -> None:
    write = Builder(seed)
    for block in blocks:
        write.add(*block)
    assert_same(write.graph(write.head(write.x, write.width)))


@pytest.mark.parametrize("name", CASES)
def test_no_case_changes(name: str) -> None:
    assert_same(CASES[name]())


def inverted(hidden: int, width: int) -> onnx.ModelProto:
    """Expansion, depthwise, projection with a skip, and a wide last layer, as in MobileNetV2."""
    write = Writer()
    x = write.quantize(write.conv(write.quantize("input"), 3, width))
    y = write.block(write.block(x, width, hidden, kernel=1), hidden, hidden, group=hidden)
    y = write.quantize(write.conv(y, hidden, width, kernel=1))
    x = write.block(write.quantize(write.op("Add", y, x)), width, 32, kernel=1)
    return write.graph(write.head(x, 32))


def test_an_inverted_residual_gets_the_widths_of_the_kernels() -> None:
    wide = assert_same(inverted(hidden=72, width=12))
    assert widths(wide) == [(16, 4, 1), (80, 16, 1), (80, 1, 80), (16, 80, 1), (32, 16, 1)]
    assert wide.graph.node[0].op_type == "Pad"


def test_widths_that_fit_stay() -> None:
    canonical = inverted(hidden=64, width=24)
    assert widths(padded(canonical))[1:] == widths(canonical)[1:]


def test_every_convolution_runs_in_the_fused_kernel_unless_something_fixes_it() -> None:
    for outputs, inputs_, groups in widths(padded(inverted(hidden=30, width=5))):
        if groups > 1:
            assert outputs % 16 == 0
        else:
            assert outputs >= 16
            assert outputs % 8 == inputs_ % 4 == 0


def test_what_a_reshape_or_a_concatenation_sees_keeps_its_width() -> None:
    write = Writer()
    x = write.block(write.quantize("input"), 3, 6)
    y = write.block(write.quantize(write.op("Concat", x, write.block(x, 6, 10), axis=1)), 16, 9)
    assert [outputs for outputs, *_ in widths(assert_same(write.graph(write.head(y, 9))))] == [6, 10, 9]


def test_new_filters_and_biases_are_zero_and_scales_positive() -> None:
    wide = padded(inverted(hidden=72, width=12))
    view = GraphView.of(wide.graph)
    expansion = [node for node in wide.graph.node if node.op_type == "Conv"][1]
    found = filters_of(view, expansion)
    assert found is not None
    scale, bias = view.constant(found.dequantizer.input[1]), view.constant(expansion.input[2])
    assert scale is not None
    assert bias is not None
    assert not found.codes[72:].any()
    assert not found.codes[:, 12:].any()
    assert found.codes[:72, :12].any(axis=(1, 2, 3)).all()
    assert (scale[72:] == 1).all()
    assert not bias[72:].any()
    depthwise = [node for node in wide.graph.node if node.op_type == "Conv"][2]
    assert attribute(depthwise, "group", 1) == 80


def test_an_input_that_something_else_reads_is_not_padded() -> None:
    write = Writer()
    x = write.quantize("input")
    total = write.quantize(write.op("Add", write.quantize(write.conv(x, 3, 3)), x))
    wide = assert_same(write.graph(write.head(total, 3)))
    assert "Pad" not in {node.op_type for node in wide.graph.node}


def test_what_reads_the_input_in_float_does_not_see_the_padding() -> None:
    write = Writer()
    x = write.quantize(write.conv(write.quantize("input"), 3, 3))
    wide = assert_same(write.graph(write.op("Add", x, "input"), rank=4))
    assert wide.graph.node[0].op_type == "Pad"
    assert wide.graph.node[-1].input[1] == "input"


def test_a_filter_that_two_convolutions_share_fixes_their_width() -> None:
    write = Writer()
    x = write.block(write.quantize("input"), 3, 6)
    weight, bias = write.weight(6, 6, 1, 1), write.bias(6)
    sizes = {"kernel_shape": [1, 1]}
    for _ in range(2):
        x = write.quantize(write.op("Conv", x, weight, bias, **sizes))
    assert widths(assert_same(write.graph(write.head(x, 6)))) == [(6, 4, 1)]


def test_logits_of_a_convolution_keep_their_width() -> None:
    write = Writer()
    logits = write.conv(write.quantize("input"), 3, CLASSES)
    assert widths(assert_same(write.graph(logits, rank=4))) == [(CLASSES, 4, 1)]


def test_each_dialect_of_the_runtime_is_padded_and_that_of_another_is_not() -> None:
    canonical = inverted(hidden=72, width=12)
    assert to_dialect(canonical, "tensorrt-s8") == canonical
    assert widths(to_dialect(canonical, "onnxruntime-u8u8")) == widths(padded(canonical))


def test_it_leaves_no_constant_behind() -> None:
    wide = padded(inverted(hidden=72, width=12))
    used = {name for node in wide.graph.node for name in node.input}
    assert {tensor.name for tensor in wide.graph.initializer} <= used
    sizes = [numpy_helper.to_array(tensor).size for tensor in wide.graph.initializer]
    assert sizes.count(80 * 16) == 2  # the expansion's filters, and the projection's
