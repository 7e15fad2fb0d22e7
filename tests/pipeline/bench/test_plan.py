"""Plans: every combination once, names that differ, texts of addresses and runtimes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UsageError
from edgekd.pipeline.bench.plan import (
    Place,
    Plan,
    check_runtime,
    parse_place,
    parse_places,
    parse_runtime,
    read_graphs,
)
from tests.pipeline.bench.fakes import write_graph

RUNTIMES = "onnxruntime, tensorrt, tensorrt-rtx, torch-tensorrt, openvino, reference, null"


@pytest.fixture
def graphs(tmp_path):
    paths = [write_graph(tmp_path / f"{name}.onnx", seed=seed) for seed, name in enumerate("ab")]
    return read_graphs(paths, None, tmp_path)


def test_every_combination_in_order(graphs):
    plan = Plan(graphs, runtimes=("onnxruntime", "reference"), threads=(1, 2), batches=(None, 4))
    found = [
        (one.graph, one.runtime, one.batch_size, one.threads, one.device)
        for one in plan.settings(Place("local"))
    ]
    wanted = [
        (graph, runtime, batch, threads, "local")
        for graph in ("a.onnx", "b.onnx")
        for runtime in ("onnxruntime", "reference")
        for batch in (1, 4)
        for threads in (1, 2)
    ]
    assert found == wanted


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [write_graph(tmp_path / folder / "model.onnx") for folder in ("one", "two")]
    other = write_graph(tmp_path / "other.onnx")
    assert list(read_graphs([*paths, other], None, tmp_path)) == [
        "one/model.onnx",
        "two/model.onnx",
        "other.onnx",
    ]


def test_a_graph_that_is_named_twice_is_refused(tmp_path):
    path = write_graph(tmp_path / "one" / "model.onnx")
    with pytest.raises(UsageError) as caught:
        read_graphs([path, path], None, tmp_path)
    assert str(caught.value) == f"{path}: two graphs are called one/model.onnx\n  try: rename one of them"


@settings(max_examples=20, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=6, unique=True
    )
)
def test_names_stay_distinct(tmp_path_factory, places):
    root = tmp_path_factory.mktemp("graphs")
    paths = [write_graph(root / folder / f"{name}.onnx") for folder, name in places]
    named = read_graphs(paths, None, root)
    assert [candidate.graph for candidate in named.values()] == paths


@pytest.mark.parametrize(
    ("text", "profile", "place"),
    [
        ("local", None, Place("local")),
        ("local", "nvidia-l4", Place("local", "nvidia-l4")),
        ("jetson@25W=local", "nvidia-l4", Place("local", "jetson@25W")),
        ("ssh://pi@board?python=/a=b", None, Place("ssh://pi@board?python=/a=b")),
        ("pi=ssh://pi@board?python=/x", None, Place("ssh://pi@board?python=/x", "pi")),
        ("pi=adb:0123", None, Place("adb:0123", "pi")),
        ("=local", "x", Place("local", "x")),
    ],
)
def test_places(text, profile, place):
    assert parse_place(text, profile) == place


def test_an_address_that_is_none():
    with pytest.raises(UsageError, match=r"^'board' is no address of a device"):
        parse_place("pi=board", None)


def test_a_place_that_is_named_twice_counts_once():
    assert parse_places(["local", "pi=local", "local"], None) == (Place("local"), Place("local", "pi"))


@pytest.mark.parametrize("text", ["onnxruntime", "onnxruntime-cuda", "tensorrt", "openvino", "null"])
def test_runtimes(text):
    assert parse_runtime(text) == text


@pytest.mark.parametrize(
    ("text", "near"), [("tensorrrt", "; did you mean 'tensorrt'?"), ("", ""), ("onnxruntime-", None)]
)
def test_a_runtime_that_is_none(text, near):
    with pytest.raises(UsageError) as caught:
        parse_runtime(text)
    hint = f"{RUNTIMES}, or onnxruntime-PROVIDER such as onnxruntime-cuda"
    near = "; did you mean 'onnxruntime'?" if near is None else near
    assert str(caught.value) == f"there is no runtime '{text}'{near}\n  try: {hint}"


def test_the_key_changes_with_all_that_the_result_depends_on(graphs, tmp_path):
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.zeros((2, 4), np.float32))
    plan = Plan(graphs)
    (name, first), *_ = graphs.items()
    fed = {**graphs, name: dataclasses.replace(first, inputs=inputs)}
    measuring = plan.measuring.model_copy(update={"processes": 9})
    changed = [
        Plan({name: first}),
        Plan({**graphs, name: dataclasses.replace(first, sha256="0" * 64)}),
        Plan(fed),
        Plan(graphs, places=(Place("local", "x"),)),
        Plan(graphs, runtimes=("null",)),
        Plan(graphs, threads=(2,)),
        Plan(graphs, batches=(2,)),
        Plan(graphs, measuring=measuring),
        Plan(graphs, session_options={"a": "b"}),
        Plan(graphs, confidence=0.9),
        Plan(graphs, sustained_s=5),
        Plan(graphs, rate_hz=5),
        Plan(graphs, rate_s=5),
        Plan(graphs, accept_mismatch=True),
    ]
    keys = [str(one.key()) for one in (plan, *changed)]
    assert len(set(keys)) == len(keys)
    np.save(inputs, np.ones((2, 4), np.float32))
    assert str(Plan(fed).key()) != keys[3]
    assert str(Plan(dict(graphs)).key()) == keys[0]


def test_a_bundle_for_onnxruntime_is_not_run_by_tensorrt(graphs, tmp_path):
    (_, graph), *_ = graphs.items()
    bundle = dataclasses.replace(graph, name="mine", bundled=True)
    check_runtime(graph, "tensorrt")
    check_runtime(bundle, "onnxruntime-cuda")
    check_runtime(dataclasses.replace(bundle, runtime="tensorrt"), "tensorrt-rtx")
    for runtime in ("tensorrt", "tensorrt-rtx", "torch-tensorrt", "onnxruntime-tensorrt"):
        with pytest.raises(UsageError) as caught:
            check_runtime(bundle, runtime)
        assert str(caught.value) == (
            f"mine: the bundle is for onnxruntime, not for {runtime}, which reads its uint8 codes as int8\n"
            "  try: take the bundle of the target tensorrt: RUN/bundles/PROFILE/tensorrt"
        )
