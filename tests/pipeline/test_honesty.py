"""What a cache and a verdict must never do: take another input's result, or an older recipe's."""

import shutil

import pytest

from edgekd.errors import RunFolderError, UsageError
from edgekd.pipeline.compress import compress, first_missing
from edgekd.pipeline.rejudge import rejudge
from edgekd.pipeline.run_folder import RunFolder
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")

MINE = """
from torch import nn

def build(in_channels, num_classes, input_shape):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def write(path, *changes):
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_another_recipe_has_no_verdict_until_it_was_followed(copy, tmp_path):
    changed = write(tmp_path / "changed.toml", ("min_samples = 100", "min_samples = 120"))
    compress(changed, copy, Listener(), until="distill")
    assert not (copy / "report.json").exists()
    with pytest.raises(RunFolderError, match="the stage graphs is not there yet"):
        rejudge(copy)


def test_another_recipes_folder_is_not_taken(copy, tmp_path):
    other = write(tmp_path / "other.toml", ('name = "tiny"', 'name = "other"'))
    before = (copy / "report.json").read_bytes()
    with pytest.raises(RunFolderError, match="holds the run of another recipe, 'tiny'"):
        compress(other, copy, Listener())
    assert (copy / "report.json").read_bytes() == before


def test_a_change_in_the_users_own_network_is_seen(tmp_path):
    import sys

    (tmp_path / "mine_of_this_test.py").write_text(MINE)
    recipe = write(
        tmp_path / "my.toml",
        ('network = "resnet8"', 'network = "python:mine_of_this_test:build"'),
        ("epochs = 3", "epochs = 1"),
    )
    compress(recipe, tmp_path / "run", Listener(), until="distill")
    assert first_missing(recipe, tmp_path / "run", Listener(), until="distill") is None
    (tmp_path / "mine_of_this_test.py").write_text(MINE.replace("nn.ReLU()", "nn.Sigmoid()"))
    sys.modules.pop("mine_of_this_test")
    assert first_missing(recipe, tmp_path / "run", Listener(), until="distill") == "student"


def test_what_a_killed_write_left_is_no_part_of_a_stage(tmp_path):
    def dies(folder):
        (folder / ".weights.part").write_text("half")
        raise KeyboardInterrupt

    with RunFolder(tmp_path / "run", "demo") as folder:
        with pytest.raises(KeyboardInterrupt):
            folder.make("graphs", {}, dies)
        stage = folder.make("graphs", {}, lambda path: (path / "result").touch())
    assert list(stage.file.files) == ["result"]


def test_a_mistake_is_found_before_fresh_throws_anything_away(copy, tmp_path):
    broken = write(tmp_path / "broken.toml", ('network = "resnet8"', 'network = "resnet9"'))
    with pytest.raises(Exception, match="there is no network 'resnet9'"):
        compress(broken, copy, Listener(), fresh=True)
    assert (copy / "report.json").is_file()


def test_a_dry_run_of_fresh_does_not_mind_another_recipes_run(copy, tmp_path):
    other = write(tmp_path / "other.toml", ('name = "tiny"', 'name = "other"'))
    with pytest.raises(RunFolderError, match="holds the run of another recipe, 'tiny'"):
        first_missing(other, copy, Listener())
    first_missing(other, copy, Listener(), fresh=True)
    assert (copy / "report.json").is_file()


def test_bounds_are_not_judged_at_another_confidence(run, tmp_path):
    stricter = write(tmp_path / "s.toml", ("[gate]", "[gate]\nconfidence = 0.99"))
    with pytest.raises(UsageError, match=r"bounds hold at 0\.95; the gate asks for 0\.99"):
        rejudge(run, stricter)


def test_a_runtime_that_the_device_does_not_have(tmp_path):
    recipe = write(tmp_path / "pi.toml", ('profile = "nvidia-l4"', 'profile = "raspberry-pi-5-8gb"'))
    with pytest.raises(UsageError) as caught:
        compress(recipe, tmp_path / "run", Listener())
    assert str(caught.value) == (
        "the device raspberry-pi-5-8gb has no tensorrt\n  try: runtime = 'onnxruntime'"
    )
