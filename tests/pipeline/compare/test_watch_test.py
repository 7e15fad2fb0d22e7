"""A course that notes the top-1 on the test split after every epoch, for benchmarks beside the literature."""

import numpy as np
import pytest

from edgekd.documents.recipe import Recipe
from edgekd.pipeline.compare.arms import read_arms
from edgekd.pipeline.compare.train import Course
from edgekd.pipeline.context import Context
from edgekd.pipeline.run_folder import RunFolder
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")

UNTAUGHT = RECIPE.replace(
    'network = "resnet14"\ntraining = { epochs = 3, batch_size = 64 }',
    'network = "resnet8"\nuntrained = true',
).replace("epochs = 3", "epochs = 2")


@pytest.fixture
def context(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(UNTAUGHT)
    recipe = Recipe.read(path)
    with RunFolder(tmp_path / "run", recipe.name) as folder:
        yield Context(recipe, tmp_path, folder, Listener())


def go(context, **options):
    (ce,) = [arm for arm in read_arms("ce", context.recipe) if arm.name == "ce"]
    course = Course(context, (ce,), (0,), **options)
    course.go()
    return course.trained[0].trainings[0]


def test_every_epoch_notes_it_and_the_training_is_the_same(context):
    watched, plain = go(context, watch_test=True), go(context)
    history, unwatched = (one.student.json("result.json")["history"] for one in (watched, plain))
    best = watched.student.json("result.json")["best_epoch"]
    correct = np.load(watched.answers.path("correct.npy"))
    assert history[best - 1]["watched_top1"] == correct.mean()
    assert None not in [record["watched_top1"] for record in history]
    assert [record["watched_top1"] for record in unwatched] == [None, None]
    assert watched.student.file.key != plain.student.file.key
    assert (
        watched.student.file.files["weights.safetensors"] == plain.student.file.files["weights.safetensors"]
    )
