"""The commands that follow a recipe: starters, exit codes, and what a user's mistake gets."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from edgekd.cli.app import app
from edgekd.documents.recipe import Recipe
from tests.tiny import RECIPE

pytestmark = pytest.mark.xdist_group("whole run")


def edgekd(*words):
    return subprocess.run(
        [sys.executable, "-m", "edgekd", *map(str, words)], capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def call():
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


@pytest.fixture
def recipe(tmp_path):
    def write(*changes):
        text = RECIPE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "my.toml").write_text(text)
        return tmp_path / "my.toml"

    return write


@pytest.mark.parametrize("starter", ["digits", "npz"])
def test_init_writes_a_recipe_that_is_valid(call, tmp_path, starter):
    path = tmp_path / "my.toml"
    done = call("init", starter, path)
    assert done.exit_code == 0
    assert done.stdout == f"{path} is written: edgekd compress {path} --out runs/my\n"
    assert Recipe.read(path).task.name == starter


def test_init_overwrites_nothing_unasked(call, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("mine")
    done = call("init", "digits", path)
    assert (done.exit_code, path.read_text()) == (2, "mine")
    assert done.stderr == f"error: {path}: is there already\n  try: choose another name, or --force\n"
    assert call("init", "digits", path, "--force").exit_code == 0
    assert path.read_text() != "mine"


def test_init_suggests_the_nearest_starter(call, tmp_path):
    done = call("init", "digit", tmp_path / "my.toml")
    assert done.exit_code == 2
    assert (
        done.stderr
        == "error: there is no starter 'digit'; did you mean 'digits'?\n  try: one of digits, sskd, npz\n"
    )


def test_every_problem_of_a_recipe_is_told_at_once(recipe, tmp_path):
    path = recipe(
        ('name = "tiny"', 'nmae = "tiny"'),
        ("size_ratio = 0.9", "size_ratio = -1"),
        ('"resnet8"', "8"),
    )
    done = edgekd("compress", path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.match(rf"error: {re.escape(str(path))}: 4 problems\n", done.stderr)
    for start in (
        "  name: is missing",
        "  nmae: unknown key",
        "  student.network: found 8",
        "  gate.size_ratio: found -1",
    ):
        assert f"\n{start}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_whole_way_from_the_command_line_is_resumed_and_judged(recipe, tmp_path, run):
    out = shutil.copytree(run, tmp_path / "a run")
    path = recipe()
    done = edgekd("compress", path, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "student QAD int8" in done.stdout
    assert done.stdout.rstrip().endswith(f"tiny: pass   ({out / 'report.md'})")
    assert done.stderr.count("done before") == 9
    failing = edgekd("compress", recipe(("size_ratio = 0.9", "size_ratio = 0.01")), "--out", out, "--json")
    assert failing.returncode == 1
    assert json.loads(failing.stdout)["verdict"] == "fail"
    doubtful = edgekd("gate", out, "--recipe", recipe(("top1_drop_pt = 10.0", "top1_drop_pt = 0.1")))
    assert doubtful.returncode == 5
    assert "539 examples" in doubtful.stdout


def test_the_stages_are_commands_too(recipe, tmp_path, run):
    out = shutil.copytree(run, tmp_path / "run")
    path = recipe()
    for command in ("distill", "quantize", "export"):
        done = edgekd(command, path, "--out", out)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert edgekd("bench", out).returncode == 0
    dry = edgekd("compress", path, "--out", out, "--dry-run")
    assert dry.stdout == "nothing would be done: every stage is finished\n"


def test_a_misspelt_profile_is_found_before_anything_is_trained(recipe, tmp_path):
    path = recipe(('profile = "nvidia-l4"', 'profile = "nvidia-l5"'))
    done = edgekd("compress", path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "nvidia-l4" in done.stderr
    assert not (tmp_path / "run").exists()


def write_npz(path, **changes):
    generator = np.random.default_rng(0)
    arrays = {"x": generator.integers(0, 255, (40, 8, 8, 1), dtype=np.uint8), "y": np.arange(40) % 2}
    np.savez(path, **{**arrays, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.arange(40) % 2 - 1}, "label -1 of example 0 is negative"),
        ({"y": np.zeros(40, dtype=int)}, "only one class occurs"),
        ({"x": np.full((40, 8, 8, 1), np.nan, dtype=np.float32)}, "NaN"),
        ({"x": np.array([{}] * 40)}, "pickled Python objects"),
    ],
)
def test_data_that_cannot_be_used(recipe, tmp_path, changes, message):
    write_npz(tmp_path / "train.npz", **changes)
    write_npz(tmp_path / "test.npz")
    path = recipe(('name = "digits"', 'name = "npz"\ntrain = "train.npz"\ntest = "test.npz"'))
    done = edgekd("distill", path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_of_another_task_name_the_first_mismatch(recipe, tmp_path):
    torch = pytest.importorskip("torch")
    from edgekd.networks.network import build_network

    network = build_network("resnet14", in_channels=1, num_classes=7, input_shape=(1, 8, 8))
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    path = recipe(('network = "resnet14"', 'network = "resnet14"\nweights = "teacher.pt"'))
    done = edgekd("distill", path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "logits.weight" in done.stderr
    assert "(7, 64)" in done.stderr
    assert "(10, 64)" in done.stderr


def test_a_network_of_the_recipes_own_folder(recipe, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build(in_channels, num_classes, input_shape, width):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(width, num_classes))\n"
    )
    path = recipe(
        ('network = "resnet8"', 'network = "python:mine:build"\nargs = { width = 16 }'),
        ("epochs = 3", "epochs = 1"),
    )
    assert edgekd("distill", path, "--out", tmp_path / "run").returncode == 0


def test_bench_of_a_foreign_graph(tmp_path):
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        " g (float[2, 3] x) => (float[2, 4] y) <float[3, 4] w = {1,2,3,4,5,6,7,8,9,1,2,3}>"
        " { y = MatMul(x, w) }"
    )
    onnx.save(graph, tmp_path / "foreign.onnx")
    done = edgekd("bench", tmp_path / "foreign.onnx", "--processes", "2", "--min-time", "0.02", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (row,) = found["rows"]
    measured = row["measurement"]
    assert measured["subjects"][0]["latency"]["batch_size"] == 2
    assert measured["subjects"][0]["accuracy"] is None


def test_bench_at_what_is_no_address(run):
    done = edgekd("bench", run / "bundles" / "local" / "onnxruntime", "--device", "pi@board")
    assert done.returncode == 2
    assert done.stderr == (
        "error: 'pi@board' is no address of a device\n"
        "  try: local, ssh://[USER@]HOST[:PORT] or adb:SERIAL, "
        "with ?python=PATH and &folder=PATH if need be\n"
    )


def test_bench_refuses_a_bundle_that_was_altered(tmp_path, run):
    bundle = shutil.copytree(run / "bundles" / "local" / "onnxruntime", tmp_path / "bundle")
    (bundle / "evaluation" / "labels.npy").write_bytes(b"")
    done = edgekd("bench", bundle)
    assert done.returncode == 2
    assert "evaluation/labels.npy is not the file that was exported" in done.stderr
