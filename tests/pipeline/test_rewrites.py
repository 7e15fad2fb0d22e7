from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from edgekd.devices.local import LocalDevice
from edgekd.documents.common import InputSpec, Interval
from edgekd.documents.measurement import Ratio
from edgekd.documents.recipe import Measuring
from edgekd.documents.rewrites import REWRITES, RewriteDecisions
from edgekd.documents.scheme import Scheme
from edgekd.pipeline import rewrites
from edgekd.pipeline.rewrites import decide_rewrites, measurable, pays
from edgekd.quantization.canonical import replace_relu6
from tests.quantization.networks import SHAPE, Attention, Branches, Inverted, PostAct, build, examples

INPUT = InputSpec(shape=SHAPE, layout="NCHW", raw_dtype="float32", mean=(0.0,) * 3, std=(1.0,) * 3)


class Clock:
    """In the place of measure_latency: gives the ratios that it was told, and notes what it measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **intervals: tuple[float, float]) -> None:
        self.intervals = list(intervals.values())
        self.operators: list[tuple[Counter[str], Counter[str]]] = []
        """Types of the nodes of each pair of graphs, with and without."""
        monkeypatch.setattr(rewrites, "measure_latency", self)

    def __call__(self, device: object, graphs: Mapping[str, Path], **options: Any) -> SimpleNamespace:
        assert (options["runtime"], options["reference"]) == ("onnxruntime", "without")
        with_, without = (
            Counter(node.op_type for node in onnx.load(graphs[name]).graph.node)
            for name in ("with", "without")
        )
        lower, upper = self.intervals[len(self.operators)]
        self.operators.append((with_, without))
        interval = Interval(lower=lower, upper=upper, confidence=0.9)
        ratio = Ratio(name="with", reference="without", value=(lower + upper) / 2, interval=interval)
        return SimpleNamespace(ratios=(ratio,))


def decide(network: nn.Module, scheme: Scheme | None = None) -> RewriteDecisions:
    return decide_rewrites(network, examples(4), INPUT, device=LocalDevice(), scheme=scheme)


def test_each_pair_of_graphs_differs_by_one_rewrite_and_the_faster_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(
        monkeypatch,
        tokens_as_rows=(1.1, 1.2),  # slower beyond noise: off from here
        float_attention=(0.8, 0.9),
        float_sums=(0.9, 1.2),  # within noise: as by default
        pad_channels=(0.7, 1.01),
    )
    found = decide(build(Attention))
    assert found.choices == {
        "tokens_as_rows": False,
        "float_attention": True,
        "float_sums": True,
        "pad_channels": True,
    }
    first = found.measured[0]
    assert (first.name, first.interval.lower, first.interval.upper) == ("tokens_as_rows", 1.1, 1.2)
    assert first.ratio == pytest.approx(1.15)
    # linear maps on rows are Gemm; they stay MatMul in all that is measured next
    assert clock.operators[0][0]["Gemm"] > 1
    assert all(
        operators["Gemm"] == 1 for pair in clock.operators[1:] for operators in (*pair, clock.operators[0][1])
    )
    assert [operators["Pad"] for pair in clock.operators for operators in pair] == [1] * 7 + [0]


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize(
    ("lower", "upper", "faster"), [(0.8, 0.99, True), (0.8, 1.0, None), (1.0, 1.2, None), (1.01, 1.2, False)]
)
def test_the_default_stays_unless_the_other_form_is_faster_beyond_noise(
    lower: float, upper: float, faster: bool | None, default: bool
) -> None:
    interval = Interval(lower=lower, upper=upper, confidence=0.9)
    assert pays(interval, default=default) == (default if faster is None else faster)


def test_what_the_scheme_names_is_not_measured_and_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, shared_concat_scale=(0.8, 0.9))
    scheme = Scheme(rewrites={"pad_channels": False})
    assert decide(build(Branches), scheme).choices == {"shared_concat_scale": True}
    assert not any(operators["Pad"] for pair in clock.operators for operators in pair)


def test_rewrites_that_change_the_function_are_never_switched() -> None:
    assert measurable(build(Inverted), examples(2), Scheme()) == ("pad_channels",)
    assert not REWRITES["relu6_as_relu"].measured
    assert not REWRITES["silu_as_hard_swish"].measured


def test_a_network_to_which_none_applies_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrites, "measure_latency", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(rewrites, "export_int8", lambda *_, **__: pytest.fail("exported"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    assert decide(network) == RewriteDecisions()
    assert decide(build(PostAct), Scheme(rewrites={"pad_channels": True})).choices == {}


def test_the_network_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, pad_channels=(0.8, 0.9))
    network = replace_relu6(build(Inverted))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    decide(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_it_is_measured_on_the_runtime() -> None:
    found = decide_rewrites(
        build(PostAct),
        examples(4),
        INPUT,
        device=LocalDevice(),
        measuring=Measuring(processes=2, warmup_s=0.01, max_warmup_s=0.02, min_time_s=0.01, min_samples=20),
    )
    (measured,) = found.measured
    assert measured.name == "pad_channels"
    assert 0 < measured.interval.lower <= measured.ratio <= measured.interval.upper
    assert RewriteDecisions.model_validate_json(found.model_dump_json()) == found
