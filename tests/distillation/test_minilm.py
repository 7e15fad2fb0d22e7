"""MiniLM: heads read from the network, what cannot be compared, and a transformer of timm's that learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.distillation.objective import build_objective
from edgekd.distillation.setting import Role, Setting
from edgekd.documents.recipe import Distillation, Training
from edgekd.errors import UsageError
from edgekd.networks.network import build_network
from edgekd.networks.taps import TapReader
from edgekd.training.setting import setting_of
from edgekd.training.trainer import train_network
from tests.distillation.feature_cases import minilm_formula
from tests.training.cases import make_network, make_task

ONLY_MINILM = Distillation.model_validate({"label_weight": 0.0, "terms": ({"kind": "minilm"},)})


class Attention(nn.Module):
    def __init__(self, heads: object) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Identity()


def role(name: str, shape: tuple[int, ...], heads: object) -> Role:
    network = nn.Sequential(Attention(heads))
    return Role(name, network, {"qkv": shape, "pool": (4,)}, {"qkv": "0.qkv", "pool": "0"})


def setting(student: Role, teacher: Role) -> Setting:
    return Setting(student, {"teacher": teacher}, num_classes=3, count=8, views=("weak",))


def minilm(**keys: object) -> Distillation:
    return Distillation.model_validate({"terms": ({"kind": "minilm", **keys},)})


OTHER_BUILD = (
    "\n  try: build the student with the teacher's number of heads and patch size: args.num_heads, "
    "args.patch_size"
)


@pytest.mark.parametrize(
    ("student", "teacher", "keys", "message"),
    [
        (
            role("student", (5, 12), 2),
            role("teacher", (5, 36), 3),
            {},
            "term minilm: compares attention among the same tokens in as many heads; the student has 2 heads "
            "and 5 tokens, (5, 12), the teacher 3 and 5, (5, 36)" + OTHER_BUILD,
        ),
        (
            role("student", (5, 12), 2),
            role("teacher", (17, 24), 2),
            {},
            "term minilm: compares attention among the same tokens in as many heads; the student has 2 heads "
            "and 5 tokens, (5, 12), the teacher 2 and 17, (17, 24)" + OTHER_BUILD,
        ),
        (
            role("student", (5, 12), 2),
            role("teacher", (5, 12), None),
            {},
            "term minilm: cannot tell the number of heads at 'qkv' of the teacher\n"
            "  try: teacher_heads = ...",
        ),
        (
            role("student", (5, 12), 2),
            role("teacher", (5, 12), 2),
            {"student_heads": 5},
            "term minilm: reads queries, keys and values of 5 heads, (tokens, 3 x 5 x width); 'qkv' of the "
            "student is (5, 12)\n  try: tap the layer that makes all three at once",
        ),
        (
            role("student", (5, 12), 2),
            role("teacher", (6, 2, 2), 2),
            {},
            "term minilm: reads queries, keys and values of 2 heads, (tokens, 3 x 2 x width); 'qkv' of the "
            "teacher is (6, 2, 2)\n  try: tap the layer that makes all three at once",
        ),
        (
            role("student", (5, 12), 2),
            role("teacher", (5, 12), 2),
            {"student_tap": "qvk"},
            "term minilm: reads the tap 'qvk', which the student does not have; did you mean 'qkv'?\n"
            "  try: one of the student's taps: qkv, pool",
        ),
    ],
    ids=["heads", "tokens", "unknown", "width", "map", "tap"],
)
def test_what_cannot_be_compared(student: Role, teacher: Role, keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_objective(minilm(**keys), setting(student, teacher))
    assert str(caught.value) == message


def test_heads_are_the_recipes_where_it_names_them() -> None:
    student, teacher = role("student", (5, 24), 2), role("teacher", (5, 24), None)
    build_objective(minilm(student_heads=4, teacher_heads=4), setting(student, teacher))


def vit(seed: int, width: int) -> nn.Module:
    pytest.importorskip("timm")
    torch.manual_seed(seed)
    args = {"patch_size": 4, "embed_dim": width, "depth": 2, "num_heads": 3}
    return build_network(
        "timm:vit_tiny_patch16_224", in_channels=1, num_classes=3, input_shape=(1, 16, 16), args=args
    )


def test_a_small_transformer_learns_the_relations_of_a_larger_one(tmp_path: Path) -> None:
    student, teacher, task = vit(0, 24), vit(1, 48), make_task(size=16, train=64)
    made = setting_of(student, {"teacher": teacher}, task)
    assert (made.student.shapes["qkv"], made.sources["teacher"].shapes["qkv"]) == ((17, 72), (17, 144))

    def distance() -> float:
        x_BCHW = torch.from_numpy(task.normalize(task.validation.x[:8]))
        return minilm_formula(projected(student, x_BCHW), projected(teacher, x_BCHW), heads=3)

    before = distance()
    training = Training(epochs=4, batch_size=32, optimizer="adamw", learning_rate=3e-3, precision="fp32")
    result = train_network(
        student, task, training, ONLY_MINILM, teacher=teacher, checkpoint_dir=tmp_path, seed=0
    )
    assert result.history[0].parts["minilm"] == pytest.approx(before, rel=0.5)
    assert distance() < before


def projected(network: nn.Module, x_BCHW: Tensor) -> object:
    reader = TapReader(network, ["qkv"])
    with torch.no_grad():
        network.eval()(x_BCHW)
    reader.close()
    return reader.take()["qkv"].double().numpy()


def test_a_convolutional_teacher_has_no_such_tap() -> None:
    student, task = vit(0, 24), make_task(size=16)
    with pytest.raises(UsageError) as caught:
        build_objective(ONLY_MINILM, setting_of(student, {"teacher": make_network()}, task))
    assert str(caught.value) == (
        "term minilm: reads the tap 'qkv', which the teacher does not have\n"
        "  try: one of the teacher's taps: conv1, bn1, conv2, bn2, dropout, linear"
    )
