"""Exits: where they sit, and the network that ends at one, trained, exported and quantized."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.conversion.to_onnx import export_fp32, export_int8
from edgekd.distillation.exits import Exits, early_exit, trained_exit
from edgekd.distillation.setting import Role, Setting
from edgekd.distillation.step import Answer, Step
from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Distillation, Recipe
from edgekd.documents.terms import ExitsTerm
from edgekd.documents.training import Training
from edgekd.errors import DocumentError, NetworkError, UsageError
from edgekd.networks.network import build_network
from edgekd.networks.taps import TapReader, tap_shapes
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.prepare import prepare
from edgekd.runtimes.onnxruntime import open_session, run_batches
from edgekd.training.result import TrainingResult
from edgekd.training.trainer import train_network
from tests.distillation.steps import SETTING, make_step
from tests.training.cases import make_task

INPUT = InputSpec(shape=(1, 8, 8), layout="NCHW", raw_dtype="float32", mean=(0.0,), std=(1.0,))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return build_network("resnet8", in_channels=1, num_classes=3, input_shape=(1, 8, 8))


def role_of(network: nn.Module, shape: tuple[int, ...] = (1, 8, 8)) -> Role:
    return Role("student", network, tap_shapes(network, torch.zeros(2, *shape)))


def setting_of(network: nn.Module, shape: tuple[int, ...] = (1, 8, 8), num_classes: int = 3) -> Setting:
    return Setting(role_of(network, shape), {}, num_classes=num_classes, count=8, views=("weak",))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, TrainingResult]:
    """A student with exits on stage1 and stage2."""
    network = resnet()
    result = train_network(
        network,
        make_task(),
        Training(epochs=2, batch_size=32, learning_rate=0.05, precision="fp32"),
        Distillation(label_weight=1.0, terms=(ExitsTerm(kind="exits"),)),
        teacher=None,
        checkpoint_dir=tmp_path_factory.mktemp("checkpoints"),
        seed=0,
    )
    return network, result


def test_the_training_keeps_the_state_of_its_exits(trained: tuple[nn.Module, TrainingResult]) -> None:
    _, result = trained
    exits = {".".join(name.split(".")[:4]) for name in result.heads}
    assert exits == {"terms.exits.exits.stage1", "terms.exits.exits.stage2"}


@pytest.mark.parametrize("tap", ["stage1", "stage2"])
def test_ends_at_an_exit_with_the_logits_of_the_training(
    trained: tuple[nn.Module, TrainingResult], tap: str
) -> None:
    network, result = trained
    before = {name: value.clone() for name, value in network.state_dict().items()}
    small = early_exit(network, tap, trained_exit(result.heads, role_of(network), tap, 3)).eval()
    term = Exits(ExitsTerm(kind="exits"), setting_of(network)).eval()
    start = "terms.exits."
    term.load_state_dict({name.removeprefix(start): value for name, value in result.heads.items()})
    x_BCHW = torch.randn(5, 1, 8, 8)
    reader = TapReader(network.eval(), [tap])
    with torch.no_grad():
        network(x_BCHW)
        expected_BK = term.exits[tap](reader.take()[tap])
        torch.testing.assert_close(small(x_BCHW), expected_BK)
    reader.close()
    stages = ["stage1"] if tap == "stage1" else ["stage1", "stage2"]
    assert [name for name, _ in small.named_children()] == ["stem", *stages, "logits"]
    for parameter in small.parameters():
        parameter.data.zero_()  # a copy: the network stays as it is
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_network_up_to_an_exit_is_exported(
    trained: tuple[nn.Module, TrainingResult], tmp_path: Path
) -> None:
    network, result = trained
    small = early_exit(network, "stage2", trained_exit(result.heads, role_of(network), "stage2", 3)).eval()
    x_NCHW = torch.randn(6, 1, 8, 8)
    export_fp32(small, INPUT, tmp_path / "fp32.onnx", opset=21)
    with torch.no_grad():
        expected_NK = small(x_NCHW).numpy()
    session = open_session(onnx.load(tmp_path / "fp32.onnx"))
    np.testing.assert_allclose(run_batches(session, x_NCHW.numpy()), expected_NK, rtol=1e-4, atol=1e-5)


def test_the_network_up_to_an_exit_is_quantized_to_the_last_layer(
    trained: tuple[nn.Module, TrainingResult], tmp_path: Path
) -> None:
    network, result = trained
    small = early_exit(network, "stage1", trained_exit(result.heads, role_of(network), "stage1", 3)).eval()
    quantized = prepare(small, torch.randn(1, 1, 8, 8))
    calibrate(quantized, [torch.randn(64, 1, 8, 8)])
    quantized.set_fake_quantizing(True)
    export_int8(quantized.eval(), INPUT, tmp_path / "int8.onnx", opset=21)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    makers = {output: node.op_type for node in graph.node for output in node.output}
    assert len(weighted) == sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in small.modules())
    assert all(makers.get(node.input[1]) == "DequantizeLinear" for node in weighted)


def test_exits_are_taught_by_labels_and_by_logits_that_do_not_learn() -> None:
    term, step = Exits(ExitsTerm(kind="exits", student_taps=("pool",)), SETTING).double(), make_step()
    term(step).backward()
    assert step.student.logits_RK.grad is None
    assert step.student.features["pool"].grad is not None


def test_an_unlabeled_example_counts_in_the_soft_targets_alone() -> None:
    section = ExitsTerm(kind="exits", student_taps=("pool",), temperature=2.0)
    term, step = Exits(section, SETTING).double(), make_step(batch=4)
    some = dataclasses.replace(step, labels_B=torch.tensor([-1, 2, -1, 0]))
    none = dataclasses.replace(step, labels_B=torch.full((4,), -1))
    exit_BK = term.exits["pool"](step.student.feature("pool"))
    labels = F.cross_entropy(exit_BK[[1, 3]], torch.tensor([2, 0]))
    assert (term(some) - term(none)).item() == pytest.approx(labels.item())


def test_exits_on_every_kind_of_feature() -> None:
    shapes: Mapping[str, tuple[int, ...]] = {"map": (6, 4, 4), "tokens": (7, 12), "vector": (5,)}
    student = Role("student", nn.Identity(), shapes)
    setting = Setting(student, {}, num_classes=3, count=8, views=("weak",))
    term = Exits(ExitsTerm(kind="exits", student_taps=tuple(shapes)), setting)
    features = {tap: torch.randn(4, *shape) for tap, shape in shapes.items()}
    answer = Answer(torch.randn(4, 3), features)
    value = term(Step(answer, torch.tensor([0, 1, 2, 0]), {}, torch.arange(4)))
    assert torch.isfinite(value)
    assert term.smallest_batch == 2
    assert {name: type(layer).__name__ for name, layer in term.exits["map"].named_children()} == {
        "0": "Conv2d",
        "1": "BatchNorm2d",
        "2": "ReLU",
        "3": "AdaptiveAvgPool2d",
        "4": "Flatten",
        "5": "Linear",
    }
    torch.testing.assert_close(
        term.exits["tokens"](features["tokens"]),
        F.linear(features["tokens"].mean(dim=1), *term.exits["tokens"][1].parameters()),
    )


class Series(nn.Module):
    """Two convolutions along time."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Conv1d(2, 4, 3, padding=1)
        self.stage2 = nn.Conv1d(4, 6, 3, padding=1)
        self.logits = nn.Linear(6, 3)

    def forward(self, x_BCL: Tensor) -> Tensor:
        return self.logits(self.stage2(self.stage1(x_BCL)).mean(dim=2))


