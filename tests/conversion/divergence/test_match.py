from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.conversion.divergence.layers import open_candidate
from edgekd.conversion.divergence.match import Match, match
from edgekd.conversion.divergence.skeleton import plain, skeleton
from edgekd.conversion.remove_quantizers import quantized_tensors
from edgekd.errors import ConversionError, UsageError
from tests.conversion.divergence.small import copied, small
from tests.conversion.graphs import CASES

X = np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)
HEAD = '<ir_version: 10, opset_import: ["": 21]> '


def graph(
    body: str, weights: dict[str, tuple[int, ...]] | None = None, shape: str = "4, 6, 6"
) -> onnx.ModelProto:
    """A graph of one input x of (N, 4, 6, 6), with random weights."""
    model = onnx.parser.parse_model(
        f"{HEAD}g (float[N, {shape}] x) => (float[N, ...] y) {{ {body} }}".replace(", ...", ", M")
    )
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    random = np.random.default_rng(1)
    for name, size in (weights or {}).items():
        value = random.uniform(0.5, 1, size).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def matched(candidate: onnx.ModelProto, reference: onnx.ModelProto, x: np.ndarray = X) -> Match:
    quantized = {one.name for one in quantized_tensors(candidate)}
    return match(skeleton(plain(candidate), x, "c"), skeleton(plain(reference), x, "r"), quantized)


def names(found: Match) -> list[tuple[str, str]]:
    return [pair.core for pair in found.pairs[1:]]


CONV = {"w": (4, 4, 3, 3), "v": (4, 4, 3, 3)}


@pytest.mark.parametrize("name", list(CASES))
def test_every_tensor_of_a_network_finds_its_own(name: str) -> None:
    given = small(name, "tensorrt-s8")
    found = matched(given.candidate, given.reference, given.x[:2])
    tensors = skeleton(given.reference, given.x[:2], "r").tensors.values()
    made = [tensor.name for tensor in tensors if tensor.node.op_type != "Identity"]
    assert names(found) == [(name, name) for name in made]
    assert found.wired_otherwise == ()


def test_names_need_not_be_the_same() -> None:
    ours = graph("a = Conv (x, w) b = Relu (a) c = Conv (b, v) y = Relu (c)", CONV)
    theirs = graph("p = Conv (x, w) q = Relu (p) r = Conv (q, v) y = Relu (r)", CONV)
    assert names(matched(ours, theirs)) == [("a", "p"), ("b", "q"), ("c", "r"), ("y", "y")]


def test_names_that_are_kept_lead_where_branches_change_places() -> None:
    ours = graph("[n1] a = Conv (x, w) [n2] b = Conv (x, v) [n3] y = Add (a, b)", CONV)
    theirs = graph("[n2] b = Conv (x, v) [n1] a = Conv (x, w) [n3] y = Add (a, b)", CONV)
    assert names(matched(ours, theirs)) == [("a", "a"), ("b", "b"), ("y", "y")]


def test_the_path_of_a_module_leads_where_numbers_differ() -> None:
    ours, theirs = graph("a = Relu (x) b = Relu (a) y = Neg (b)"), graph("p = Relu (x) y = Neg (p)")
    ours.graph.node[0].name, ours.graph.node[1].name, theirs.graph.node[0].name = (
        *("m/Relu_7", "n/Relu_9"),
        "n/Relu",
    )
    assert names(matched(ours, theirs)) == [("b", "p"), ("y", "y")]


def test_a_relu_that_is_lost_belongs_to_what_it_followed() -> None:
    ours = graph("a = Conv (x, w) y = Conv (a, v)", CONV)
    theirs = graph("p = Conv (x, w) q = Relu (p) y = Conv (q, v)", CONV)
    (_, first, _) = matched(ours, theirs).pairs
    assert (first.candidate, first.reference, first.missing, first.core) == ("a", "q", ("q",), ("a", "p"))


def test_a_batch_norm_is_folded_or_a_convolution_of_its_own() -> None:
    norm: dict[str, tuple[int, ...]] = dict.fromkeys(("g", "b", "m", "s"), (4,))
    folded = graph("a = Conv (x, w) y = Relu (a)", CONV)
    theirs = graph("p = Conv (x, w) q = BatchNormalization (p, g, b, m, s) y = Relu (q)", CONV | norm)
    (_, conv, _) = matched(folded, theirs).pairs
    assert (conv.reference, conv.missing) == ("q", ("q",))
    alone = graph("a = Conv <group = 4> (x, d) y = Relu (a)", {"d": (4, 1, 1, 1)})
    theirs = graph("q = BatchNormalization (x, g, b, m, s) y = Relu (q)", norm)
    assert names(matched(alone, theirs)) == [("a", "q"), ("y", "y")]


