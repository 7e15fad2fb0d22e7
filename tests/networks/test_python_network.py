"""A network of the user's own, and everything that can be wrong with one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import MissingError, NetworkError
from edgekd.networks.network import build_network, taps_of

SOURCE = """
from torch import nn
from edgekd.errors import MissingError

def good(in_channels, num_classes, input_shape, width=4):
    values = in_channels * input_shape[1]
    network = nn.Sequential(nn.Flatten(), nn.Linear(values, width), nn.Linear(width, num_classes))
    network.taps = {"hidden": "1"}
    return network

def plain(**settings):
    return good(**settings).append(nn.Identity())

def narrow(in_channels, num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes - 1))

def pair(**settings):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()

def wrong_shape(**settings):
    return nn.Linear(99, 2)

def text(**settings):
    return "network"

def raises(**settings):
    raise ZeroDivisionError("no depth")

def own_error(**settings):
    raise MissingError("needs a thing")

number = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import not_installed\n")
    (tmp_path / "own_syntax.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_network", raising=False)


def build(function, module="own_network", **args):
    name = f"python:{module}:{function}"
    return build_network(name, in_channels=2, num_classes=3, input_shape=(2, 5), args=args)


def test_builds_with_the_task_and_the_arguments():
    network = build("good", width=6)
    assert network(torch.zeros(4, 2, 5)).shape == (4, 3)
    assert network[1].out_features == 6
    assert taps_of(network) == {"hidden": "1"}


def test_without_taps_of_its_own_its_children_are_taps():
    network = nn.Sequential()
    network.add_module("body", nn.Linear(2, 2))
    assert taps_of(network) == {"body": "body"}


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (["body"], "Linear.taps: is a list; a mapping is wanted"),
        ({"deep": "layer9"}, "Linear.taps: tap 'deep' is at 'layer9', where there is no submodule"),
    ],
)
def test_wrong_taps(taps, message):
    network = nn.Linear(2, 2)
    network.taps = taps
    with pytest.raises(NetworkError) as caught:
        taps_of(network)
    assert str(caught.value) == message


MODULE = "own_network"


@pytest.mark.parametrize(
    ("module", "function", "args", "message"),
    [
        (
            "own_nowhere",
            "good",
            {},
            "python:own_nowhere:good: there is no module 'own_nowhere'\n"
            "  try: install it, or start edgekd in the folder that holds it",
        ),
        (
            "own_broken",
            "good",
            {},
            "python:own_broken:good: ModuleNotFoundError: No module named 'not_installed' (own_broken.py:1)",
        ),
        (
            MODULE,
            "god",
            {},
            "python:own_network:god: module 'own_network' has no 'god'; did you mean 'good'?",
        ),
        (MODULE, "number", {}, "python:own_network:number: 'number' is no function but a int"),
        (
            MODULE,
            "good",
            {"hight": 2},
            "python:own_network:good: does not take these arguments: "
            "got an unexpected keyword argument 'hight'\n"
            "  try: it is called with in_channels=, num_classes=, input_shape=, hight=",
        ),
        (
            MODULE,
            "good",
            {"num_classes": 2},
            "python:own_network:good: args.num_classes is set by edgekd from the task; leave it out",
        ),
        (MODULE, "text", {}, "python:own_network:text: returns a str; a torch.nn.Module is wanted"),
        (MODULE, "raises", {}, "python:own_network:raises: ZeroDivisionError: no depth (own_network.py:30)"),
        (MODULE, "pair", {}, "python:own_network:pair: gives a tuple; a tensor of logits is wanted"),
        (
            MODULE,
            "narrow",
            {},
            "python:own_network:narrow: gives (2, 2) for an input of shape (2, 2, 5); (2, 3) is wanted",
        ),
        (
            MODULE,
            "wrong_shape",
            {},
            "python:own_network:wrong_shape on an input of shape (2, 2, 5): RuntimeError: "
            "mat1 and mat2 shapes cannot be multiplied (4x5 and 99x2)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_what_is_wrong_is_said(module, function, args, message):
    with pytest.raises(NetworkError) as caught:
        build(function, module, **args)
    assert str(caught.value) == message


def test_a_syntax_error_names_the_file():
    with pytest.raises(NetworkError, match=r"python:own_syntax:f: SyntaxError: .*\(own_syntax.py, line 1\)"):
        build("f", "own_syntax")


def test_an_error_of_edgekd_passes_through():
    with pytest.raises(MissingError, match="needs a thing"):
        build("own_error")


def test_a_name_without_a_function():
    with pytest.raises(NetworkError) as caught:
        build_network("python:own_network", in_channels=2, num_classes=3, input_shape=(2, 5))
    assert str(caught.value) == (
        "python:own_network: names no function\n  try: write python:package.module:function"
    )
