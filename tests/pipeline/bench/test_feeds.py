"""What graphs are fed: files of a user's are held against the graph, and made-up ones fit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UsageError
from edgekd.pipeline.bench import feeds
from edgekd.pipeline.bench.feeds import GraphInput, check_inputs, graph_inputs, made_up
from tests.pipeline.bench.fakes import write_graph

HINT = "--inputs takes a .npy, batch first; a graph of several inputs takes a .npz, one array an input"
F32 = np.dtype(np.float32)
ONE = (GraphInput("x", F32, (0, 3, 8)),)
TWO = (GraphInput("x", F32, (2, 4)), GraphInput("file", np.dtype(np.int64), (2,)))


def refusal(path: Path, wants: tuple[GraphInput, ...], batch_size: int = 1) -> str:
    with pytest.raises(UsageError) as caught:
        check_inputs(path, wants, batch_size)
    return str(caught.value)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_inputs_are_read_with_names_types_and_free_sizes(tmp_path):
    types = onnx.TensorProto
    path = write_graph(tmp_path / "g.onnx", ("x", types.FLOAT16, ["N", 3, "H"]), ("t", types.BOOL, []))
    found = graph_inputs(onnx.load(path), path)
    assert [(one.name, one.dtype.name, one.shape, one.batch) for one in found] == [
        ("x", "float16", (0, 3, 0), 0),
        ("t", "bool", (), 1),
    ]
    assert list(map(str, found)) == ["x: float16 (?, 3, ?)", "t: bool ()"]


def test_initializers_are_no_inputs(tmp_path):
    path = write_graph(tmp_path / "g.onnx", ("x", 1, [1, 4]), ("one", 1, []))  # `one` has a value
    assert [one.name for one in graph_inputs(onnx.load(path), path)] == ["x"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (onnx.helper.make_tensor_value_info("t", onnx.TensorProto.STRING, [1]), "a tensor of STRING"),
        (onnx.helper.make_tensor_value_info("t", onnx.TensorProto.BFLOAT16, [1]), "a tensor of BFLOAT16"),
        (onnx.helper.make_tensor_value_info("t", onnx.TensorProto.INT4, [1]), "a tensor of INT4"),
        (onnx.helper.make_tensor_sequence_value_info("t", 1, [1]), "a sequence, no tensor"),
        (onnx.ValueInfoProto(name="t"), "a value, no tensor"),
    ],
)
def test_what_is_no_tensor_of_numbers_is_refused(value, said):
    model = onnx.ModelProto(graph=onnx.GraphProto(input=[value]))
    with pytest.raises(UsageError) as caught:
        graph_inputs(model, Path("g.onnx"))
    hint = "bench feeds tensors of truths, integers, float16, float32 or float64"
    assert str(caught.value) == f"g.onnx: its input t is {said}\n  try: {hint}"


def test_an_unknown_rank_is_refused(tmp_path):
    path = write_graph(tmp_path / "g.onnx", ("x", 1, None))
    with pytest.raises(UsageError) as caught:
        graph_inputs(onnx.load(path), Path("g.onnx"))
    hint = "export it with the rank of each input"
    assert str(caught.value) == f"g.onnx: its input x has no shape\n  try: {hint}"


def test_files_that_fit(tmp_path):
    check_inputs(saved(tmp_path / "x.npy", np.zeros((4, 3, 8), F32)), ONE, 4)
    free = (GraphInput("x", F32, (0, 0)),)
    check_inputs(saved(tmp_path / "free.npy", np.zeros((4, 7), F32)), free, 2)
    np.savez(tmp_path / "one.npz", x=np.zeros((5, 2, 3, 8), F32))
    check_inputs(tmp_path / "one.npz", ONE, 2)


@pytest.mark.parametrize(
    ("array", "batch_size", "said"),
    [
        (np.zeros((4, 3, 8)), 1, "holds float64 (4, 3, 8); the graph takes float32 (N, 3, 8)"),
        (np.zeros((4, 3), F32), 1, "holds float32 (4, 3); the graph takes float32 (N, 3, 8)"),
        (np.zeros((4, 3, 8), F32), 5, "holds 4 inputs; a batch has 5"),
        (np.zeros((0, 3, 8), F32), 1, f"holds no inputs\n  try: {HINT}"),
        (np.float32(1), 1, f"holds no inputs\n  try: {HINT}"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, array, batch_size, said):
    path = saved(tmp_path / "x.npy", array)
    assert refusal(path, ONE, batch_size) == f"{path}: {said}"


def test_files_that_are_none(tmp_path):
    whole = saved(tmp_path / "whole.npy", np.zeros((4, 3, 8), F32)).read_bytes()
    np.savez(tmp_path / "whole.npz", x=np.zeros((4, 3, 8), F32))
    contents = {
        "text.npy": (b"hello", "This file contains pickled (object) data"),
        "empty.npy": (b"", "No data left in file"),
        "cut.npy": (whole[:200], "mmap length is greater than file size"),
        "cut.npz": ((tmp_path / "whole.npz").read_bytes()[:200], "File is not a zip file"),
    }
    for name, (data, said) in contents.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert refusal(path, ONE) == f"{path}: is no file of numbers: {said}\n  try: {HINT}"
    for path in (tmp_path / "none.npy", tmp_path):
        assert refusal(path, ONE) == f"{path}: there is no such file of inputs\n  try: {HINT}"


def test_pickled_objects_are_not_unpickled(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert "is no file of numbers: Array can't be memory-mapped" in refusal(path, ONE)
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    said = "is no file of numbers: Object arrays cannot be loaded when allow_pickle=False"
    assert refusal(tmp_path / "x.npz", ONE) == f"{tmp_path / 'x.npz'}: {said}\n  try: {HINT}"


def test_npz_that_does_not_fit(tmp_path):
    path = tmp_path / "x.npz"

    def said(**arrays: np.ndarray) -> str:
        path.write_bytes(feeds._npz(arrays))
        return refusal(path, TWO).removeprefix(f"{path}: ")

    x, file = np.zeros((3, 2, 4), F32), np.zeros((3, 2), np.int64)
    takes = "the graph takes x: float32 (2, 4), file: int64 (2)"
    wrong_names = "does not hold the graph's inputs: file is missing; y is no input"
    assert said(x=x, y=x) == f"{wrong_names}\n  try: {takes}; {HINT}"
    different = f"holds arrays of different numbers of feeds\n  try: {HINT}"
    assert said(x=x, file=file[:2]) == different
    assert said(x=x[:0], file=file[:0]) == different
    assert said(x=x, file=file.astype(np.int32)) == "holds int32 (3, 2) for file: int64 (2), feeds first"
    assert said(x=x[:, 0], file=file) == "holds float32 (3, 4) for x: float32 (2, 4), feeds first"
    one = saved(tmp_path / "x.npy", x)
    assert refusal(one, TWO) == f"{one}: holds one array; {takes}\n  try: {HINT}"
    assert refusal(one, ()) == f"{one}: the graph takes no inputs\n  try: leave --inputs out"


def test_made_up_inputs_are_batches_of_the_graphs_shape(tmp_path):
    path, note = made_up(ONE, 2, tmp_path, "g")
    x_NX = np.load(path)
    assert (path.suffix, x_NX.shape, x_NX.dtype) == (".npy", (32, 3, 8), np.float32)
    assert abs(float(x_NX.mean())) < 0.1
    assert 0.9 < float(x_NX.std()) < 1.1
    assert note == "the inputs are random (standard normal): latency is measured, accuracy is not"


@pytest.mark.parametrize(
    ("wants", "kinds"),
    [
        (TWO, "the inputs are random and zeros"),
        ((TWO[1],), "the inputs are zeros"),
        ((), "the graph takes no inputs"),
    ],
)
def test_it_says_what_the_inputs_are(tmp_path, wants, kinds):
    assert made_up(wants, 1, tmp_path, "g")[1] == f"{kinds}: latency is measured, accuracy is not"


def test_graphs_that_are_fed_alike_share_a_file_and_others_do_not(tmp_path):
    first = made_up(ONE, 1, tmp_path, "a")[0]
    stamp = first.stat().st_mtime_ns
    assert made_up(ONE, 1, tmp_path, "b")[0] == first
    assert first.stat().st_mtime_ns == stamp  # a device may be reading it
    others = {made_up(wants, size, tmp_path, "a")[0] for wants, size in ((ONE, 2), (TWO, 1), ((), 1))}
    assert len(others | {first}) == 4


def test_a_large_shape_gets_fewer_batches_and_a_huge_one_none(tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "MADE_UP_ELEMENTS", 100)
    path, _ = made_up((GraphInput("x", F32, (0, 40)),), 1, tmp_path, "g")
    assert np.load(path).shape == (2, 40)
    with pytest.raises(UsageError) as caught:
        made_up((GraphInput("x", F32, (0, 40)),), 3, tmp_path, "g")
    assert (
        str(caught.value) == f"g: a batch of shape (3, 40) is too large to make up\n  try: give one: {HINT}"
    )
    with pytest.raises(UsageError) as caught:
        made_up((GraphInput("x", F32, (1, 0)),), 1, tmp_path, "g")
    message = "the shape of an example is not fixed in the graph"
    assert str(caught.value) == f"g: {message}\n  try: give one: {HINT}"


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
INPUTS = st.builds(
    GraphInput,
    NAMES,
    st.sampled_from([np.dtype(name) for name in ("f2", "f4", "f8", "i8", "u1", "b1")]),
    st.lists(st.integers(1, 3), max_size=3).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(wants=st.lists(INPUTS, max_size=3, unique_by=lambda one: one.name), batch_size=st.integers(1, 3))
def test_made_up_inputs_fit_their_graph(tmp_path_factory, wants, batch_size):
    folder = tmp_path_factory.mktemp("feeds")
    path, _ = made_up(tuple(wants), batch_size, folder, "g")
    if wants:
        check_inputs(path, tuple(wants), batch_size)
    assert [each.name for each in folder.iterdir()] == [path.name]
