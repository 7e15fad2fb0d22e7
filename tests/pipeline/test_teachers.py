"""Who teaches in a run: several networks, a file of answers, weights from elsewhere, nobody."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekd.documents.recipe import DigitsTask, Recipe
from edgekd.errors import DataError, NetworkError, UsageError
from edgekd.pipeline import learn
from edgekd.pipeline.artefacts import artefacts_in
from edgekd.pipeline.compress import compress, first_missing
from edgekd.pipeline.context import Context
from edgekd.pipeline.networks import load_student, new_network
from edgekd.pipeline.notes import notes_of, of_teacher
from edgekd.pipeline.quantize import stages as quantize_stages
from edgekd.pipeline.rejudge import rejudge
from edgekd.pipeline.run_folder import RunFolder, read_run
from edgekd.pipeline.teachers import TeacherStages, load_teacher, make_teacher, random_role
from edgekd.tasks.fraction import fraction_of
from edgekd.tasks.task import build_task
from edgekd.training.data import derive_seed
from edgekd.training.evaluate import predict_logits
from edgekd.training.trainer import train_network
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")

ONE_EPOCH = RECIPE.replace("epochs = 3", "epochs = 1")
TEACHER = 'network = "resnet14"\ntraining = { epochs = 1, batch_size = 64 }\n'
MEMBERS = """
[[teacher.members]]
network = "resnet8"
training = { epochs = 1, batch_size = 64 }

[[teacher.members]]
network = "resnet8"
training = { epochs = 1, batch_size = 64 }
"""


@pytest.fixture
def write(tmp_path):
    def write(*changes, name="recipe.toml", text=ONE_EPOCH):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def ensemble(write):
    def recipe(combine="mean", members=MEMBERS, **names):
        return write((TEACHER, TEACHER + f'combine = "{combine}"\n{members}'), **names)

    return recipe


def task_of(**settings):
    return build_task(DigitsTask(**settings), base_dir=None, seed=0)


def context_of(recipe_path, run):
    return Context(Recipe.read(recipe_path), recipe_path.parent, RunFolder(run, "tiny"), Listener())


def stages_of(run):
    return read_run(run)[1]


class Dies(Listener):
    """Ends the run as Ctrl-C would, when the training of a stage begins."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def training(self, name):
        if name == self.stage:
            raise KeyboardInterrupt
        return super().training(name)


def test_an_ensemble_goes_the_whole_way_and_resumes_member_by_member(ensemble, tmp_path):
    recipe, run = ensemble("weighted"), tmp_path / "run"
    dying = Dies("teacher-3")
    with pytest.raises(KeyboardInterrupt):
        compress(recipe, run, dying)
    assert dying.made == ["teacher", "teacher-2"]
    listener = Listener()
    compress(recipe, run, listener, until="export")
    assert listener.reused == ["teacher", "teacher-2"]
    assert listener.made[:3] == ["teacher-3", "teacher-ensemble", "student"]
    kept = json.loads(next(run.glob("stages/teacher-ensemble-*/members.json")).read_text())
    assert [one["network"] for one in kept["members"]] == ["resnet14", "resnet8", "resnet8"]
    assert [one["stage"] for one in kept["members"]] == ["teacher", "teacher-2", "teacher-3"]
    scores, shares = (np.array([one[key] for one in kept["members"]]) for key in ("transferability", "share"))
    assert shares == pytest.approx(scores / scores.sum())
    note = notes_of(Recipe.read(recipe), stages_of(run))[0]
    assert note.startswith("the teacher is an ensemble, top-1 on validation ")
    assert f"weighted of resnet14 {shares[0]:.2f} (alone " in note

    # Members of one architecture are not the same network twice, and what is exported is their mean.
    stages = stages_of(run)
    second, third = (
        load_file(stages[name].path("weights.safetensors")) for name in ("teacher-2", "teacher-3")
    )
    assert not torch.equal(second["stem.0.weight"], third["stem.0.weight"])
    context, task = context_of(recipe, run), task_of()
    teacher = TeacherStages(
        context.recipe.teacher, tuple(stages[f"teacher{end}"] for end in ("", "-2", "-3", "-ensemble"))
    )
    x_NC = torch.from_numpy(task.normalize(task.test.x))
    exported = np.load(stages["graphs"].path("teacher-fp32.logits.npy"))
    assert predict_logits(load_teacher(context, task, teacher), x_NC).numpy() == pytest.approx(
        exported, abs=1e-4
    )

    # Another way of combining them trains no member again.
    assert first_missing(ensemble("mean"), run, Listener()) == "teacher-ensemble"
    other = MEMBERS.replace("epochs = 1", "epochs = 2", 1)
    assert first_missing(ensemble("weighted", other), run, Listener()) == "teacher-2"


