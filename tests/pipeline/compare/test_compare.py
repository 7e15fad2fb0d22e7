"""`compare` on the embedded digits: real trainings of small networks, a few epochs each."""

import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from edgekd.documents.comparison import Comparison
from edgekd.documents.recipe import Recipe
from edgekd.errors import DocumentError, RunFolderError
from edgekd.pipeline.compare.plot import write_plot
from edgekd.pipeline.compare.run import Request, compare, missing
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")

EPOCHS = 2
TERMS = "kd,pskd"
ARMS = ["ce", "random-teacher", "kd", "pskd"]
SEEDS = [0, 1]


def request(recipe_path, terms=TERMS, seeds=len(SEEDS), epochs=EPOCHS):
    return Request(recipe_path, terms, seeds, epochs)


@pytest.fixture(scope="module")
def compared(recipe_path, tmp_path_factory):
    """A finished comparison; tests that change it copy it first."""
    run = tmp_path_factory.mktemp("runs") / "a comparison"
    listener = Listener()
    comparison = compare(request(recipe_path), run, listener)
    return run, comparison, listener


@pytest.fixture
def copy(compared, tmp_path):
    return shutil.copytree(compared[0], tmp_path / "copy")


def untimed(comparison):
    """What must not depend on when and how often the work was interrupted."""
    timed = ("seconds", "head_seconds")
    return [
        {
            **{key: value for key, value in arm.items() if key not in timed},
            "seeds": [{key: value for key, value in one.items() if key not in timed} for one in arm["seeds"]],
        }
        for arm in json.loads(comparison.to_json())["arms"]
    ]


def test_every_arm_is_there_with_every_seed(compared):
    _, comparison, _ = compared
    assert (comparison.finished, comparison.seeds, comparison.epochs) == (True, tuple(SEEDS), EPOCHS)
    assert [arm.name for arm in comparison.arms] == ARMS
    assert [arm.teacher for arm in comparison.arms] == ["none", "untrained", "trained", "none"]
    for arm in comparison.arms:
        assert [one.seed for one in arm.seeds] == SEEDS
        assert all(1 <= one.best_epoch <= EPOCHS for one in arm.seeds)


def test_the_seed_changes_the_training(compared):
    answers = [
        np.load(one) for one in sorted(compared[0].glob("stages/compare-kd-seed?-answers-*/correct.npy"))
    ]
    assert len(answers) == 2
    assert (answers[0] != answers[1]).any()


def test_the_split_is_the_same_for_every_seed(compared):
    run, comparison, _ = compared
    files = [json.loads(path.read_text()) for path in run.glob("stages/compare-*-answers-*/stage.json")]
    assert len(files) == 1 + len(ARMS) * len(SEEDS)
    assert len({file["ingredients"]["task"] for file in files}) == 1
    assert comparison.test_examples == 539


def test_the_budget_is_the_same_for_every_arm(compared):
    results = [json.loads(path.read_text()) for path in compared[0].glob("stages/compare-*/result.json")]
    assert len(results) == len(ARMS) * len(SEEDS)
    assert {len(result["history"]) for result in results} == {EPOCHS}
    trainings = [
        json.loads((path.parent / "stage.json").read_text())["ingredients"]["training"]
        for path in compared[0].glob("stages/compare-*/result.json")
    ]
    assert all(training == trainings[0] for training in trainings)


def test_the_test_split_is_judged_in_the_epoch_that_validated_best(compared):
    run, comparison, _ = compared
    for arm in comparison.arms:
        for one in arm.seeds:
            (path,) = run.glob(f"stages/compare-{arm.name}-seed{one.seed}-*/result.json")
            history = json.loads(path.read_text())["history"]
            best = history[one.best_epoch - 1]
            assert best["validation_top1"] == max(record["validation_top1"] for record in history)
            assert one.validation_top1 == best["validation_top1"]
            (correct,) = run.glob(f"stages/compare-{arm.name}-seed{one.seed}-answers-*/correct.npy")
            assert one.test_top1 == np.load(correct).mean()


def test_the_kept_probabilities_are_those_of_the_answers(compared):
    run, _, _ = compared
    for folder in run.glob("stages/compare-*-answers-*"):
        probabilities_NK = np.load(folder / "test-probabilities.npy")
        assert (probabilities_NK.dtype, probabilities_NK.shape) == (np.float16, (539, 10))
        assert np.allclose(probabilities_NK.astype(float).sum(axis=1), 1, atol=5e-3)
        assert np.load(folder / "validation-probabilities.npy").shape == (126, 10)


def test_an_untrained_teacher_teaches_less(compared):
    _, comparison, _ = compared
    _, random_teacher, kd, _ = comparison.arms
    assert random_teacher.test_top1 < kd.test_top1
    assert comparison.teacher_top1 > 0.5
    assert [stage.name for stage in comparison.stages][:2] == ["teacher", "random-teacher"]


