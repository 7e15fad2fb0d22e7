"""The stage `sensitivity`: a planted fault, the files that it leaves, and the arm `mixed`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.documents.recipe import Measuring
from edgekd.documents.scheme import Scheme
from edgekd.documents.sensitivity import Sensitivity
from edgekd.networks.network import build_network
from edgekd.networks.weights import load_weights, save_weights
from edgekd.pipeline.compress import compress
from edgekd.pipeline.networks import WEIGHTS
from edgekd.pipeline.quantize import sensitivity
from edgekd.pipeline.quantize.find import find_sensitivity
from edgekd.pipeline.run_folder import read_run
from tests.tiny import Listener

pytestmark = pytest.mark.xdist_group("whole run")

PAIR = ("stage2.0.residual.0", "stage2.0.residual.3")
RECIPE = """
schema = 1
name = "planted"
[student]
network = "resnet8"
weights = "planted.safetensors"
training = { epochs = 1, batch_size = 64, learning_rate = 1e-12 }
[distillation]
label_weight = 1.0
terms = []
[quantization]
calibration_examples = 128
calibrators = ["max"]
arms = ["ptq", "mixed", "qad"]
budget_pt = 1.0
"""


def plant(weights: Path, out: Path) -> None:
    """A channel between two convolutions is a thousand times as large, and read as much less."""
    network = build_network("resnet8", in_channels=1, num_classes=10, input_shape=(1, 8, 8), args={})
    load_weights(network, weights)
    _, norm, _, conv, _ = network.stage2[0].residual
    with torch.no_grad():
        for value in (norm.weight, norm.bias):
            value[3] *= 1000
        conv.weight[:, 3] /= 1000
    save_weights(network, out, classes=tuple("0123456789"))


@pytest.fixture(scope="module")
def recipe(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    plant(read_run(run)[1]["student"].path(WEIGHTS), folder / "planted.safetensors")
    (folder / "planted.toml").write_text(RECIPE)
    return folder / "planted.toml"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    """Measures for a moment: the figures are not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = Measuring(processes=2, warmup_s=0.01, max_warmup_s=0.02, min_time_s=0.01, min_samples=20)
        patch.setattr(sensitivity, "short", lambda measuring: tiny)
        yield


@pytest.fixture(scope="module")
def found(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sensitivity]:
    """The run folder after the command, and what it found."""
    out = tmp_path_factory.mktemp("runs") / "planted"
    return out, find_sensitivity(recipe, out, Listener()).document


@pytest.fixture
def copy(found: tuple[Path, Sensitivity], tmp_path: Path) -> Path:
    return Path(shutil.copytree(found[0], tmp_path / "a copy"))


def test_the_planted_layers_are_spared_and_the_budget_is_met(found: tuple[Path, Sensitivity]) -> None:
    out, document = found
    assert document.scheme.layers == dict.fromkeys(PAIR, "float")
    assert document.start.drop_pt > 5
    assert document.found.drop_pt <= 1
    assert (document.within, document.name, document.budget_pt) == (True, "planted", 1.0)
    assert max(document.tensors, key=lambda tensor: tensor.gain).layers == PAIR
    assert {layer.name for layer in document.layers} >= {"stem.0", "logits", *PAIR}
    assert Sensitivity.read(out / "sensitivity.json") == document
    assert Scheme.read(out / "scheme.toml") == document.scheme


def test_what_it_costs_was_measured_here(found: tuple[Path, Sensitivity]) -> None:
    document = found[1]
    assert document.facts is not None
    for cost in (document.cost, document.all_cost, *(layer.cost for layer in document.layers)):
        assert (cost.what, cost.processes) == ("latency", 2)
        assert cost.samples >= 40
        assert cost.interval is not None


def test_a_second_time_nothing_is_done_again(recipe: Path, copy: Path) -> None:
    before = (copy / "scheme.toml").read_bytes()
    listener = Listener()
    result = find_sensitivity(recipe, copy, listener)
    assert listener.made == []
    assert result.scheme == copy / "scheme.toml"
    assert (copy / "scheme.toml").read_bytes() == before


def test_an_edited_scheme_is_not_written_over(recipe: Path, copy: Path) -> None:
    ours = (copy / "scheme.toml").read_text()
    edited = ours.replace('# "stem.0"', '"stem.0"')
    assert edited != ours
    (copy / "scheme.toml").write_text(edited)
    result = find_sensitivity(recipe, copy, Listener())
    assert result.scheme == copy / "scheme.new.toml"
    assert (copy / "scheme.toml").read_text() == edited
    assert (copy / "scheme.new.toml").read_text() == ours
    assert find_sensitivity(recipe, copy, Listener(), force=True).scheme == copy / "scheme.toml"
    assert (copy / "scheme.toml").read_text() == ours


def test_a_file_of_another_kind_is_not_written_over_either(recipe: Path, copy: Path) -> None:
    (copy / "scheme.toml").write_bytes(b"\xff\xfe")
    assert find_sensitivity(recipe, copy, Listener()).scheme == copy / "scheme.new.toml"
    assert (copy / "scheme.toml").read_bytes() == b"\xff\xfe"


def test_the_scheme_goes_into_a_recipe(recipe: Path, copy: Path) -> None:
    """And starting from it there is nothing left to spare."""
    text = recipe.read_text().replace("budget_pt", f"scheme_file = {str(copy / 'scheme.toml')!r}\nbudget_pt")
    other = recipe.with_name("from-the-file.toml")
    other.write_text(text)
    listener = Listener()
    document = find_sensitivity(other, copy, listener).document
    assert document.scheme.layers == dict.fromkeys(PAIR, "float")
    assert document.start == document.found
    assert document.notes[0] == (
        "no layer has to be spared: the scheme that was started from is within the budget"
    )
    assert set(PAIR).isdisjoint(layer.name for layer in document.layers)
    assert listener.made[-2:] == ["ptq-max", "sensitivity"]


def test_the_arm_mixed_ships_it(recipe: Path, copy: Path) -> None:
    listener = Listener()
    compress(recipe, copy, listener, until="quantize")
    assert "sensitivity" in listener.reused
    assert listener.made == ["mixed"]  # within the budget: nothing is fine-tuned
    worth = read_run(copy)[1]["mixed"].json("validation.json")
    assert worth["top1"] == found_top1(copy)
    assert f"sensitivity: the scheme is in {copy / 'scheme.toml'}" in listener.notes


def found_top1(run: Path) -> float:
    return Sensitivity.read(run / "sensitivity.json").found.top1


def test_a_new_recipe_leaves_no_old_figures_but_the_scheme(recipe: Path, copy: Path) -> None:
    """The figures are of the old recipe; the scheme is the user's to keep."""
    other = recipe.with_name("other.toml")
    other.write_text(recipe.read_text().replace("calibration_examples = 128", "calibration_examples = 100"))
    compress(other, copy, Listener(), until="distill")
    assert not (copy / "sensitivity.json").exists()
    assert (copy / "scheme.toml").exists()
