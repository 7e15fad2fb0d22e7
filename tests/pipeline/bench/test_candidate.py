"""What is measured: any ONNX file with its weights, whole; batches that a graph allows."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

from edgekd.errors import BundleError, UsageError
from edgekd.pipeline.bench.candidate import read_candidate
from tests.pipeline.bench.fakes import write_graph


def with_external_weights(path, values):
    """A graph whose constant lies in a file beside it."""
    model = onnx.load(write_graph(path))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array(values, np.float32), "one"))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_a_graph_is_taken_as_it_is(tmp_path):
    path = write_graph(tmp_path / "a graph.onnx")
    found = read_candidate(path, None, tmp_path / "scratch")
    assert (found.name, found.graph, found.profile, found.runtime) == (
        *("a graph.onnx", path),
        *("local", "onnxruntime"),
    )
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.size_bytes == path.stat().st_size
    assert not (tmp_path / "scratch").exists()


def test_weights_beside_a_graph_come_with_it_and_count(tmp_path):
    """Even a few bytes of them: a board is sent one file, and another weight is another graph."""
    path = with_external_weights(tmp_path / "g.onnx", [1, 2, 3, 4])
    first = read_candidate(path, None, tmp_path / "scratch")
    assert first.graph.parent == tmp_path / "scratch"
    whole = onnx.load(first.graph, load_external_data=False)
    assert onnx.numpy_helper.to_array(whole.graph.initializer[0]).tolist() == [1, 2, 3, 4]
    assert first.sha256 == hashlib.sha256(first.graph.read_bytes()).hexdigest()
    assert first.size_bytes == first.graph.stat().st_size
    (tmp_path / "weights.bin").write_bytes(np.array([1, 2, 3, 5], np.float32).tobytes())
    second = read_candidate(path, None, tmp_path / "scratch")
    assert second.sha256 != first.sha256
    assert second.graph != first.graph


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not an ONNX graph: it has no nodes"),
        (b"hello", "is not an ONNX graph: it is damaged or of another kind"),
        (None, "there is no such graph"),
    ],
)
def test_what_is_no_graph(tmp_path, data, said):
    path = tmp_path / "g.onnx"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        read_candidate(path, None, tmp_path)
    assert str(caught.value) == f"{path}: {said}"


def test_a_path_that_is_no_text_is_refused(tmp_path):
    path = write_graph(tmp_path / "g.onnx")
    odd = tmp_path / "\udcff.onnx"
    for given in ((odd, None), (path, odd)):
        with pytest.raises(UsageError) as caught:
            read_candidate(*given, tmp_path)
        assert str(caught.value) == f"{tmp_path}/?.onnx: its path is no UTF-8 text\n  try: rename it"


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError) as caught:
        read_candidate(tmp_path, None, tmp_path)
    hint = "point to RUN/bundles/PROFILE/RUNTIME"
    assert str(caught.value) == f"{tmp_path}: is no bundle: it holds no manifest.json\n  try: {hint}"


def test_a_users_inputs_are_checked_at_once_and_for_the_batch(tmp_path):
    path, inputs = write_graph(tmp_path / "g.onnx"), tmp_path / "x.npy"
    np.save(inputs, np.zeros((3, 4), np.float32))
    candidate = read_candidate(path, inputs, tmp_path)
    assert candidate.fed(3, tmp_path) == (inputs, None)
    with pytest.raises(UsageError) as caught:
        candidate.fed(4, tmp_path)
    assert str(caught.value) == f"{inputs}: holds 3 inputs; a batch has 4"
    np.save(inputs, np.zeros((3, 5), np.float32))
    with pytest.raises(UsageError, match=r"holds float32 \(3, 5\); the graph takes float32 \(N, 4\)"):
        read_candidate(path, inputs, tmp_path)


@pytest.mark.parametrize(
    ("inputs", "wanted", "size"),
    [
        ([("x", 1, ["N", 4])], None, 1),
        ([("x", 1, ["N", 4])], 8, 8),
        ([("x", 1, [6, 4])], None, 6),
        ([("x", 1, [6, 4])], 6, 6),
        ([("x", 1, [])], None, 1),
        ([("x", 1, [6, 4]), ("t", 1, [2])], None, 1),
    ],
)
def test_batch_sizes(tmp_path, inputs, wanted, size):
    candidate = read_candidate(write_graph(tmp_path / "g.onnx", *inputs), None, tmp_path)
    assert candidate.batch_size(wanted) == size


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            [("x", 1, [6, 4])],
            "the graph's batch is 6, not 4\n  try: export it with a free batch axis, or leave out --batch",
        ),
        (
            [("x", 1, [2]), ("t", 1, [2])],
            "--batch is for graphs of one input\n  try: a .npz of --inputs holds whole feeds",
        ),
    ],
)
def test_another_batch_than_the_graphs_is_refused(tmp_path, inputs, message):
    candidate = read_candidate(write_graph(tmp_path / "g.onnx", *inputs), None, tmp_path)
    with pytest.raises(UsageError) as caught:
        candidate.batch_size(4)
    assert str(caught.value) == f"g.onnx: {message}"


def test_the_batch_that_several_inputs_share_is_the_graphs(tmp_path):
    both = write_graph(tmp_path / "g.onnx", ("x", 1, [8, 2]), ("t", 1, [8, 3]))
    assert read_candidate(both, None, tmp_path).batch_size(None) == 8


def test_a_program_of_torch_tensorrt_is_known_by_what_it_is_fed(tmp_path):
    program, inputs = tmp_path / "student.pt2", tmp_path / "x.npy"
    program.write_bytes(b"a program")
    np.save(inputs, np.zeros((5, 1, 8, 8), np.float32))
    found = read_candidate(program, inputs, tmp_path)
    assert (found.runtime, found.labels, found.size_bytes) == ("torch-tensorrt", None, 9)
    assert [str(one) for one in found.wants] == ["input: float32 (?, 1, 8, 8)"]
    assert found.fed(5, tmp_path) == (inputs, None)
    with pytest.raises(UsageError) as caught:
        read_candidate(program, None, tmp_path)
    assert str(caught.value) == (
        f"{program}: a program does not tell what it takes\n  try: --inputs X.npy, batch first"
    )
    with pytest.raises(BundleError, match="there is no such program"):
        read_candidate(tmp_path / "none.pt2", inputs, tmp_path)
