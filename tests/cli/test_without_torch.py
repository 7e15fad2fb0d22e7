"""`pip install edgekd` without extras: what runs where torch cannot be found."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("whole run")

HIDDEN = (
    "torch",
    "lightning_fabric",
    "sklearn",
    "safetensors",
    "onnxscript",
    "timm",
    "tensorrt_rtx",
    "scipy",
    "matplotlib",
)

HIDE = f"""
import importlib.machinery
_find = importlib.machinery.PathFinder.find_spec


def _find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in {HIDDEN!r} else _find(name, path, target)


importlib.machinery.PathFinder.find_spec = staticmethod(_find_spec)
"""


@pytest.fixture
def edgekd(tmp_path):
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hide")}

    def call(*words):
        command = [sys.executable, "-m", "edgekd", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return call


def test_doctor(edgekd):
    done = edgekd("doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stdout


def test_devices(edgekd):
    assert "nvidia-l4" in edgekd("devices", "list").stdout
    assert edgekd("devices", "show", "nvidia-l4").returncode == 0


def test_methods(edgekd):
    assert "sskd" in edgekd("methods", "list").stdout
    done = edgekd("methods", "show", "sskd")
    assert done.returncode == 0, done.stderr
    assert "Published objective" in done.stdout


def test_audit(edgekd, run):
    done = edgekd("audit", run / "bundles" / "local" / "onnxruntime" / "model.onnx")
    assert done.returncode == 0, done.stderr
    assert "10 of 10 weighted operators run in int8" in done.stdout


def test_debug(edgekd, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    done = edgekd("debug", copy)
    assert done.returncode == 0, done.stderr
    assert "student QAD int8 onnxruntime-u8: no divergence beyond quantization" in done.stdout
    assert "the fake-quantized student was not run: torch is not installed" in done.stdout
    assert done.stderr == f"note: {copy / 'debug.md'}\n"


def test_bench_of_a_bundle(edgekd, run):
    bundle = run / "bundles" / "local" / "onnxruntime"
    done = edgekd("bench", bundle, "--processes", "2", "--min-time", "0.05", "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["rows"][0]["measurement"]["subjects"][0]
    assert measured["accuracy"]["count"] == 539
    assert measured["latency"]["p50"]["value_ms"] > 0


def test_gate(edgekd, run):
    done = edgekd("gate", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"


@pytest.mark.parametrize("command", ["compress", "compare"])
def test_what_trains_says_what_to_install(edgekd, recipe_path, tmp_path, command):
    done = edgekd(command, recipe_path, "--out", tmp_path / "run")
    assert done.returncode == 3
    assert done.stderr == (
        "error: training and exporting needs torch, which is not installed\n"
        "  try: pip install 'edgekd[train]'\n"
    )
    assert not (tmp_path / "run").exists()
