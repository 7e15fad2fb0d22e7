import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekd.bundle import read_bundle
from edgekd.documents.report import Report
from edgekd.errors import BundleError, RunFolderError
from edgekd.pipeline.compress import compress, first_missing
from edgekd.pipeline.rejudge import rejudge
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")

STAGES = [
    "teacher",
    "student",
    "rewrites",
    "ptq-max",
    "qad",
    "graphs",
    "prove",
    "engine-nvidia-l4",
    "measure-local-onnxruntime",
]
ROWS = ["teacher fp32", "student fp32", "student PTQ int8", "student QAD int8"]


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture
def recipe_with(tmp_path):
    def write(old, new):
        assert old in RECIPE
        path = tmp_path / "changed.toml"
        path.write_text(RECIPE.replace(old, new))
        return path

    return write


def report_of(run):
    return json.loads((run / "report.json").read_text())


def test_the_report_has_what_scripts_rely_on(run):
    report = report_of(run)
    assert report["verdict"] == "pass"
    assert [row["name"] for row in report["rows"]] == ROWS
    for row in report["rows"]:
        assert 0.5 < row["top1"] <= 1
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p90"]
        assert row["size_bytes"] > 1000
    int8 = report["rows"][3]
    assert int8["int8_ops"] == int8["weighted_ops"] == 10
    assert report["rows"][1]["int8_ops"] == 0
    names = {check["name"] for check in report["checks"]}
    assert names >= {"parity_top1_agreement", "top1_drop_pt", "engine"}
    assert [stage["name"] for stage in report["stages"]] == STAGES
    Report.parse(report, where="report.json")


def test_the_report_says_what_was_not_done(run):
    assert report_of(run)["not_done"] == [
        "nvidia-l4/tensorrt: accuracy and latency were not measured: the recipe says measure = false",
        "nvidia-l4/tensorrt: parity was proven on ONNX Runtime, not on TensorRT",
    ]


def test_the_markdown_tells_the_same(run):
    text = (run / "report.md").read_text()
    assert text.startswith("# tiny: pass\n")
    for row in ROWS:
        assert f"| {row} |" in text


@pytest.mark.parametrize("place", ["local/onnxruntime", "nvidia-l4/tensorrt"])
def test_a_stranger_can_run_a_bundle_from_its_manifest_alone(run, place):
    folder = run / "bundles" / place
    manifest = json.loads((folder / "manifest.json").read_text())
    images = np.random.default_rng(0).integers(0, 17, (5, *manifest["input"]["shape"])).astype(np.float32)
    mean = np.array(manifest["input"]["mean"]).reshape(-1, 1, 1)
    std = np.array(manifest["input"]["std"]).reshape(-1, 1, 1)
    x = ((images - mean) / std).astype(manifest["input"]["dtype"])
    session = onnxruntime.InferenceSession(folder / manifest["graph"], providers=["CPUExecutionProvider"])
    (logits,) = session.run([manifest["output"]["name"]], {manifest["input"]["name"]: x})
    assert logits.shape == (5, len(manifest["output"]["classes"]))


def test_the_evaluation_that_travels_reproduces_the_top1_of_the_manifest(run):
    folder = run / "bundles" / "local" / "onnxruntime"
    manifest = read_bundle(folder)
    x, y = (np.load(folder / name) for name in (manifest.evaluation.inputs, manifest.evaluation.labels))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {manifest.input.name: x})[0]
    assert (logits.argmax(axis=1) == y).mean() == pytest.approx(manifest.fake_quant_top1, abs=2 / len(y))


def test_each_dialect_has_its_own_zero_points(run):
    zero_points = {}
    for place in ("local/onnxruntime", "nvidia-l4/tensorrt"):
        graph = onnx.load(run / "bundles" / place / "model.onnx").graph
        names = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
        values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name in names}
        zero_points[place] = {(str(value.dtype), int(value)) for value in values.values()}
    assert zero_points["nvidia-l4/tensorrt"] == {("int8", 0)}
    assert zero_points["local/onnxruntime"] == {("uint8", 0), ("uint8", 128)}


def test_again_nothing_is_done(copy, recipe_path):
    before = report_of(copy)
    listener = Listener()
    compress(recipe_path, copy, listener)
    assert (listener.made, listener.reused) == ([], STAGES)
    assert report_of(copy) == before


def test_a_changed_gate_redoes_no_work(copy, recipe_with):
    listener = Listener()
    report = compress(recipe_with("size_ratio = 0.9", "size_ratio = 0.01"), copy, listener)
    assert listener.made == []
    assert report.verdict == "fail"
    assert [check.name for check in report.checks if check.outcome == "fail"] == ["size_ratio"]


def test_a_changed_recipe_redoes_what_follows_from_the_change(copy, recipe_with):
    recipe = recipe_with("calibration_examples = 256", "calibration_examples = 200")
    assert first_missing(recipe, copy, Listener()) == "ptq-max"
    listener = Listener()
    compress(recipe, copy, listener, until="quantize")
    assert (listener.reused, listener.made) == (["teacher", "student", "rewrites"], ["ptq-max", "qad"])


def test_a_dry_run_writes_nothing(recipe_path, tmp_path):
    assert first_missing(recipe_path, tmp_path / "new", Listener()) == "teacher"
    assert not (tmp_path / "new").exists()


def test_a_damaged_stage_is_made_again(copy, recipe_path):
    (weights,) = copy.glob("stages/ptq-*/weights.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    listener = Listener()
    compress(recipe_path, copy, listener)
    assert listener.made == ["ptq-max"]  # the same bytes again, so that nothing else follows
    assert weights.read_bytes() == whole


def test_a_damaged_stage_is_not_judged(copy):
    (predictions,) = copy.glob("stages/measure-*/student-qad-int8*.npy")
    predictions.write_bytes(b"")
    with pytest.raises(RunFolderError, match="the stage measure-local-onnxruntime is missing or was altered"):
        rejudge(copy)


def test_judging_again_gives_the_same_verdict(run):
    assert [check.model_dump() for check in rejudge(run).checks] == [
        check.model_dump() for check in Report.read(run / "report.json").checks
    ]


def test_the_fp32_and_the_int8_graph_differ_and_the_proof_says_by_how_much(run):
    subjects = report_of(run)["measurements"][0]["subjects"]
    assert len({subject["graph_sha256"] for subject in subjects[:3]}) == 3
    for subject in subjects:
        assert subject["parity"]["top1_agreement"] >= 0.995


def test_another_machine_makes_the_verdict_inconclusive(copy, recipe_with):
    recipe = recipe_with('profile = "local"', 'profile = "raspberry-pi-5-8gb"')
    report = compress(recipe, copy, Listener())
    assert report.verdict == "inconclusive"
    (device,) = [check for check in report.checks if check.name == "device"]
    assert "aarch64" in device.reason
    assert (copy / "bundles" / "raspberry-pi-5-8gb" / "onnxruntime" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda folder: (folder / "model.onnx").write_bytes(b"x"),
            "model.onnx is not the file that was exported",
        ),
        (lambda folder: (folder / "kit" / "run.py").unlink(), "kit/run.py is missing"),
        (lambda folder: (folder / "kit" / "more.py").write_text(""), "kit/more.py is not in the manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "is no bundle"),
    ],
)
def test_a_bundle_that_was_altered_is_named(copy, harm, message):
    folder = copy / "bundles" / "local" / "onnxruntime"
    harm(folder)
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)
