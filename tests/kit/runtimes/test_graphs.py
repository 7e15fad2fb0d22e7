"""What the kit says of a graph without onnx: its digest, weights in other files included, and its shapes."""

import hashlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.kit.runtimes import graphs as small

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=300)


@pytest.fixture
def graphs(kit_module):
    return kit_module("graphs")


def model_with(names):
    """A graph with a tensor in each of these files."""
    tensors = []
    for number, name in enumerate(names):
        tensor = onnx.TensorProto(name=f"w{number}", dims=[2], data_type=onnx.TensorProto.FLOAT)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", "0"), ("length", "8")):
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return helper.make_model(helper.make_graph(nodes, "g", [], [], tensors))


def test_every_file_of_weights_is_found(kit_module):
    graphs = kit_module("graphs")

    @settings(max_examples=100, deadline=None)
    @given(names=st.lists(NAMES, max_size=4))
    def check(names):
        assert graphs.external_files(model_with(names).SerializeToString()) == sorted(set(names))

    check()


def test_the_digest_of_a_graph_in_one_file_is_the_files(graphs, tmp_path):
    small.dense(tmp_path / "g.onnx")
    assert (
        graphs.sha256(str(tmp_path / "g.onnx"))
        == hashlib.sha256((tmp_path / "g.onnx").read_bytes()).hexdigest()
    )


def test_the_digest_changes_with_weights_in_another_file(graphs, tmp_path):
    """The graph's own bytes stay the same: a digest of them alone would give two students one engine."""
    onnx.save(model_with(["w.bin"]), tmp_path / "g.onnx")
    digests = []
    for values in ([1, 2], [1, 3]):
        np.array(values, np.float32).tofile(tmp_path / "w.bin")
        digests.append(graphs.sha256(str(tmp_path / "g.onnx")))
    (tmp_path / "w.bin").unlink()
    digests.append(graphs.sha256(str(tmp_path / "g.onnx")))
    assert len(set(digests)) == 3


def test_a_folder_for_a_graph(graphs, tmp_path):
    small.dense(tmp_path / "g.onnx")
    path = str(tmp_path / "g.onnx")
    assert graphs.cache_folder({"cache": None}, path) is None
    folder = graphs.cache_folder({"cache": str(tmp_path / "cache")}, path)
    assert folder == str(tmp_path / "cache" / graphs.sha256(path))
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / graphs.sha256(path)]


@pytest.mark.parametrize(
    ("shape", "found", "problem"),
    [
        (("batch", 3, None, -1), (2, 3, 9, 9), None),
        ((2, 3), (2, 3), None),
        ((2, 3), (1, 3), "takes inputs of shape (2, 3), found (1, 3)"),
        (("batch", 3), (1, 3, 1), "takes inputs of shape (any, 3), found (1, 3, 1)"),
        ((0, 4), (1, 3), "takes inputs of shape (any, 4), found (1, 3)"),
    ],
)
def test_shapes(graphs, shape, found, problem):
    if problem is None:
        graphs.check_shape("g.onnx", shape, np.zeros(found))
        return
    with pytest.raises(graphs.RefusedError) as caught:
        graphs.check_shape("g.onnx", shape, np.zeros(found))
    assert str(caught.value) == f"g.onnx: {problem}"