def test_the_files_tell_the_same(compared):
    run, comparison, _ = compared
    assert Comparison.read(run / "comparison.json") == comparison
    markdown = (run / "comparison.md").read_text()
    assert markdown.startswith("# tiny: 4 ways to train one student\n\n| arm | test top-1 | spread | to ce |")
    assert all(f"\n| {name} |" in markdown for name in ARMS)
    assert all(note in markdown for note in (*comparison.flags, *comparison.notes))
    svg = ElementTree.parse(run / "comparison.svg").getroot()
    words = "".join(svg.itertext())
    assert all(name in words for name in ARMS[1:])
    assert "points above ce (539 examples)" in words


def test_again_nothing_is_done(compared, copy, recipe_path):
    _, comparison, first = compared
    assert missing(request(recipe_path), copy, Listener()) == []
    listener = Listener()
    again = compare(request(recipe_path), copy, listener)
    assert listener.made == []
    assert listener.reused == first.made
    assert again == comparison
    for name in ("comparison.json", "comparison.md", "comparison.svg"):
        assert (copy / name).read_bytes() == (compared[0] / name).read_bytes()


def test_another_arm_is_trained_alone_and_changes_no_other(compared, copy, recipe_path):
    wider = request(recipe_path, "kd,dkd,pskd")
    stages = ["compare-dkd-seed0", "compare-dkd-seed1"]
    assert missing(wider, copy, Listener()) == stages
    listener = Listener()
    comparison = compare(wider, copy, listener)
    assert listener.made == [name for stage in stages for name in (stage, f"{stage}-answers")]
    assert [arm.name for arm in comparison.arms] == ["ce", "random-teacher", "kd", "dkd", "pskd"]
    others = [one for one in untimed(comparison) if one["name"] != "dkd"]
    assert others == untimed(compared[1])


def test_an_arm_does_not_depend_on_those_before_it(compared, copy, recipe_path):
    """The recipe's own objective is that of kd: the same numbers, bit for bit, trained last."""
    comparison = compare(request(recipe_path, "kd,pskd,recipe"), copy, Listener())
    _, _, kd, _, recipe = untimed(comparison)
    for arm in (kd, recipe):
        del arm["name"], arm["differences"]
    assert recipe == kd


def test_another_seed_is_trained_alone(copy, recipe_path):
    assert missing(request(recipe_path, seeds=3), copy, Listener()) == [
        f"compare-{name}-seed2" for name in ARMS
    ]


def test_other_epochs_leave_the_teacher(copy, recipe_path):
    assert missing(request(recipe_path, epochs=1), copy, Listener()) == [
        f"compare-{name}-seed{seed}" for name in ARMS for seed in SEEDS
    ]


def test_a_dry_run_in_a_new_folder_writes_nothing(recipe_path, tmp_path):
    names = missing(request(recipe_path, "kd", seeds=1), tmp_path / "new", Listener())
    arms = ["compare-ce-seed0", "compare-random-teacher-seed0", "compare-kd-seed0"]
    assert names == ["teacher", *arms]
    assert not (tmp_path / "new").exists()


class Interrupting(Listener):
    """Interrupts one training after an epoch, as Ctrl-C would."""

    def __init__(self, stage, epoch):
        super().__init__()
        self._stage, self._epoch = stage, epoch

    def training(self, name):
        progress = super().training(name)
        if name == self._stage:
            progress.on_epoch = self._interrupt
        return progress

    def _interrupt(self, record):
        if record.epoch == self._epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["teacher", "compare-pskd-seed1"])
def test_an_interrupted_comparison_goes_on_to_the_same_numbers(compared, recipe_path, tmp_path, stage):
    with pytest.raises(KeyboardInterrupt):
        compare(request(recipe_path), tmp_path / "run", Interrupting(stage, 1))
    assert not (tmp_path / "run" / "comparison.json").exists()
    assert list((tmp_path / "run" / "stages").glob(f"{stage}-*.work/checkpoints/epoch-0001-*.pt"))
    listener = Listener()
    comparison = compare(request(recipe_path), tmp_path / "run", listener)
    made = compared[2].made
    assert listener.made == made[made.index(stage) :]
    assert untimed(comparison) == untimed(compared[1])


def test_with_little_time_it_comes_to_its_end_in_many_calls(compared, recipe_path, tmp_path):
    run, seen = tmp_path / "run", []
    asked = request(recipe_path, "kd", seeds=1)
    while not (run / "comparison.json").exists():
        listener = Listener()
        comparison = compare(asked, run, listener, stop_after=1e-3)
        seen.append([arm.name for arm in comparison.arms])
        assert comparison.finished or listener.notes == ["stopped: the time is used up"]
        assert len(seen) < 30
    assert len(seen) > len(ARMS)
    assert seen[0] == []
    assert all(names == ARMS[: len(names)] for names in seen)
    for arm, whole in zip(untimed(comparison), untimed(compared[1]), strict=False):
        assert arm["seeds"] == whole["seeds"][:1]


