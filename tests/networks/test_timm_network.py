"""Networks of timm's: built with random weights, for the task's channels, classes and image size."""

from __future__ import annotations

import sys

import pytest
import torch

from edgekd.errors import MissingError, NetworkError
from edgekd.networks.network import build_network
from edgekd.networks.taps import tap_shapes, taps_of

timm = pytest.importorskip("timm")

# name -> stages that timm tells of
NETWORKS = {
    "resnet18": 5,
    "mobilenetv2_100": 5,
    "mobilenetv3_small_100": 5,
    "efficientnet_lite0": 5,
    "regnetx_002": 5,
    "repvgg_a0": 5,
    "vit_tiny_patch16_224": 12,
}


def build(name, shape=(1, 32, 48), **args):
    return build_network(f"timm:{name}", in_channels=shape[0], num_classes=7, input_shape=shape, args=args)


@pytest.mark.parametrize(("name", "stages"), NETWORKS.items())
def test_builds_and_has_taps(name, stages):
    network = build(name).eval()
    taps = taps_of(network)
    projection = ("qkv",) if name.startswith("vit") else ()
    stage_names = tuple(f"stage{number}" for number in range(1, stages + 1))
    assert tuple(taps) == ("stem", *stage_names, *projection, "pool", "logits")
    seen = {}
    for tap in ("pool", "logits"):
        network.get_submodule(taps[tap]).register_forward_hook(
            lambda _module, _args, output, tap=tap: seen.setdefault(tap, output)
        )
    with torch.no_grad():
        logits_NK = network(torch.randn(2, 1, 32, 48))
    assert torch.equal(seen["logits"], logits_NK)
    assert logits_NK.shape == (2, 7)
    assert seen["pool"].shape == (2, network.get_submodule(taps["logits"]).in_features)


def test_the_projection_of_a_transformer_is_that_of_its_last_attention():
    network = build("vit_tiny_patch16_224", (1, 16, 16), patch_size=4, embed_dim=24, depth=3, num_heads=3)
    assert taps_of(network)["qkv"] == "blocks.2.attn.qkv"
    shapes = tap_shapes(network, torch.zeros(2, 1, 16, 16))
    assert (shapes["stage3"], shapes["qkv"], shapes["pool"]) == ((17, 24), (17, 72), (24,))


def test_attention_within_windows_has_no_projection_of_an_example():
    network = build(
        "swin_tiny_patch4_window7_224",
        (1, 16, 16),
        patch_size=2,
        window_size=2,
        embed_dim=6,
        depths=(1,),
        num_heads=(1,),
    )
    assert "qkv" in taps_of(network)
    assert "qkv" not in tap_shapes(network, torch.zeros(2, 1, 16, 16))


def test_takes_arguments():
    assert build("resnet18", drop_rate=0.25).drop_rate == 0.25


@pytest.mark.parametrize(
    ("name", "shape", "args", "message"),
    [
        (
            "resnet18s",
            (3, 32, 32),
            {},
            f"timm:resnet18s: timm {timm.__version__} has no 'resnet18s'; did you mean 'resnet18'?\n"
            "  try: python -c \"import timm; print(timm.list_models('*resnet*'))\" lists names",
        ),
        (
            "resnet18",
            (40, 8000),
            {},
            "timm:resnet18: takes images (C, H, W); an example has the shape (40, 8000)",
        ),
        (
            "resnet18",
            (3, 32, 32),
            {"pretrained": True},
            "timm:resnet18: args.pretrained is set by edgekd; leave it out\n"
            "  try: give trained weights as a file: weights = ...",
        ),
        (
            "resnet18",
            (3, 32, 32),
            {"colour": 3},
            "timm:resnet18: TypeError: ResNet.__init__() got an unexpected keyword argument 'colour'",
        ),
    ],
    ids=["unknown name", "no image", "pretrained", "unknown argument"],
)
def test_what_is_wrong_is_said(name, shape, args, message):
    with pytest.raises(NetworkError) as caught:
        build(name, shape, **args)
    assert str(caught.value) == message


def test_a_name_on_a_hub_is_not_fetched():
    with pytest.raises(NetworkError, match="has no 'hf-hub:somebody/network'"):
        build("hf-hub:somebody/network")


def test_an_image_smaller_than_a_patch_is_an_error():
    with pytest.raises(NetworkError, match=r"^timm:vit_tiny_patch16_224"):
        build("vit_tiny_patch16_224", (1, 8, 8))


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingError) as caught:
        build("resnet18")
    assert caught.value.hint == "pip install 'edgekd[timm]'"
    assert caught.value.message.startswith("timm cannot be imported: ")