def test_an_exit_on_a_series_runs_along_time() -> None:
    network = Series()
    shapes = tap_shapes(network, torch.zeros(2, 2, 16))
    student = Role("student", network, shapes, {tap: tap for tap in shapes})
    setting = Setting(student, {}, num_classes=3, count=8, views=("weak",))
    term = Exits(ExitsTerm(kind="exits"), setting)
    assert term.student_taps == ("stage1",)
    assert term.exits["stage1"][0].weight.shape == (4, 4, 3)
    assert term.exits["stage1"](torch.randn(5, 4, 16)).shape == (5, 3)


def test_an_exit_on_a_map_with_its_channels_last() -> None:
    network = nn.Identity()
    network.output_fmt = "NHWC"  # type: ignore[assignment]  # as timm's networks say it
    student = Role("student", network, {"stage1": (8, 8, 4), "stage2": (4, 4, 6)})
    setting = Setting(student, {}, num_classes=3, count=8, views=("weak",))
    head = Exits(ExitsTerm(kind="exits"), setting).eval().exits["stage1"]
    x_BHWC = torch.randn(2, 8, 8, 4)
    torch.testing.assert_close(head(x_BHWC), head[1:](x_BHWC.permute(0, 3, 1, 2)))


def test_a_tap_with_a_dot_in_its_name() -> None:
    student = Role("student", nn.Identity(), {"blocks.0": (6,), "logits": (3,)})
    setting = Setting(student, {}, num_classes=3, count=8, views=("weak",))
    term = Exits(ExitsTerm(kind="exits", student_taps=("blocks.0",)), setting)
    heads = {f"terms.exits.{name}": value for name, value in term.state_dict().items()}
    head = trained_exit(heads, student, "blocks.0", 3)
    assert not head.training
    x_BC = torch.randn(2, 6)
    torch.testing.assert_close(head(x_BC), term.exits["blocks_0"](x_BC))


