from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.conversion.auditing.feed import BATCHES, given_feed, random_feed, with_defaults
from edgekd.errors import UsageError
from edgekd.runtimes.onnxruntime import open_session


def graph(x: str) -> onnx.ModelProto:
    """A graph that gives its input `x`, such as `float[N, 3] x`, back."""
    result = x.removesuffix("x") + "y"
    text = f'<ir_version: 10, opset_import: ["": 13]> g ({x}) => ({result}) {{ y = Identity (x) }}'
    return onnx.parser.parse_model(text)


def several() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 13]>
        g (int64[N, 2] i, float[N, 2] x, bool b, float t) => (float[N, 2] y)
        { f = Cast <to = 1> (i) g = Cast <to = 1> (b) h = Mul (f, g) s = Add (x, h) y = Mul (s, t) }"""
    )


def test_inputs_are_made_up_in_the_shapes_that_the_graph_takes() -> None:
    feed = random_feed(graph("float[N, 3, 4] x"))
    assert (feed.main, feed.batch_size, feed.batches.shape, feed.batches.dtype) == (
        "x",
        1,
        (BATCHES, 3, 4),
        np.float32,
    )
    assert feed.random
    assert feed.first_batch.shape == (1, 3, 4)
    assert 0.5 < feed.batches.std() < 1.5


def test_a_fixed_batch_is_kept() -> None:
    feed = random_feed(graph("float16[4, 3] x"))
    assert (feed.batch_size, feed.batches.shape, feed.batches.dtype) == (4, (4 * BATCHES, 3), np.float16)


def test_several_inputs_become_defaults() -> None:
    model = several()
    feed = random_feed(model)
    assert (feed.main, sorted(feed.defaults)) == ("x", ["b", "i", "t"])
    assert feed.defaults["i"].dtype == np.int64
    assert set(np.unique(feed.defaults["i"])) <= {0, 1}
    fed = with_defaults(model, feed)
    onnx.checker.check_model(fed)
    session = open_session(fed)
    assert [entry.name for entry in session.get_inputs()] == ["x"]
    (found,) = session.run(None, {"x": feed.first_batch})
    defaults = feed.defaults
    expected = (feed.first_batch + defaults["i"] * defaults["b"]) * defaults["t"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_defaults_are_not_folded_into_the_graph() -> None:
    model = several()
    session = open_session(with_defaults(model, random_feed(model)))
    assert {entry.name for entry in session.get_overridable_initializers()} == {"b", "i", "t"}


def test_an_old_graph_lists_its_constants_as_inputs_and_keeps_them_constant() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 3, opset_import: ["": 8]>
        g (float[N, 2] x, float[N, 2] z, float[2] c) => (float[N, 2] y) <float[2] c = {1, 2}>
        { s = Add (x, z) y = Mul (s, c) }"""
    )
    fed = with_defaults(model, random_feed(model))
    assert [entry.name for entry in fed.graph.input] == ["x", "z"]
    assert {entry.name for entry in open_session(fed).get_overridable_initializers()} == {"z"}


REFUSED = {
    "float[N, S, T] x": "axes of its input 'x' are free: S, T",
    "float[] x": "the number of axes of its input 'x' is free",
    "string[N] x": "its input 'x' is of type STRING, for which no array can be made",
    "bfloat16[N] x": "its input 'x' is of type BFLOAT16, for which no array can be made",
    "float x": "the graph has no input with an axis",
    "float[1, 99999, 99999] x": "its input 'x' of shape (1, 99999, 99999) is too large to make up",
}


@pytest.mark.parametrize(("inputs", "message"), REFUSED.items())
def test_inputs_that_cannot_be_made_up(inputs: str, message: str) -> None:
    model = graph(inputs)
    if inputs == "float[] x":
        model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UsageError) as caught:
        random_feed(model)
    assert caught.value.message == message


def test_a_graph_without_inputs() -> None:
    text = '<ir_version: 10, opset_import: ["": 13]> g () => (float y) <float c = {1}> { y = Identity (c) }'
    with pytest.raises(UsageError, match="the graph has no inputs"):
        random_feed(onnx.parser.parse_model(text))


def test_arrays_that_were_given() -> None:
    model = graph("float[N, S] x")
    feed = given_feed(model, {"": np.ones((3, 7), np.float32)})
    assert (feed.main, feed.batch_size, feed.batches.shape, feed.random) == ("x", 1, (3, 7), False)
    arrays = random_feed(several()).defaults
    feed = given_feed(several(), {"x": np.ones((1, 2), np.float32), **arrays})
    assert sorted(feed.defaults) == ["b", "i", "t"]


def test_what_is_left_of_the_last_batch_is_not_used() -> None:
    feed = given_feed(graph("float[4, 2] x"), {"x": np.ones((10, 2), np.float32)})
    assert (feed.batch_size, len(feed.batches)) == (4, 8)


WRONG = {
    "another type": ({"": np.ones((2, 3))}, "holds float64 (2, 3) for 'x'; the graph takes float32 (N, 3)"),
    "another shape": (
        {"": np.ones((2, 4), np.float32)},
        "holds float32 (2, 4) for 'x'; the graph takes float32 (N, 3)",
    ),
    "other names": ({"z": np.ones((2, 3), np.float32)}, "has arrays 'z'; the graph's inputs are 'x'"),
    "no arrays": ({}, "has arrays none; the graph's inputs are 'x'"),
    "too few": ({"": np.ones((0, 3), np.float32)}, "holds 0 examples; a batch of 'x' has 1"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG.values(), ids=WRONG.keys())
def test_arrays_that_do_not_fit(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        given_feed(graph("float[N, 3] x"), arrays)
    assert caught.value.message == message


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 4),
    st.lists(st.integers(1, 5), max_size=3),
    st.sampled_from(["float", "float16", "double", "int8", "uint8", "int32", "int64", "bool"]),
)
def test_what_is_made_up_is_what_the_runtime_takes(batch: int, axes: list[int], kind: str) -> None:
    sizes = ", ".join([str(batch) if batch else "N", *map(str, axes)])
    model = graph(f"{kind}[{sizes}] x")
    feed = random_feed(model)
    (found,) = open_session(model).run(None, {"x": feed.first_batch})
    np.testing.assert_array_equal(found, feed.first_batch)
    assert feed.batches.shape == (BATCHES * max(1, batch), *axes)
