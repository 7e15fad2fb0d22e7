from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.conversion.graph_view import GraphView
from edgekd.errors import BundleError
from edgekd.runtimes import graph_file
from edgekd.runtimes.graph_file import load_graph, load_structure

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def external(location: str, **extent: object) -> onnx.ModelProto:
    """A product with a weight that another file holds."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2, 3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **extent}.items():
        tensor.external_data.add(key=key, value=str(value))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [info("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [info("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [tensor],
    )
    return helper.make_model(graph)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the weight in it, and a secret outside."""
    inside = tmp_path / "bundle"
    (inside / "data").mkdir(parents=True)
    (inside / "data" / "w.bin").write_bytes(b"\0" * 8 + WEIGHT.tobytes())
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    return inside


def written(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_taken_in(folder: Path) -> None:
    model = load_graph(written(folder, external("data/w.bin", offset=8, length=24)))
    (tensor,) = model.graph.initializer
    assert tensor.data_location == onnx.TensorProto.DEFAULT
    assert not tensor.external_data
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), WEIGHT)
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("../secret.bin", "is at '../secret.bin', outside the graph's folder"),
        ("data/../../secret.bin", "is at 'data/../../secret.bin', outside the graph's folder"),
        ("..\\secret.bin", "is at '..\\\\secret.bin', outside the graph's folder"),
        ("/etc/hostname", "is at '/etc/hostname', which is no relative path"),
        ("C:\\secret.bin", "is at 'C:\\\\secret.bin', which is no relative path"),
        ("", "is at '', which is no relative path"),
        ("w\0.bin", "is at 'w\\x00.bin', which is no relative path"),
        ("data/none.bin", "is missing: there is no file 'data/none.bin'"),
        ("data", "is missing: there is no file 'data'"),
    ],
)
def test_external_data_elsewhere_is_refused(folder: Path, location: str, problem: str) -> None:
    path = written(folder, external(location))
    with pytest.raises(BundleError) as caught:
        load_graph(path)
    assert str(caught.value) == f"{path}: external data of 'w' {problem}"


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, link: str) -> None:
    if link == "file":
        os.symlink(folder.parent / "secret.bin", folder / "link")
        location = "link"
    else:
        os.symlink(folder.parent, folder / "link")
        location = "link/secret.bin"
    with pytest.raises(BundleError, match=f"'{location}', outside the graph's folder"):
        load_graph(written(folder, external(location)))


@pytest.mark.parametrize(
    ("extent", "problem"),
    [
        ({"offset": 16, "length": 24}, "ends after its file's 32 bytes"),
        ({"offset": 40}, "ends after its file's 32 bytes"),
        ({"offset": -8}, "ends after its file's 32 bytes"),
        ({"length": 2**40}, "ends after its file's 32 bytes"),
        ({"offset": "many"}, "has an offset or length that is no number"),
    ],
)
def test_external_data_beyond_its_file(folder: Path, extent: dict[str, object], problem: str) -> None:
    with pytest.raises(BundleError, match=f"external data of 'w' {problem}"):
        load_graph(written(folder, external("data/w.bin", **extent)))


def test_external_data_of_a_constant_in_a_branch(folder: Path) -> None:
    outside = external("../secret.bin").graph.initializer[0]
    constant = helper.make_node("Constant", [], ["u"], value=outside)
    info = helper.make_tensor_value_info
    branch = helper.make_graph([constant], "b", [], [info("u", onnx.TensorProto.FLOAT, [2, 3])])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [node], "g", [info("c", onnx.TensorProto.BOOL, [])], [info("y", onnx.TensorProto.FLOAT, [2, 3])]
    )
    with pytest.raises(BundleError, match="outside the graph's folder"):
        load_graph(written(folder, helper.make_model(graph)))


def test_external_data_of_a_constant_in_a_function(folder: Path) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=external("../secret.bin").graph.initializer[0])
    body = [constant, helper.make_node("MatMul", ["x", "w"], ["y"])]
    opset = [helper.make_opsetid("", 21)]
    model = external("data/w.bin", offset=8)
    model.functions.append(helper.make_function("local", "Layer", ["x"], ["y"], body, opset))
    with pytest.raises(BundleError, match="outside the graph's folder"):
        load_graph(written(folder, model))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not an ONNX graph: it has no nodes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not an ONNX graph: it is damaged or of another kind"),
        (external("w").SerializeToString()[:-5], "is not an ONNX graph: it is damaged or of another kind"),
    ],
    ids=["empty", "a picture", "cut off"],
)
def test_what_is_no_graph(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        load_graph(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such graph"):
        load_graph(tmp_path / "none.onnx")
    with pytest.raises(BundleError, match="cannot be read: Is a directory"):
        load_graph(tmp_path)


def test_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder, external("data/w.bin", offset=8))
    monkeypatch.setattr(graph_file, "MAX_GRAPH_BYTES", path.stat().st_size + 23)
    with pytest.raises(BundleError, match="is larger than 2 GiB with its external data"):
        load_graph(path)
    monkeypatch.setattr(graph_file, "MAX_GRAPH_BYTES", path.stat().st_size - 1)
    with pytest.raises(BundleError, match="is larger than 2 GiB, which no ONNX graph can be"):
        load_graph(path)


def test_the_structure_of_a_graph_is_read_without_its_large_tensors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(folder, external("data/w.bin", offset=8, length=24))
    (tensor,) = load_structure(path).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), WEIGHT)
    monkeypatch.setattr(graph_file, "SMALL_TENSOR_BYTES", 23)
    (tensor,) = load_structure(path).graph.initializer
    assert tensor.data_location == onnx.TensorProto.EXTERNAL
    assert not tensor.raw_data


def test_a_tensor_that_was_left_where_it_lies_has_no_value(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a file of that name lies in the current folder."""
    monkeypatch.setattr(graph_file, "SMALL_TENSOR_BYTES", 0)
    monkeypatch.chdir(folder)
    model = load_structure(written(folder, external("data/w.bin", offset=8, length=24)))
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(
        model.graph.initializer[0]
    )
    model.graph.node.append(constant)
    view = GraphView.of(model.graph)
    assert view.constant("w") is None
    assert view.constant("c") is None
    assert view.is_constant("w")


def test_a_structure_too_is_checked_for_where_its_data_lie(folder: Path) -> None:
    with pytest.raises(BundleError, match="outside the graph's folder"):
        load_structure(written(folder, external("../secret.bin", length=24)))