def test_a_product_and_its_bias_are_a_gemm() -> None:
    ours = graph("y = Gemm <transB = 1> (x, w, b)", {"w": (5, 6), "b": (5,)}, shape="6")
    theirs = graph("p = MatMul (x, w) y = Add (p, b)", {"w": (6, 5), "b": (5,)}, shape="6")
    (_, pair) = matched(ours, theirs, X[:, 0, 0]).pairs
    assert (pair.core, pair.reference, pair.absorbed) == (("y", "p"), "y", ((), ("y",)))
    (_, pair) = matched(theirs, ours, X[:, 0, 0]).pairs
    assert (pair.core, pair.candidate, pair.absorbed) == (("p", "y"), "y", (("y",), ()))


def test_tokens_may_lie_in_the_axis_of_the_batch() -> None:
    weights = {"w": (6, 5)}
    ours = graph("f = Reshape (x, s) a = MatMul (f, w) y = Relu (a)", weights, shape="3, 6")
    ours.graph.initializer.append(numpy_helper.from_array(np.array([-1, 6]), "s"))
    theirs = graph("p = MatMul (x, w) y = Relu (p)", weights, shape="3, 6")
    assert names(matched(ours, theirs, X[:, :3, 0])) == [("a", "p"), ("y", "y")]


def test_channels_may_be_filled_up() -> None:
    ours = graph("f = Pad (x, n) a = Conv (f, w) y = Relu (a)", {"w": (8, 8, 3, 3)})
    ours.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 4, 0, 0]), "n"))
    theirs = graph("p = Conv (x, w) y = Relu (p)", {"w": (5, 4, 3, 3)})
    found = matched(ours, theirs)
    assert (found.pairs[0].candidate, found.pairs[0].reference) == ("f", "x")
    assert names(found) == [("a", "p"), ("y", "y")]
    assert names(matched(theirs, ours)) == [("p", "a"), ("y", "y")]


def test_what_reads_other_tensors_is_another() -> None:
    ours = graph("a = Conv (x, w) b = Conv (a, v) y = Add (b, b)", CONV | {"v": (4, 4, 1, 1)})
    theirs = graph("p = Conv (x, w) q = Conv (p, v) y = Add (q, p)", CONV | {"v": (4, 4, 1, 1)})
    found = matched(ours, theirs)
    assert names(found) == [("a", "p"), ("b", "q")]
    assert found.wired_otherwise == (("y", "y"),)


def test_hard_swish_is_a_gate() -> None:
    ours = graph("h = HardSigmoid <alpha = 0.166666667, beta = 0.5> (x) y = Mul (x, h)")
    theirs = graph("y = HardSwish (x)")
    assert names(matched(ours, theirs)) == [("h", "y/gate"), ("y", "y")]
    swish = skeleton(plain(theirs), X, "r")
    (y,) = [one for one in swish.tensors if one == "y"]
    assert swish.tensors[y].sources == ((0, "x"), (1, "y/gate"))


def test_functions_are_their_bodies() -> None:
    model = graph("y = Identity (x)")
    function = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 21)],
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Twice", "own"
    assert names(matched(model, graph("y = Add (x, x)"))) == [("y", "y")]


def test_layers_end_at_quantizers_and_take_their_activation_along() -> None:
    given = small("residual", "tensorrt-s8")
    layers = open_candidate(given.candidate, given.x[:2], "candidate").layers
    assert [(layer.name, layer.operation, len(layer.quantizers)) for layer in layers] == [
        ("input 'input'", "input", 1),
        ("/Conv_3", "Conv + Relu", 1),
        ("/Conv_8", "Conv + Relu", 1),
        ("/Conv_13", "Conv", 1),
        ("/Add_16", "Add + Relu", 1),
        ("/GlobalAveragePool_20", "GlobalAveragePool", 1),
        ("/Flatten_23", "Flatten", 1),
        ("/Gemm_27", "Gemm", 0),
    ]
    assert [layer.name for layer in layers if not layer.computes] == ["/Flatten_23"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = Constant <value_floats = [1.0, 2.0]> ()", "g: computes nothing of its input"),
        ("y = Conv (x, w)", "g: ONNX Runtime cannot run the graph: "),
    ],
)
def test_a_graph_that_shows_nothing(body: str, message: str) -> None:
    model = graph(body, {"w": (4, 3, 3, 3)} if "Conv" in body else {})
    with pytest.raises((UsageError, ConversionError)) as caught:
        skeleton(model, X, "g")
    assert str(caught.value).startswith(message)


def test_a_graph_of_two_inputs_is_refused() -> None:
    model = copied(graph("y = Relu (x)"))
    model.graph.input.append(helper.make_tensor_value_info("z", 1, [1]))
    with pytest.raises(UsageError, match="g: has 2 inputs: 'x', 'z'; graphs of one input can be compared"):
        skeleton(model, X, "g")