def test_a_student_without_stages() -> None:
    student = Role("student", nn.Identity(), {"stage1": (4, 8, 8), "pool": (4,)})
    with pytest.raises(UsageError) as caught:
        Exits(
            ExitsTerm(kind="exits"),
            Setting(student, {}, num_classes=3, count=8, views=("weak",)),
        )
    assert str(caught.value) == (
        "term exits: finds no stage before the last one to put an exit on\n"
        "  try: name student_taps, out of the student's: stage1, pool"
    )


def test_an_exit_that_was_not_trained(trained: tuple[nn.Module, TrainingResult]) -> None:
    network, result = trained
    with pytest.raises(UsageError) as caught:
        trained_exit(result.heads, role_of(network), "stage3", 3)
    assert str(caught.value) == (
        "student.exit: no exit was trained at the tap 'stage3'; did you mean 'stage2'?\n"
        "  try: one of stage1, stage2"
    )
    with pytest.raises(UsageError) as caught:
        trained_exit({}, role_of(network), "stage1", 3)
    assert str(caught.value) == (
        "student.exit: no exit was trained at the tap 'stage1'\n  try: add a term of the kind 'exits'"
    )


def test_a_network_whose_layers_need_not_run_in_order() -> None:
    with pytest.raises(NetworkError) as caught:
        early_exit(Series(), "stage1", nn.Identity())
    assert str(caught.value) == (
        "Series: its layers need not run one after the other, so that it cannot end at an exit\n"
        "  try: leave student.exit out, or build the network as an nn.Sequential"
    )

    class Twice(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(super().forward(x))

    with pytest.raises(NetworkError, match=r"^Twice: its layers need not run"):
        early_exit(Twice(nn.Identity()), "0", nn.Identity())


@pytest.mark.parametrize("tap", ["stage4", "logits"])
def test_a_layer_at_which_nothing_can_end(tap: str) -> None:
    near = {"stage4": "; did you mean 'stage3'?", "logits": ""}[tap]
    with pytest.raises(NetworkError) as caught:
        early_exit(resnet(), tap, nn.Identity())
    assert str(caught.value) == (
        f"Sequential: has no layer '{tap}' to end at{near}\n  try: one of stem, stage1, stage2, stage3, pool"
    )


def test_a_layer_that_is_used_twice_is_kept_twice() -> None:
    relu = nn.ReLU()
    network = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 3))
    expected = copy.deepcopy(network[:4])
    small = early_exit(network, "3", nn.Identity())
    x_BC = torch.randn(3, 4)
    torch.testing.assert_close(small(x_BC), expected(x_BC))


def test_weights_without_taps_and_an_exit_without_its_term() -> None:
    terms = [{"kind": "exits", "exit_weights": [1.0, 2.0]}, {"kind": "exits", "student_taps": ["stage1"]}]
    data = {
        "schema": 1,
        "name": "x",
        "distillation": {"terms": terms[:1]},
    }
    with pytest.raises(DocumentError) as caught:
        Recipe.parse(data, where="my.toml")
    assert str(caught.value) == (
        "my.toml: 1 problem\n"
        "  distillation.terms[0]: exit_weights are one for each of student_taps; name these too\n"
        "  try: edgekd schema recipe prints every key that is allowed"
    )
    for student, distillation, expected in (
        ({"exit": "stage1"}, {}, "student.exit = 'stage1' needs a term of the kind 'exits', which trains it"),
        (
            {"exit": "stage2"},
            {"terms": terms[1:]},
            "student.exit = 'stage2' is none of the trained exits: stage1",
        ),
    ):
        data = {"schema": 1, "name": "x", "student": student, "distillation": distillation}
        with pytest.raises(DocumentError) as caught:
            Recipe.parse(data, where="my.toml")
        assert caught.value.problems == (expected,)
    Recipe.parse(
        {"schema": 1, "name": "x", "student": {"exit": "stage1"}, "distillation": {"terms": terms[1:]}},
        where="my.toml",
    )
