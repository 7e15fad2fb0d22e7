"""What each target of a recipe gets: its dialect, its bundle, its checks, and how its processor rounds."""

import json
import shutil

import onnx
import pytest

from edgekd.bundle import read_bundle
from edgekd.devices.local import LocalDevice
from edgekd.documents.recipe import Target
from edgekd.documents.report import Report
from edgekd.documents.saturation import Saturation
from edgekd.errors import UsageError
from edgekd.pipeline.compress import compress
from edgekd.pipeline.saturation import may_saturate
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")

START, END = RECIPE.index("[[targets]]"), RECIPE.index("[measuring]")
FP16 = '[[targets]]\nprofile = "local"\nprecision = "fp16"\n\n'
AVX2 = '[[targets]]\nprofile = "x86-64-avx2"\nmeasure = false\n\n'
FP8 = '[[targets]]\nprofile = "{}"\nruntime = "tensorrt"\nprecision = "fp8"\nmeasure = false\n\n'


@pytest.fixture
def compressed(run, tmp_path):
    """A copy of the finished run, gone on with for other targets."""

    def go(targets, scheme=""):
        path, copy = tmp_path / "changed.toml", shutil.copytree(run, tmp_path / "copy")
        path.write_text(RECIPE[:START].replace("[quantization]\n", f"[quantization]\n{scheme}") + targets)
        path.write_text(path.read_text() + RECIPE[END:])
        listener = Listener()
        return compress(path, copy, listener), copy, listener

    return go


def stage_file(run, stage, name):
    return next(run.glob(f"stages/{stage}-*/{name}"))


def test_every_precision_in_one_run(compressed):
    report, run, listener = compressed(FP16 + AVX2 + FP8.format("nvidia-l4"))
    assert listener.made == [
        *("graphs", "prove", "saturation-x86-64-avx2", "engine-nvidia-l4", "measure-local-onnxruntime")
    ]
    assert report.verdict == "pass"

    checks = {(check.target, check.name): check for check in report.checks}
    of_fp16 = {name for target, name in checks if target == "local/onnxruntime"}
    parities = {
        f"{start}parity_{end}" for start in ("", "fp32_") for end in ("top1_agreement", "mean_difference")
    }
    assert of_fp16 == {*parities, "top1_drop_pt", "size_ratio"}

    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["teacher fp32", "student fp32", "student fp16"]
    assert rows["student fp16"].size_bytes < 0.6 * rows["student fp32"].size_bytes
    assert abs(rows["student fp16"].top1 - rows["student fp32"].top1) < 0.01

    kinds = {
        folder.relative_to(run / "bundles").as_posix(): read_bundle(folder).dialect
        for folder in (run / "bundles").glob("*/*")
        if not folder.name.startswith(".")
    }
    assert kinds == {
        "local/onnxruntime": "onnxruntime-fp16",
        "x86-64-avx2/onnxruntime": "onnxruntime-u8u8",
        "nvidia-l4/tensorrt": "tensorrt-fp8",
    }
    half = onnx.load(run / "bundles/local/onnxruntime/model.onnx")
    assert {one.data_type for one in half.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    eighth = onnx.load(run / "bundles/nvidia-l4/tensorrt/model.onnx")
    assert onnx.TensorProto.FLOAT8E4M3FN in {one.data_type for one in eighth.graph.initializer}
    assert [one.status for one in report.engines] == ["built"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target(profile="x86-64-avx2"), True),
        (Target(profile="x86-64-avx2", precision="fp16"), False),
        (Target(profile="x86-64-avx512-vnni"), False),
        (Target(profile="raspberry-pi-4-8gb"), False),
        (Target(profile="nvidia-l4", runtime="tensorrt"), False),
    ],
)
def test_which_processors_are_emulated(target, expected):
    assert may_saturate(target, LocalDevice().facts("onnxruntime")) is expected


def test_saturation_is_emulated_and_reported(compressed):
    report, run, _ = compressed(AVX2)
    found = Saturation.read(stage_file(run, "saturation-x86-64-avx2", "saturation.json"))
    assert (found.share, found.parity.top1_agreement, found.not_emulated) == (0, 1, ())
    labels = json.loads(stage_file(run, "graphs", "task.json").read_text())["classes"]
    assert len(labels) == 10
    assert found.parity.count == 539
    assert found.top1 == found.exact_top1
    assert found.top1 > 0.5
    assert report.notes[-1] == (
        "x86-64-avx2/onnxruntime: emulated, on AVX2 without VNNI no product saturates: "
        f"0.00% of 539 answers change (top-1 {found.top1:.2%}, exact {found.top1:.2%})"
    )
    assert Report.read(run / "report.json").notes == report.notes


def test_reduced_ranges_keep_int8_weights_exact_there(compressed):
    report, run, listener = compressed(AVX2, scheme="scheme = { reduce_range = true }\n")
    assert {"ptq-max", "qad", "saturation-x86-64-avx2"} <= set(listener.made)
    assert read_bundle(run / "bundles/x86-64-avx2/onnxruntime").dialect == "onnxruntime-u8"
    found = Saturation.read(stage_file(run, "saturation-x86-64-avx2", "saturation.json"))
    assert len(found.operators) == 10
    assert found.share == 0
    assert sum(one.pairs for one in found.operators) > 0
    assert report.notes[-1].startswith("x86-64-avx2/onnxruntime: emulated, on AVX2 without VNNI no product")


def test_fp8_is_refused_for_a_gpu_without_it_before_anything_is_made(tmp_path):
    path = tmp_path / "fp8.toml"
    path.write_text(RECIPE[:START] + FP8.format("jetson-orin-nano-8gb") + RECIPE[END:])
    with pytest.raises(UsageError) as caught:
        compress(path, tmp_path / "out", Listener())
    assert str(caught.value) == (
        "FP8 needs a GPU of SM 89 or later; this one is SM 87\n"
        '  try: precision = "int8" or "fp16" for this device'
    )
    assert not (tmp_path / "out").exists()
