"""`edgekd quantize --arms` as a whole: made, run, measured, told; and taken up again."""

import json
import shutil

import pytest

from edgekd.documents.arms import Arms
from edgekd.errors import RunFolderError, UsageError
from edgekd.pipeline.quantize.plot import write_plot
from edgekd.pipeline.quantize.render import HEADINGS, cells, to_markdown
from edgekd.pipeline.quantize.run import Request, quantize_arms
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")

WHICH = "fp32-tuned,ptq-max,qad,quantize-static,w4-ptq,differentiable-quantization,fp16"


@pytest.fixture(scope="module")
def made(run, recipe_path, tmp_path_factory):
    folder = shutil.copytree(run, tmp_path_factory.mktemp("arms") / "run")
    listener = Listener()
    return quantize_arms(Request(recipe_path, WHICH), folder, listener), folder, listener


def arm_of(arms, name):
    return next(arm for arm in arms.arms if arm.name == name)


def test_every_arm_has_its_figures(made):
    arms, _, _ = made
    assert [arm.name for arm in arms.arms] == ["fp32", *WHICH.split(",")]
    for arm in arms.arms:
        assert 0.5 < arm.accuracy.top1 <= 1
        assert arm.accuracy.count == 539
        assert arm.latency_ms.p50 > 0
        assert arm.size_bytes > 1000
        assert arm.weighted_ops == 10
    assert [arm.int8_ops for arm in arms.arms] == [0, 0, 10, 10, 10, 10, 0, 0]


def test_the_arms_are_put_beside_the_fp32_student(made):
    arms, _, _ = made
    fp32 = arm_of(arms, "fp32")
    assert (fp32.change, fp32.ratio, fp32.seconds) == (None, None, 0)
    for arm in arms.arms[1:]:
        assert arm.change is not None
        assert arm.change.mean == pytest.approx(arm.accuracy.top1 - fp32.accuracy.top1)
        assert arm.change.interval.lower < arm.change.mean < arm.change.interval.upper
        # 539 examples tell no more than this, even where every answer is the same: z^2 / (N + z^2)
        assert (
            arm.change.interval.upper - arm.change.interval.lower > 2 * 1.95996**2 / (539 + 1.95996**2) - 1e-6
        )
        assert arm.ratio is not None
        assert arm.ratio.reference == "fp32"


def test_what_ships_is_what_compress_ships(made):
    arms, folder, listener = made
    report = json.loads((folder / "report.json").read_text()) if (folder / "report.json").exists() else None
    assert [arm.name for arm in arms.arms if arm.ships] == ["qad"]
    assert {"teacher", "student", "ptq-max", "qad"} <= set(listener.reused), "compress had made them"
    assert report is None or report["rows"][3]["top1"] == arm_of(arms, "qad").accuracy.top1


def test_the_front_is_made_of_what_nothing_dominates(made):
    arms, _, _ = made
    for arm in arms.arms:
        merit = (arm.accuracy.top1, -arm.latency_ms.p50, -arm.size_bytes)
        dominated = any(
            other is not arm
            and all(
                theirs >= own
                for theirs, own in zip(
                    (other.accuracy.top1, -other.latency_ms.p50, -other.size_bytes), merit, strict=True
                )
            )
            for other in arms.arms
        )
        assert arm.on_front is not dominated


def test_the_files_say_the_same(made):
    arms, folder, _ = made
    assert Arms.read(folder / "arms.json") == arms
    markdown = (folder / "arms.md").read_text()
    assert markdown == to_markdown(arms)
    assert all(f"| {arm.name} |" in markdown for arm in arms.arms)
    assert all(len(cells(arm)) == len(HEADINGS) for arm in arms.arms)


def test_the_plot_is_the_same_each_time(made, tmp_path):
    arms, folder, _ = made
    write_plot(arms, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (folder / "arms.svg").read_bytes()
    assert b"qad (ships)" in (folder / "arms.svg").read_bytes()


def test_another_arm_redoes_only_the_measuring(made, recipe_path, tmp_path):
    _, folder, _ = made
    copy, listener = shutil.copytree(folder, tmp_path / "copy"), Listener()
    quantize_arms(Request(recipe_path, f"{WHICH},qat"), copy, listener)
    assert listener.made == ["qat", "arm-qat", "arms-latency"]
    again = Listener()
    quantize_arms(Request(recipe_path, WHICH), copy, again)
    assert again.made == []


def test_a_wrong_arm_is_refused_before_any_work(recipe_path, tmp_path):
    with pytest.raises(UsageError):
        quantize_arms(Request(recipe_path, "nothing"), tmp_path / "new", Listener())
    assert not (tmp_path / "new").exists()


def test_a_folder_of_another_recipe_is_refused(made, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.replace('name = "tiny"', 'name = "other"'))
    with pytest.raises(RunFolderError, match="holds the run of another recipe, 'tiny'"):
        quantize_arms(Request(other, WHICH), made[1], Listener())


def test_an_arm_without_a_teacher_is_left_out_with_its_reason(tmp_path):
    alone = tmp_path / "alone.toml"
    text = RECIPE.replace(
        "[quantization]", "[distillation]\nlabel_weight = 1.0\nterms = []\n\n[quantization]"
    )
    alone.write_text(text.replace("epochs = 3", "epochs = 1"))
    listener = Listener()
    arms = quantize_arms(Request(alone, "qad-teacher"), tmp_path / "run", listener)
    assert [arm.name for arm in arms.arms] == ["fp32"]
    assert arms.not_done == ("qad-teacher: no term of the objective reads a teacher",)
    assert listener.notes[0] == arms.not_done[0]
