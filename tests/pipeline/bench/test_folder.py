"""The folder of a bench: done ones are read, failed parts are tried again, and nothing else is touched."""

from __future__ import annotations

import pytest

from edgekd.documents.bench import Bench
from edgekd.errors import DeviceError, RunFolderError
from edgekd.pipeline.bench import folder
from edgekd.pipeline.bench.folder import open_folder, write_folder
from edgekd.pipeline.bench.plan import Place, Plan, read_graphs
from edgekd.pipeline.bench.run import bench, compare
from tests.pipeline.bench.fakes import MEASURING, FakeDevice, Listener, write_graph

FILES = {"bench.json", "bench.md", "course.svg", "distribution.svg", "logs", "plan.sha256"}


@pytest.fixture
def plan(tmp_path):
    paths = [write_graph(tmp_path / name) for name in ("a.onnx", "slow.onnx")]
    return Plan(read_graphs(paths, None, tmp_path), measuring=MEASURING)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "an out"


def opened(out, plan, *, interleave=False, fresh=False):
    return open_folder(out, plan, interleave=interleave, fresh=fresh)


def filled(out, plan):
    assert opened(out, plan) is None
    found = bench(plan, out.parent, Listener(), out=out)
    write_folder(out, found)
    return found


def test_a_done_bench_is_read_with_its_samples(out, plan, devices):
    found = filled(out, plan)
    assert {path.name for path in out.iterdir()} == FILES
    again = opened(out, plan)
    assert again.document == found.document == Bench.read(out / "bench.json")
    for courses, before in zip(again.courses, found.courses, strict=True):
        assert [one.label for one in courses] == [one.label for one in before]
        for one, other in zip(courses, before, strict=True):
            assert one.taken_ms.tolist() == other.taken_ms.tolist()
            assert one.at_s.tolist() == other.at_s.tolist()


def test_a_done_comparison_is_read(out, plan, devices):
    assert opened(out, plan, interleave=True) is None
    found = compare(plan, out.parent, Listener(), out=out)
    assert write_folder(out, found) == ()
    again = opened(out, plan, interleave=True)
    assert (again.document, again.courses) == (found.document, ())


def test_what_failed_is_tried_again_and_the_rest_is_not(out, plan, devices):
    places = (Place("local"), Place("ssh://board"))
    plan = Plan(plan.graphs, places=places, measuring=MEASURING)
    devices["ssh://board"] = board = FakeDevice("ssh://board")
    board.fails = lambda job: DeviceError("it is switched off")
    found = filled(out, plan)
    assert [row.error is None for row in found.document.rows] == [True, True, False, False]
    board.fails = lambda job: None
    done = len(devices["local"].jobs)
    assert opened(out, plan) is None
    found = bench(plan, out.parent, Listener(), out=out)
    assert all(row.error is None for row in found.document.rows)
    assert (len(devices["local"].jobs), len(board.jobs)) == (done, done)


@pytest.mark.parametrize("name", ["bench.json", "logs"])
def test_a_damaged_result_is_made_again(out, plan, devices, name):
    filled(out, plan)
    path = out / name if name == "bench.json" else sorted((out / name).iterdir())[0]
    path.write_bytes(path.read_bytes()[:50])
    assert opened(out, plan) is None


def test_another_plan_is_refused_unless_afresh(out, plan, devices):
    filled(out, plan)
    other = Plan(plan.graphs, measuring=MEASURING, threads=(2,))
    message = f"{out}: holds another bench: other graphs, devices or settings"
    hint = "name another folder with --out, or --fresh to lose what it holds"
    for refused in (lambda: opened(out, other), lambda: opened(out, plan, interleave=True)):
        with pytest.raises(RunFolderError) as caught:
            refused()
        assert str(caught.value) == f"{message}\n  try: {hint}"
    (out / "mine.svg").write_text("mine")
    (out / "logs" / "mine.txt").write_text("mine")
    assert opened(out, other, fresh=True) is None
    assert {path.name for path in out.iterdir()} == {"plan.sha256", "logs", "mine.svg"}
    assert [path.name for path in (out / "logs").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_something_else_is_left_alone(out, plan, fresh):
    out.mkdir()
    (out / "bench.json").write_text("mine")
    with pytest.raises(RunFolderError) as caught:
        opened(out, plan, fresh=fresh)
    assert str(caught.value) == f"{out}: is no folder of a bench\n  try: name another one with --out"
    assert (out / "bench.json").read_text() == "mine"


def test_a_file_is_no_folder(out, plan):
    out.write_text("mine")
    with pytest.raises(RunFolderError) as caught:
        opened(out, plan)
    assert str(caught.value) == f"{out}: is no folder\n  try: name a folder with --out"


def test_a_plan_that_is_no_text_is_another_one(out, plan):
    out.mkdir()
    (out / "plan.sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(RunFolderError, match="holds another bench"):
        opened(out, plan)


def test_without_matplotlib_there_are_no_plots_and_it_says_so(out, plan, devices, monkeypatch):
    monkeypatch.setattr(folder, "is_installed", lambda module: False)
    found = filled(out, plan)
    assert {path.name for path in out.iterdir()} == FILES - {"course.svg", "distribution.svg"}
    assert "svg" not in (out / "bench.md").read_text()
    assert folder.no_plots(found) == "no plots: matplotlib is not installed; try: pip install 'edgekd[plot]'"
    monkeypatch.setattr(folder, "is_installed", lambda module: True)
    assert folder.no_plots(found) is None
