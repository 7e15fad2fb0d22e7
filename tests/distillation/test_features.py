"""Where channels and positions lie, sizes brought together, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.distillation.features import Layout, layout_of, pair_of, same_size, unit
from edgekd.distillation.objective import build_objective
from edgekd.distillation.setting import Role, Setting
from edgekd.distillation.step import Answer, Step
from edgekd.documents.recipe import Distillation
from edgekd.errors import UsageError
from tests.distillation.feature_cases import at_formula
from tests.distillation.steps import SHAPES, make_setting


class Nested(nn.Module):
    """Holds a layer at `stage1`; its taps are told by hand."""

    def __init__(self, layer: nn.Module, output_fmt: str | None = None) -> None:
        super().__init__()
        self.stage1 = layer
        if output_fmt is not None:
            self.output_fmt = output_fmt


def role(layer: nn.Module, shape: tuple[int, ...], *, name: str = "student", fmt: str | None = None) -> Role:
    paths = {"stem": "stage1", "stage1": "stage1"}
    return Role(name, Nested(layer, fmt), {"stem": shape, "stage1": shape}, paths)


CONV1D = nn.Conv1d(4, 4, 3)
MIXED = nn.Sequential(nn.Conv1d(4, 4, 3), nn.LayerNorm(7))


@pytest.mark.parametrize(
    ("layer", "fmt", "shape", "layout"),
    [
        (nn.Linear(2, 2), None, (5,), Layout(5, (), channels_last=False)),
        (nn.Linear(2, 2), None, (6, 8), Layout(8, (6,), channels_last=True)),
        (nn.Sequential(CONV1D, nn.ReLU()), None, (6, 8), Layout(6, (8,), channels_last=False)),
        (MIXED, None, (6, 8), Layout(8, (6,), channels_last=True)),
        (CONV1D, None, (6, 8, 9), Layout(6, (8, 9), channels_last=False)),
        (nn.Linear(2, 2), "NCHW", (6, 8, 9), Layout(6, (8, 9), channels_last=False)),
        (nn.Linear(2, 2), "NHWC", (6, 8, 9), Layout(9, (6, 8), channels_last=True)),
        (nn.Linear(2, 2), "NHWC", (5,), Layout(5, (), channels_last=False)),
        (nn.Linear(2, 2), None, (3, 6, 8, 9), Layout(3, (6, 8, 9), channels_last=False)),
    ],
    ids=["vector", "tokens", "series", "conformer", "map", "NCHW", "NHWC", "vector of NHWC", "volume"],
)
def test_which_axis_is_which(
    layer: nn.Module, fmt: str | None, shape: tuple[int, ...], layout: Layout
) -> None:
    assert layout_of(role(layer, shape, fmt=fmt), "stage1", wanted_by="at") == layout


def test_only_the_stages_of_a_network_that_says_nhwc_are_so() -> None:
    layout = layout_of(role(nn.Identity(), (3, 4, 5), fmt="NHWC"), "stem", wanted_by="at")
    assert layout == Layout(3, (4, 5), channels_last=False)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ((6, 8, 8), (6,), "a map along 2 axes (6, 8, 8), with 'stage1' of the teacher, a vector (6,)"),
        ((6, 8, 8), (6, 8), "a map along 2 axes (6, 8, 8), with 'stage1' of the teacher, 6 tokens (6, 8)"),
        ((6, 8), (7, 8), "6 tokens (6, 8), with 'stage1' of the teacher, 7 tokens (7, 8)"),
    ],
)
def test_unlike_features_are_refused(one: tuple[int, ...], other: tuple[int, ...], told: str) -> None:
    student, teacher = role(nn.Identity(), one), role(nn.Identity(), other, name="teacher")
    with pytest.raises(UsageError) as caught:
        pair_of(student, "stage1", teacher, "stage1", wanted_by="at")
    assert str(caught.value) == (
        f"term at: cannot compare 'stage1' of the student, {told}\n  try: name taps whose features are alike"
    )


def test_a_series_is_no_row_of_tokens() -> None:
    student, teacher = role(CONV1D, (6, 8)), role(nn.Identity(), (6, 8), name="teacher")
    with pytest.raises(UsageError) as caught:
        pair_of(student, "stage1", teacher, "stage1", wanted_by="fitnet")
    assert str(caught.value) == (
        "term fitnet: cannot compare 'stage1' of the student, a series (6, 8), with 'stage1' of the teacher, "
        "6 tokens (6, 8)\n  try: name taps whose features are alike"
    )


def test_each_axis_comes_down_to_the_smaller_size() -> None:
    wide, high = torch.randn(2, 3, 4, 9), torch.randn(2, 5, 8, 6)
    one, other = same_size(wide, high)
    assert (one.shape, other.shape) == ((2, 3, 4, 6), (2, 5, 4, 6))
    assert other[1, 2, 3].tolist() == pytest.approx(high[1, 2, 6:8].mean(dim=0).tolist())
    assert same_size(wide, wide)[0] is wide


def test_a_unit_row_has_length_one_and_a_zero_row_no_gradient() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-12, 0.0]], requires_grad=True)
    units = unit(rows)
    units.sum().backward()
    assert units.flatten().tolist() == pytest.approx([0.6, 0.8, 0.0, 0.0, 1.0, 0.0])
    assert rows.grad is not None
    assert rows.grad[1].tolist() == [0.0, 0.0]


class Series(nn.Module):
    """Two stages along a series, then the pooled feature and logits."""

    def __init__(self, widths: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.stage1 = nn.Conv1d(2, widths[0], 3, padding=1)
        self.stage2 = nn.Conv1d(widths[0], widths[1], 3, stride, padding=1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(1))
        self.logits = nn.Linear(widths[1], 5)

    def answer(self, x_BCL: Tensor) -> Answer:
        features, kept = x_BCL, {}
        for name, layer in self.named_children():
            features = kept[name] = layer(features)
        return Answer(features, kept)


def series_setting(student: Series, teacher: Series, x_BCL: Tensor) -> Setting:
    def role_of(name: str, network: Series) -> Role:
        features = network.answer(x_BCL).features
        shapes = {tap: tuple(value.shape[1:]) for tap, value in features.items()}
        return Role(name, network, shapes, {tap: tap for tap in shapes})

    one, other = role_of("student", student), role_of("teacher", teacher)
    return Setting(one, {"teacher": other}, num_classes=5, count=8, views=("weak",))


KINDS = ("fitnet", "at", "sp", "rkd", "pkt", "reviewkd")


def series_step(*kinds: str) -> tuple[nn.Module, Step, Tensor]:
    torch.manual_seed(0)
    student, teacher, x_BCL = Series((4, 6), 2), Series((8, 5), 1), torch.randn(8, 2, 12)
    terms = tuple({"kind": kind, "weight": 1.0, "ramp_epochs": 0.0} for kind in kinds)
    distillation = Distillation.model_validate({"label_weight": 0.0, "terms": terms})
    objective = build_objective(distillation, series_setting(student, teacher, x_BCL))
    with torch.no_grad():
        answers = {"teacher": teacher.answer(x_BCL)}
    order_B = torch.arange(8)
    step = Step(student.answer(x_BCL), order_B % 5, answers, order_B)
    total, _ = objective(step)
    total.backward()
    return student, step, total


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_learns_from_series(kind: str) -> None:
    student, _, total = series_step(kind)
    assert torch.isfinite(total)
    assert student.stage1.weight.grad.abs().sum() > 0


def test_attention_of_a_series_is_along_the_series() -> None:
    _, step, total = series_step("at")

    def series(answer: Answer, tap: str) -> np.ndarray:
        return answer.features[tap].detach().double().numpy()[..., None]

    pairs = [
        (series(step.student, tap), series(step.sources["teacher"], tap)) for tap in ("stage1", "stage2")
    ]
    assert total.item() == pytest.approx(sum(at_formula(*pair) for pair in pairs), rel=1e-5)


def test_channels_that_come_last_are_compared_as_channels() -> None:
    class Last(nn.Module):
        output_fmt = "NHWC"

    torch.manual_seed(0)
    student_BCHW, teacher_BHWC = torch.randn(3, 4, 6, 5), torch.randn(3, 6, 5, 8)
    student = Role("student", nn.Identity(), {"stage1": (4, 6, 5)})
    teacher = Role("teacher", Last(), {"stage1": (6, 5, 8)})
    setting = Setting(student, {"teacher": teacher}, num_classes=5, count=8, views=("weak",))
    distillation = Distillation.model_validate(
        {"label_weight": 0.0, "terms": ({"kind": "at", "weight": 1.0},)}
    )
    logits_BK = torch.zeros(3, 5)
    answers = [Answer(logits_BK, {"stage1": feature}) for feature in (student_BCHW, teacher_BHWC)]
    order_B = torch.arange(3)
    total, _ = build_objective(distillation, setting)(
        Step(answers[0], order_B, {"teacher": answers[1]}, order_B)
    )
    expected = at_formula(student_BCHW.double().numpy(), teacher_BHWC.double().numpy().transpose(0, 3, 1, 2))
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("section", "source_shapes", "message"),
    [
        (
            {"kind": "fitnet", "student_tap": "stage3"},
            SHAPES,
            "term fitnet: reads the tap 'stage3', which the student does not have; did you mean 'stage2'?\n"
            "  try: one of the student's taps: stem, stage1, stage2, qkv, pool, logits",
        ),
        (
            {"kind": "fitnet", "teacher_tap": "pool"},
            SHAPES,
            "term fitnet: cannot compare 'stage2' of the student, a map along 2 axes (6, 4, 4), with 'pool' "
            "of the teacher, a vector (6,)\n  try: name taps whose features are alike",
        ),
        (
            {"kind": "at"},
            {**SHAPES, "stage3": (8, 2, 2)},
            "term at: 2 taps of the student (stage1, stage2) cannot be paired with 3 of the teacher "
            "(stage1, stage2, stage3)\n  try: name as many student_taps as teacher_taps",
        ),
        (
            {"kind": "at", "student_taps": ("pool",), "teacher_taps": ("pool",)},
            SHAPES,
            "term at: reads maps, and 'pool' of the student is a vector\n  try: name taps before the pooling",
        ),
        (
            {"kind": "sp", "student_taps": ("stage1", "pool")},
            SHAPES,
            "term sp: 2 taps of the student (stage1, pool) cannot be paired with 1 of the teacher (stage2)\n"
            "  try: name as many student_taps as teacher_taps",
        ),
        (
            {"kind": "rkd", "student_tap": "poll"},
            SHAPES,
            "term rkd: reads the tap 'poll', which the student does not have; did you mean 'pool'?\n"
            "  try: one of the student's taps: stem, stage1, stage2, qkv, pool, logits",
        ),
        (
            {"kind": "pkt", "teacher_tap": "poll"},
            SHAPES,
            "term pkt: reads the tap 'poll', which the teacher does not have; did you mean 'pool'?\n"
            "  try: one of the teacher's taps: stem, stage1, stage2, qkv, pool, logits",
        ),
        (
            {"kind": "reviewkd", "student_taps": ("qkv", "pool"), "teacher_taps": ("qkv", "pool")},
            SHAPES,
            "term reviewkd: fuses maps, and vectors beside them; of the student, 'qkv' is 5 tokens, "
            "'pool' is a vector\n  try: name taps of maps alone in student_taps and teacher_taps",
        ),
        (
            {"kind": "reviewkd", "student_taps": ("pool",), "teacher_taps": ("pool",)},
            SHAPES,
            "term reviewkd: fuses maps, and vectors beside them; of the student, 'pool' is a vector\n"
            "  try: name taps of maps alone in student_taps and teacher_taps",
        ),
        (
            {"kind": "reviewkd"},
            {tap: shape for tap, shape in SHAPES.items() if tap != "stage2"},
            "term reviewkd: 3 taps of the student (stage1, stage2, pool) cannot be paired with 2 of the "
            "teacher (stage1, pool)\n  try: name as many student_taps as teacher_taps",
        ),
    ],
)
def test_what_a_term_cannot_read_is_said_before_the_training(
    section: dict[str, object], source_shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    distillation = Distillation.model_validate({"terms": (section,)})
    with pytest.raises(UsageError) as caught:
        build_objective(distillation, make_setting(source_shapes))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "weight", "ramp_epochs"),
    [
        ("fitnet", 100.0, 0.0),
        ("at", 1000.0, 0.0),
        ("sp", 3000.0, 0.0),
        ("rkd", 1.0, 0.0),
        ("pkt", 30_000.0, 0.0),
        ("reviewkd", 5.0, 20.0),
        ("minilm", 1.0, 0.0),
    ],
)
def test_defaults_are_those_of_the_comparisons(kind: str, weight: float, ramp_epochs: float) -> None:
    (section,) = Distillation.model_validate({"terms": ({"kind": kind},)}).terms
    assert (section.weight, section.ramp_epochs) == (weight, ramp_epochs)


@pytest.mark.parametrize(
    ("section", "smallest"),
    [
        ({"kind": "fitnet"}, 1),
        ({"kind": "fitnet", "teacher_tap": "stage1"}, 2),
        ({"kind": "sp"}, 2),
        ({"kind": "pkt"}, 2),
        ({"kind": "rkd"}, 3),
        ({"kind": "reviewkd"}, 2),
    ],
)
def test_the_smallest_batch_that_has_a_value(section: dict[str, object], smallest: int) -> None:
    distillation = Distillation.model_validate({"terms": (section,)})
    objective = build_objective(distillation, make_setting())
    assert [part.term.smallest_batch for part in objective.parts[1:]] == [smallest]