def test_the_nearest_teaches_alone(ensemble, tmp_path):
    recipe, run = ensemble("nearest"), tmp_path / "run"
    compress(recipe, run, Listener(), until="distill")
    kept = json.loads(next(run.glob("stages/teacher-ensemble-*/members.json")).read_text())
    best = max(kept["members"], key=lambda one: one["transferability"])
    assert [one["share"] for one in kept["members"]] == [float(one is best) for one in kept["members"]]
    assert kept["validation_top1"] == best["validation_top1"]


def test_what_can_be_found_wrong_at_once_is_looked_at_before_anything_is_trained(ensemble, run, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file(permuted(run), weights)
    given = '[[teacher.members]]\nnetwork = "resnet14"\nweights = "w.safetensors"\n'
    listener = Listener()
    with pytest.raises(NetworkError, match="its classes seem to be in another order"):
        compress(ensemble(members=given), tmp_path / "run", listener)
    assert listener.made == []


def permuted(run, shift=1):
    """The weights of the finished run's teacher, with its classes in another order."""
    state = load_file(stages_of(run)["teacher"].path("weights.safetensors"))
    names = [name for name, value in state.items() if value.ndim and len(value) == 10]
    assert len(names) == 2  # weight and bias of the classifier
    return state | {name: state[name].roll(shift, 0).contiguous() for name in names}


@pytest.fixture
def given(write, tmp_path):
    """A recipe whose teacher is given as weights."""

    def recipe(state, metadata=None):
        save_file(state, tmp_path / "w.safetensors", metadata)
        return write((TEACHER, 'network = "resnet14"\nweights = "w.safetensors"\n'))

    return recipe


def test_given_weights_are_checked_and_kept(given, run, tmp_path):
    out = tmp_path / "out"
    compress(given(permuted(run, shift=0)), out, Listener(), until="distill")
    result = stages_of(out)["teacher"].json("result.json")
    assert result["training_top1"] > 0.5
    assert result["flags"] == []


def test_a_teacher_in_another_order_of_classes_is_refused(given, run, tmp_path):
    listener = Listener()
    with pytest.raises(NetworkError) as caught:
        compress(given(permuted(run)), tmp_path / "out", listener)
    assert str(caught.value).startswith(
        f"{tmp_path}/w.safetensors: its classes seem to be in another order: top-1 "
    )
    assert "class 0 of the task (0) looks like its class 1" in str(caught.value)
    assert listener.made == []


def test_a_teacher_for_other_classes_is_refused_by_name(given, run, tmp_path):
    names = json.dumps([*"01234567", "9", "8"])
    with pytest.raises(NetworkError) as caught:
        first_missing(given(permuted(run, shift=0), {"classes": names}), tmp_path / "out", Listener())
    assert str(caught.value) == (
        f"{tmp_path}/w.safetensors: was trained for other classes, or in another order: "
        "its class 8 is '9', the task's is '8'\n"
        "  try: give weights for the task's classes, in their order"
    )


def test_the_weights_of_a_stage_name_their_classes(run, given, tmp_path):
    weights = stages_of(run)["teacher"].path("weights.safetensors")
    shutil.copy(weights, tmp_path / "w.safetensors")
    recipe = given(load_file(weights))
    shutil.copy(weights, tmp_path / "w.safetensors")
    assert first_missing(recipe, tmp_path / "out", Listener()) == "teacher"
    renamed = ONE_EPOCH.replace('name = "digits"', 'name = "python:digits_by_letter:build"').replace(
        TEACHER, 'network = "resnet14"\nweights = "w.safetensors"\n'
    )
    (tmp_path / "digits_by_letter.py").write_text(
        "from dataclasses import replace\nfrom edgekd.documents.recipe import DigitsTask\n"
        "from edgekd.tasks.digits import digits_task\n"
        "def build(seed, **_):\n"
        "    return replace(digits_task(DigitsTask(), seed=seed), classes=tuple('abcdefghij'))\n"
    )
    (tmp_path / "letters.toml").write_text(renamed)
    with pytest.raises(NetworkError, match="its class 0 is '0', the task's is 'a'"):
        first_missing(tmp_path / "letters.toml", tmp_path / "out", Listener())


def test_an_untrained_teacher_is_a_control(write, tmp_path):
    recipe, out = write((TEACHER, 'network = "resnet14"\nuntrained = true\n')), tmp_path / "out"
    compress(recipe, out, Listener(), until="distill")
    stage = stages_of(out)["teacher"]
    state = load_file(stage.path("weights.safetensors"))
    context, role, seed = context_of(recipe, out), Recipe.read(recipe).teacher, derive_seed(0, "untrained", 0)
    fresh = new_network(context, role, task_of(), seed=seed).state_dict()
    students = new_network(context, context.recipe.student, task_of()).state_dict()
    first = next(name for name in fresh if fresh[name].ndim == 4)
    assert fresh[first].shape == students[first].shape
    assert not torch.equal(fresh[first], students[first])  # a teacher of which the student is a part
    for name, value in state.items():
        assert torch.equal(value, fresh[name]) is ("running" not in name and "tracked" not in name), name
    notes = [*of_teacher(Recipe.read(recipe), {"teacher": stage})]
    assert notes == ["the teacher was left untrained: a control, not a teacher"]


def test_the_random_control_of_a_teacher_is_made_beside_it(ensemble, tmp_path):
    recipe, out = ensemble(), tmp_path / "out"
    context, task = context_of(recipe, out), task_of()
    with context.folder:
        control = make_teacher(context, task, random_role(context.recipe.teacher), name="random-teacher")
    assert [stage.file.name for stage in control.stages] == ["random-teacher"]
    logits_NK = predict_logits(
        load_teacher(context, task, control), torch.from_numpy(task.normalize(task.test.x))
    )
    assert float(logits_NK.std(dim=0).mean()) > 0.05


@pytest.fixture
def black_box(write, tmp_path):
    """A recipe whose teacher is a file of answers."""

    def recipe(*changes, **arrays):
        np.savez(tmp_path / "answers.npz", **arrays)
        return write((TEACHER, 'answers = "answers.npz"\n'), *changes)

    return recipe


def right_labels():
    """Of the rows that are no test images, and of the test images."""
    task = task_of()
    labels = np.zeros(len(task.train.y) + len(task.validation.y), dtype=np.int64)
    for split in (task.train, task.validation):
        labels[split.rows] = split.y
    return labels, task.test.y


def test_a_file_of_answers_teaches_the_whole_way(black_box, tmp_path):
    known, test = right_labels()
    wrong = np.where(np.arange(len(test)) < len(test) // 4, (test + 1) % 10, test)
    three = (
        "epochs = 1, batch_size = 64 }\n\n[quantization]",
        "epochs = 3, batch_size = 64 }\n\n[quantization]",
    )
    only = (
        "[quantization]",
        '[distillation]\nlabel_weight = 0.0\nterms = [{ kind = "kd", temperature = 1.0 }]\n\n[quantization]',
    )
    out = tmp_path / "out"
    recipe = black_box(three, only, labels=known, test_labels=wrong)
    compress(recipe, out, Listener(), until="export")
    right = (wrong == test).mean()
    assert notes_of(Recipe.read(recipe), stages_of(out))[0] == (
        "the teacher is the file of answers answers.npz, which has no row; "
        f"{100 * right:.2f} % of its answers to the test set are right"
    )
    assert [artefact.stem for artefact in artefacts_in(stages_of(out)["graphs"])] == [
        "student-fp32",
        "student-ptq-int8.onnxruntime-u8",
        "student-ptq-int8.tensorrt-s8",
        "student-qad-int8.onnxruntime-u8",
        "student-qad-int8.tensorrt-s8",
    ]
    assert stages_of(out)["student"].json("result.json")["validation_top1"] > 0.6
    epochs = stages_of(out)["student"].json("result.json")["history"]
    assert all(epoch["validation_kl"] > 0 for epoch in epochs)
    changed = np.where(np.arange(len(known)) == 5, (known + 1) % 10, known)
    assert first_missing(black_box(three, only, labels=changed), out, Listener()) == "teacher"


def test_answers_in_another_order_are_refused(black_box, tmp_path):
    known, _ = right_labels()
    with pytest.raises(NetworkError) as caught:
        compress(black_box(labels=(known + 1) % 10), tmp_path / "out", Listener())
    assert str(caught.value).startswith(
        f"{tmp_path}/answers.npz: its classes seem to be in another order: top-1 0.0 % as they stand, "
        "100.0 % after reordering; class 0 of the task (0) looks like its class 1"
    )


def test_answers_that_do_not_fit_are_refused_before_anything_is_made(black_box, tmp_path):
    with pytest.raises(DataError) as caught:
        compress(black_box(labels=np.zeros(7, dtype=int)), tmp_path / "out", Listener())
    assert str(caught.value) == (
        f"{tmp_path}/answers.npz: labels: has the shape (7,); (1258,) is wanted: one for each row"
    )
    assert not (tmp_path / "out").exists()


def test_a_term_that_reads_features_of_answers_is_refused_before_anything_is_made(black_box, tmp_path):
    term = ("[quantization]", '[[distillation.terms]]\nkind = "at"\n\n[quantization]')
    with pytest.raises(
        UsageError, match="term at: reads features of the teacher, of which only answers are known"
    ):
        compress(black_box(term, labels=right_labels()[0]), tmp_path / "out", Listener())
    assert not (tmp_path / "out").exists()


def test_without_a_term_that_reads_it_there_is_no_teacher(write, tmp_path):
    """The whole way, on a fraction of the data, both of which the report tells."""
    own = '[distillation]\nlabel_weight = 1.0\nterms = [{ kind = "pskd" }]\ndata_fraction = 0.25\n\n'
    recipe = write(("[quantization]", own + "[quantization]"), (TEACHER, 'network = "there is none"\n'))
    listener, out = Listener(), tmp_path / "out"
    report = compress(recipe, out, listener)
    assert listener.made[0] == "student"
    assert [row.name for row in report.rows] == ["student fp32", "student PTQ int8", "student QAD int8"]
    assert report.notes[:2] == (
        "no term of the objective reads a teacher: none was made, and none has a row",
        "the student learned from 25.00 % of the training set",
    )
    assert rejudge(out).notes == report.notes


def test_a_fraction_of_the_data_is_the_students_alone(write, run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(run, out)
    some = ("[quantization]", "[distillation]\ndata_fraction = 0.25\n\n[quantization]")
    recipe = write(some, text=RECIPE)
    assert first_missing(recipe, out, Listener()) == "student"
    listener = Listener()
    compress(recipe, out, listener, until="quantize")
    assert (listener.reused, listener.made) == (["teacher"], ["student", "rewrites", "ptq-max", "qad"])


def test_a_student_of_a_fraction_is_that_of_the_small_task(write, tmp_path):
    """The same weights as from a task that never had the other examples."""
    objective = "[distillation]\nlabel_weight = 1.0\nterms = []\ndata_fraction = 0.25\n\n[quantization]"
    recipe, out = write(("[quantization]", objective)), tmp_path / "out"
    compress(recipe, out, Listener(), until="distill")
    context, task = context_of(recipe, out), task_of()
    made = load_student(context, task, stages_of(out)["student"])
    network = new_network(context, context.recipe.student, task)
    small = fraction_of(task, 0.25, seed=0)
    assert len(small.train.y) == pytest.approx(len(task.train.y) / 4, abs=10)
    distillation = context.recipe.distillation.model_copy(update={"data_fraction": 1.0})
    train_network(
        network,
        small,
        context.recipe.student.training,
        distillation,
        teacher=None,
        checkpoint_dir=tmp_path / "c",
        seed=0,
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, made.state_dict()[name]), name


@pytest.fixture
def pool(tmp_path, write):
    """A recipe whose task is the digits in files, with a third of the training images as unlabeled ones."""
    task = task_of()
    x, y, rest = task.train.x[:600], task.train.y[:600], task.train.x[600:900]
    np.savez(tmp_path / "train.npz", x=x, y=y)
    np.savez(tmp_path / "test.npz", x=task.test.x[:200], y=task.test.y[:200])
    np.savez(tmp_path / "pool.npz", x=rest)

    def recipe(unlabeled='unlabeled = "pool.npz"\n', objective="", **names):
        npz = f'name = "npz"\ntrain = "train.npz"\ntest = "test.npz"\nlayout = "NCHW"\n{unlabeled}'
        return write(('name = "digits"\n', npz), ("[quantization]", objective + "\n[quantization]"), **names)

    return recipe


def test_a_pool_is_the_students_alone(pool, tmp_path):
    out = tmp_path / "out"
    compress(pool(unlabeled=""), out, Listener(), until="quantize")
    recipe = pool(objective='[distillation]\nlabel_weight = 0.0\nterms = [{ kind = "js" }]\n')
    assert first_missing(recipe, out, Listener()) == "student"
    listener = Listener()
    compress(recipe, out, listener, until="quantize")
    assert (listener.reused, listener.made) == (["teacher"], ["student", "rewrites", "ptq-max", "qad"])


def test_a_pool_with_test_images_is_refused(pool, tmp_path):
    task = task_of()
    recipe = pool()
    np.savez(tmp_path / "pool.npz", x=np.concatenate([task.train.x[600:602], task.test.x[3:5]]))
    with pytest.raises(DataError) as caught:
        compress(recipe, tmp_path / "out", Listener())
    assert str(caught.value) == (
        "npz: unlabeled: 2 of its 4 examples are also in the test set: rows 2, 3\n"
        f"  try: train is {tmp_path}/train.npz, test is {tmp_path}/test.npz, "
        f"unlabeled is {tmp_path}/pool.npz"
    )
    assert not (tmp_path / "out").exists()


def test_a_term_that_reads_labels_is_refused_before_anything_is_made(pool, tmp_path):
    objective = '[distillation]\nlabel_weight = 0.0\nterms = [{ kind = "dkd" }]\n'
    with pytest.raises(UsageError) as caught:
        compress(pool(objective=objective), tmp_path / "out", Listener())
    assert str(caught.value) == (
        "term dkd: reads the label of every example, and some of this task have none\n"
        "  try: leave the unlabeled pool or the term out"
    )
    assert not (tmp_path / "out").exists()


def test_int8_is_calibrated_on_labeled_examples_that_the_student_learned_from(pool, tmp_path, monkeypatch):
    seen = []
    calibrate = quantize_stages.calibrate

    def listening(quantized, batches, calibrator):
        seen.extend(batches)
        return calibrate(quantized, batches, calibrator)

    monkeypatch.setattr(quantize_stages, "calibrate", listening)
    objective = '[distillation]\nterms = [{ kind = "kd" }]\ndata_fraction = 0.25\n'
    recipe = pool(objective=objective)
    compress(recipe, tmp_path / "out", Listener(), until="quantize")
    context = context_of(recipe, tmp_path / "out")
    task = learn.task_of(context)
    lesson = learn.lesson_of(context, task, context.recipe.distillation)
    labeled = lesson.train.y != -1
    assert (labeled.sum(), (~labeled).sum()) == (135, 75)
    known = {x.tobytes() for x in task.normalize(lesson.train.x[labeled])}
    shown = [x.numpy().tobytes() for batch in seen for x in batch]
    assert len(shown) == 135
    assert set(shown) <= known
