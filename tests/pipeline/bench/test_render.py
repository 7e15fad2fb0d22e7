"""Tables, details, lines and Markdown of a bench."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.documents.bench import Bench, Row, Setting
from edgekd.documents.measurement import Percentile
from edgekd.errors import MeasurementError
from edgekd.pipeline.bench import render
from edgekd.pipeline.bench.details import bounded, split
from edgekd.pipeline.bench.plan import Plan, read_graphs
from edgekd.pipeline.bench.run import bench, compare
from edgekd.pipeline.bench.sparkline import BARS, sparkline
from tests.pipeline.bench.fakes import MEASURING, Listener, write_graph


@pytest.fixture
def plan(tmp_path):
    paths = [write_graph(tmp_path / name) for name in ("a.onnx", "slow|er.onnx")]
    return Plan(read_graphs(paths, None, tmp_path), measuring=MEASURING)


@pytest.fixture
def found(plan, tmp_path, devices):
    return bench(plan, tmp_path, Listener())


@st.composite
def series(draw):
    values = st.floats(0, 1e6, allow_subnormal=False)
    return draw(st.lists(values, min_size=8, max_size=60))


@given(values=series(), cells=st.integers(1, 8))
def test_a_sparkline_is_of_bars(values, cells):
    line = sparkline(values, cells)
    assert len(line) == cells
    assert set(line) <= set(BARS)


@given(value=st.floats(0, 1e9), count=st.integers(4, 40))
def test_a_constant_series_is_level(value, count):
    assert sparkline([value] * count, 4) == BARS[0] * 4


@given(values=series())
def test_a_sparkline_rises_and_falls_with_the_medians_of_its_parts(values):
    medians = [float(np.median(part)) for part in np.array_split(np.array(values), 8)]
    heights = [BARS.index(bar) for bar in sparkline(values, 8)]
    for one, other, low, high in zip(medians, medians[1:], heights, heights[1:], strict=False):
        assert (low <= high) if one <= other else (low >= high)


def test_sparklines():
    assert sparkline(range(8), 8) == BARS
    assert sparkline([100, 101, 100, 101], 4) == "▁▁▁▁"  # 1 % of noise is no mountain
    assert sparkline([100, 105, 100, 110], 4) == "▁▅▁█"
    assert sparkline([1, 2, 3], 4) == ""
    assert sparkline([], 4) == ""


def test_percentiles_stand_with_their_bound():
    assert bounded(Percentile(lower_ms=0.5, value_ms=0.6, upper_ms=1.25)) == "600 µs ≤ 1.25 ms"
    assert bounded(Percentile(lower_ms=1, value_ms=1.5, upper_ms=12)) == "1.50 ≤ 12.0 ms"
    assert bounded(None) == "-"


def test_what_is_the_same_is_said_once():
    one, two = (("a", "1"), ("b", "2")), (("a", "1"), ("b", "3"), ("c", "4"))
    assert split([one, two]) == ((("a", "1"),), ((("b", "2"),), (("b", "3"), ("c", "4"))))
    assert split([one]) == (one, ((),))
    assert split([]) == ((), ())


def test_a_table_has_the_columns_in_which_its_rows_differ(found, plan, tmp_path):
    headings, cells = render.measured_table(found.document.rows)
    assert headings == ("graph", "quiet", "p50", "p90", "p99")
    assert [row[0] for row in cells] == ["a.onnx", "slow|er.onnx"]
    assert cells[0][4] == "-"  # 600 samples carry no 99th percentile
    assert cells[0][1].endswith(" µs")
    assert cells[1][1].endswith(" ms")
    swept = Plan(plan.graphs, measuring=MEASURING, threads=(1, 2), batches=(1, 4))
    headings, cells = render.measured_table(bench(swept, tmp_path, Listener()).document.rows)
    assert headings == ("graph", "threads", "batch", "quiet", "p50", "p90", "p99")
    assert [row[1:3] for row in cells[:4]] == [("1", "1"), ("2", "1"), ("1", "4"), ("2", "4")]


def setting(**ways):
    given = {"graph": "g", "device": "local", "runtime": "onnxruntime", "threads": 1, "batch_size": 1, **ways}
    return Setting.model_validate(given)


def test_addresses_stand_without_their_options():
    rows = [Row(setting=setting(), error="no"), Row(setting=setting(device="ssh://pi?python=/x"), error="no")]
    assert render.measured_table(rows) == (
        ("graph", "device", "quiet", "p50", "p90", "p99"),
        [("g", "local", "-", "-", "-", "-"), ("g", "ssh://pi", "-", "-", "-", "-")],
    )


@pytest.mark.parametrize(
    ("ways", "title"),
    [
        ({}, "g, onnxruntime on local, 1 thread"),
        ({"threads": 2, "batch_size": 4}, "g, onnxruntime on local, 2 threads, batch 4"),
        ({"device": "ssh://pi?python=/x"}, "g, onnxruntime on ssh://pi, 1 thread"),
    ],
)
def test_titles(ways, title):
    assert render.title_of(setting(**ways)) == title


def test_details_say_what_all_share_first(found):
    (none, shared), (first, of_first), (second, _) = render.details(found.document, found.courses)
    assert (none, first, second) == (
        "",
        "a.onnx, onnxruntime on local, 1 thread",
        "slow|er.onnx, onnxruntime on local, 1 thread",
    )
    lines = dict(shared)
    assert lines["machine"] == "Cortex-A76"
    assert lines["versions"] == "python 3.11.7, onnxruntime 1.31.1"
    assert lines["samples"] == "600 in 3 fresh processes"
    assert lines["load"] == "5.00 ms"
    assert lines["cold start"] == "300 ms, from the start of the process"
    assert lines["memory"] == "64.0 MiB, 4.00 MiB by the graph"
    assert lines["energy"] == "not measured: no energy counter"
    assert set(dict(of_first)) == {"over time"}
    assert len(dict(of_first)["over time"]) == 32


def test_details_of_one_setting_have_no_title(plan, tmp_path, devices):
    alone = Plan(
        {"a.onnx": plan.graphs["a.onnx"]}, measuring=MEASURING, sustained_s=30, rate_hz=100, rate_s=5
    )
    found = bench(alone, tmp_path, Listener())
    ((title, lines),) = render.details(found.document, found.courses)
    assert title == ""
    said = dict(lines)
    paced = found.document.rows[0].measurement.subjects[0].paced
    assert said["at 100 Hz, 5 s"] == f"p50 {bounded(paced.p50)}, p99 -, 3 of 400 late, 100 never begun"
    assert said["sustained 30 s"].endswith(", 400 inferences")
    assert [name for name in said if name.startswith("over time")] == [
        "over time",
        "over time, paced",
        "over time, sustained",
    ]


def test_comparisons(plan, tmp_path, devices):
    found = compare(plan, tmp_path, Listener()).document
    headings, ((graph, to, ratio, interval, outcome),) = render.compared_table(found.comparisons)
    assert headings == ("graph", "to", "ratio", "interval", "found")
    assert (graph, to, outcome) == ("slow|er.onnx", "a.onnx", "slower")
    bounds = found.comparisons[0].comparison.interval
    assert interval == f"{bounds.lower:.3f} to {bounds.upper:.3f} (98 %)"
    assert 1.49 < float(ratio) < 1.51
    ((_, lines),) = render.details(found, ())
    assert dict(lines)["no difference"] == "ratios from 0.980 to 1.020"
    assert dict(lines)["evidence"].startswith("8 processes, 80 pairs of blocks, ")


def test_what_differs_in_its_numbers_alone_is_said_once_and_in_order(found):
    first, second = found.document.rows

    def warned(row, *lines, **more):
        return row.model_copy(
            update={"measurement": row.measurement.model_copy(update={"warnings": lines, **more})}
        )

    rows = (
        warned(first, "load 4.9 on 2", "jumps", invalid=("hot: 91 C",)),
        warned(second, "load 5.1 on 2", "other", mismatches=("no board",), profile="pi"),
        Row(setting=first.setting, error="no"),
    )
    assert render.problems(found.document.model_copy(update={"rows": rows})) == (
        "a.onnx, onnxruntime on local, 1 thread: invalid: hot: 91 C",
        "slow|er.onnx, onnxruntime on local, 1 thread: not pi: no board",
        "load 4.9 on 2",
        "jumps",
        "other",
    )


def test_markdown(plan, tmp_path, devices):
    devices["local"].fails = lambda job: (
        MeasurementError("it\nfails") if "slow" in job.graphs[0].name else None
    )
    found = bench(plan, tmp_path, Listener())
    text = render.to_markdown(found.document, found.courses, ("distribution.svg",))
    lines = text.splitlines()
    assert lines[0] == "# Latency"
    assert "| slow\\|er.onnx | - | - | - | - |" in lines
    assert "![distribution](distribution.svg)" in lines
    assert "| machine | Cortex-A76 |" in lines
    assert "- slow|er.onnx, onnxruntime on local, 1 thread: it fails" in lines
    assert text.endswith("too few samples.\n")


def test_an_empty_bench_has_no_tables():
    text = render.to_markdown(Bench(graphs={}, measuring=MEASURING), (), ())
    assert text == f"# Latency\n\n{render.EXPLAINED}\n"
