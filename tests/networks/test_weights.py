"""Weights in files: what loads, and what is refused without running anything."""

from __future__ import annotations

import os

import pytest
import safetensors.torch
import torch
from torch import nn

from edgekd.errors import NetworkError, StorageError
from edgekd.networks.network import build_network, load_weights, save_weights


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@pytest.fixture
def source():
    torch.manual_seed(1)
    return network()


def assert_same(first, second):
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "module.", "state_dict of module."],
)
def test_torch_files_load_as_people_write_them(wrap, source, tmp_path):
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pt")
    loaded = network()
    load_weights(loaded, tmp_path / "weights.pt")
    assert_same(source, loaded)


def test_saves_strided_and_shared_weights(tmp_path):
    source = nn.Sequential(
        nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last), nn.Linear(3, 3), nn.Linear(3, 3)
    )
    source[2].weight = source[1].weight
    save_weights(source, tmp_path / "weights.safetensors")
    loaded = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert_same(source, loaded)
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_half_precision_weights_load_into_float32(source, tmp_path):
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in source.state_dict().items()
    }
    safetensors.torch.save_file(halves, tmp_path / "weights.safetensors")
    loaded = network()
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert loaded[0].weight.dtype == torch.float32
    assert torch.equal(loaded[0].weight, source[0].weight.half().float())


def refusal(path, target=None):
    target = target or network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(NetworkError) as caught:
        load_weights(target, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    assert caught.value.where == str(path)
    return caught.value.message


def test_a_missing_file(tmp_path):
    assert refusal(tmp_path / "weights.safetensors") == "there is no such weights file"
    assert refusal(tmp_path / "weights.pt") == "there is no such weights file"


def test_a_folder(tmp_path):
    assert refusal(tmp_path) == f"cannot be read as weights: [Errno 21] Is a directory: '{tmp_path}'"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04" + b"\0" * 99, b"\x80\x02."])
def test_a_file_of_something_else(suffix, content, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "weights" in refusal(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_truncated_file(suffix, source, tmp_path):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(source.state_dict(), path)
    else:
        save_weights(source, path)
    path.write_bytes(path.read_bytes()[:-50])
    assert refusal(path).startswith("cannot be read as weights: ")


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_refused_and_does_not_run(source, tmp_path):
    torch.save(
        {"state_dict": source.state_dict(), "extra": Malice(tmp_path / "ran")}, tmp_path / "weights.pt"
    )
    assert refusal(tmp_path / "weights.pt") == (
        "is no file of weights, or holds Python objects besides tensors, which could run code: refused"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list; named tensors are wanted"),
        ({}, "holds a dict; named tensors are wanted"),
        ({"epoch": 3}, "'epoch' is a int; a tensor is wanted"),
        ({"model": {"0.weight": [1.0]}}, "'0.weight' is a list; a tensor is wanted"),
    ],
)
def test_a_torch_file_without_named_tensors(content, message, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    assert refusal(tmp_path / "weights.pt") == message


def test_weights_that_do_not_fit_name_the_first_of_each_kind(source, tmp_path):
    state = source.state_dict()
    del state["1.weight"], state["1.bias"]
    state["head.weight"] = torch.zeros(3)
    state["0.weight"] = torch.zeros(5, 1, 3, 3)
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    assert refusal(tmp_path / "weights.safetensors") == (
        "does not fit the network (7 tensors): 2 missing, first '1.weight'; "
        "1 unexpected, first 'head.weight'; "
        "1 of another shape, first '0.weight' is (5, 1, 3, 3) in the file, (2, 1, 3, 3) in the network"
    )


def test_a_folder_that_is_a_file(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        save_weights(source, tmp_path / "file" / "weights.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = build_network("resnet8", in_channels=1, num_classes=10, input_shape=(1, 8, 8))
    network.logits.weight.data[0, 0] = float("nan")
    save_weights(network, tmp_path / "w.safetensors")
    with pytest.raises(NetworkError) as caught:
        load_weights(network, tmp_path / "w.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'w.safetensors'}: holds values that are not finite, first in 'logits.weight'"
    )


def test_the_file_knows_its_classes(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(network(), path, classes=("ant", "bee", "cat"))
    load_weights(network(), path, classes=("ant", "bee", "cat"))
    load_weights(network(), path)  # who does not say what he wants takes what there is


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (("bee", "ant", "cat"), "its class 0 is 'ant', the task's is 'bee'"),
        (("ant", "bee", "dog"), "its class 2 is 'cat', the task's is 'dog'"),
        (("ant", "bee"), "it has 3 classes, the task has 2"),
    ],
)
def test_weights_for_other_classes_are_refused(tmp_path, classes, difference):
    path = tmp_path / "w.safetensors"
    save_weights(network(), path, classes=("ant", "bee", "cat"))
    fresh = network()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(NetworkError) as caught:
        load_weights(fresh, path, classes=classes)
    assert str(caught.value) == (
        f"{path}: was trained for other classes, or in another order: {difference}\n"
        "  try: give weights for the task's classes, in their order"
    )
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize("note", [None, {"classes": "no JSON"}, {"classes": "3"}, {"format": "pt"}])
def test_a_file_that_says_nothing_of_classes_is_taken(tmp_path, note):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(network().state_dict(), path, note)
    load_weights(network(), path, classes=("ant", "bee", "cat"))