def test_guided_sets_its_weights_by_the_validation_split(copy, recipe_path):
    comparison = compare(request(recipe_path, "guided"), copy, Listener())
    names = [arm.name for arm in comparison.arms]
    assert names == ["ce", "random-teacher", "kd-only", "guided"]
    labels_N = validation_labels(recipe_path)
    for one in comparison.arms[3].seeds:
        fits = [probabilities(copy, name, one.seed) for name in ("ce", "kd-only")]
        errors = [
            sum(
                (weight * of_labels[k] + (1 - weight) * of_teacher[k] - (k == label)) ** 2
                for of_labels, of_teacher, label in zip(*fits, labels_N, strict=True)
                for k in range(10)
            )
            for weight in np.linspace(0, 1, 101)
        ]
        assert one.label_weight == pytest.approx(np.argmin(errors) / 100, abs=0.0051)
        files = [json.loads(path.read_text()) for path in copy.glob("stages/compare-guided-*/stage.json")]
        (trained,) = [one_file for one_file in files if one_file["name"] == f"compare-guided-seed{one.seed}"]
        objective = trained["ingredients"]["distillation"]
        assert objective["label_weight"] == one.label_weight
        assert objective["terms"][0]["weight"] == 1 - one.label_weight


def test_every_arm_is_tried_out_before_anything_is_trained(recipe_path, tmp_path):
    asked = request(recipe_path, "kd,minilm,fitnet:student_tap=stage9,crd:negatives=5")
    with pytest.raises(DocumentError) as caught:
        compare(asked, tmp_path / "run", Listener())
    assert str(caught.value) == (
        "--terms: 2 problems\n"
        "  arm 'minilm': term minilm: reads the tap 'qkv', which the student does not have; one of the "
        "student's taps: stem, stage1, stage2, stage3, pool, logits\n"
        "  arm 'fitnet:student_tap=stage9': term fitnet: reads the tap 'stage9', which the student does not "
        "have; did you mean 'stage3'?; one of the student's taps: stem, stage1, stage2, stage3, pool, "
        "logits\n"
        "  try: leave these arms out, or change the recipe"
    )
    assert not (tmp_path / "run").exists()


def test_a_batch_that_is_too_small_is_refused_before_anything_is_trained(tmp_path):
    recipe_path = tmp_path / "tiny.toml"
    student = 'network = "resnet8"\ntraining = { epochs = 3, batch_size = 64 }'
    assert student in RECIPE
    recipe_path.write_text(RECIPE.replace(student, student.replace("64", "2")))
    with pytest.raises(DocumentError) as caught:
        compare(request(recipe_path, "rkd"), tmp_path / "run", Listener())
    (problem,) = caught.value.problems
    assert problem.startswith("arm 'rkd': term rkd: needs batches of at least 3 examples")


def test_the_run_of_compress_lends_its_teacher(run, recipe_path, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    listener = Listener()
    compare(request(recipe_path, "", seeds=1, epochs=1), copied, listener)
    assert listener.reused == ["teacher"]
    assert (copied / "report.json").read_bytes() == (run / "report.json").read_bytes()


def test_a_folder_of_another_recipe_is_refused(copy, recipe_path, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.replace('name = "tiny"', 'name = "other"'))
    with pytest.raises(RunFolderError, match="holds the run of another recipe, 'tiny'"):
        compare(request(other), copy, Listener())


def test_a_changed_recipe_leaves_no_old_comparison(copy, recipe_path, tmp_path):
    changed = tmp_path / "tiny.toml"
    changed.write_text(RECIPE.replace("top1_drop_pt = 10.0", "top1_drop_pt = 11.0"))
    listener = Interrupting("compare-dkd-seed0", 1)
    with pytest.raises(KeyboardInterrupt):
        compare(request(changed, "dkd"), copy, listener)
    assert not list(copy.glob("comparison.*"))


def validation_labels(recipe_path):
    from edgekd.tasks.task import build_task

    recipe = Recipe.read(recipe_path)
    return build_task(recipe.task, base_dir=recipe_path.parent, seed=recipe.seed).validation.y


def probabilities(run, arm, seed):
    (path,) = run.glob(f"stages/compare-{arm}-seed{seed}-answers-*/validation-probabilities.npy")
    return np.load(path).astype(float)


def test_students_are_compared_whole_where_the_recipe_ships_an_exit(tmp_path):
    path = tmp_path / "exit.toml"
    exits = '\n[[distillation.terms]]\nkind = "exits"\n'
    path.write_text(RECIPE.replace("[student]", '[student]\nexit = "stage2"') + exits)
    listener = Listener()
    compare(Request(path, "recipe", 1, 1), tmp_path / "run", listener)
    assert "compare-recipe-seed0" in listener.made


def test_a_long_name_leaves_room_for_the_plot(compared, tmp_path):
    _, comparison, _ = compared
    long = comparison.arms[-1].model_copy(update={"name": "pskd:" + "alpha=0.5:" * 12})
    changed = comparison.model_copy(update={"arms": (*comparison.arms[:-1], long)})
    write_plot(changed, tmp_path / "plot.svg")  # matplotlib warns, an error here, where no room is left
    words = "".join(ElementTree.parse(tmp_path / "plot.svg").getroot().itertext())
    assert long.name[:39] + "\N{HORIZONTAL ELLIPSIS}" in words
