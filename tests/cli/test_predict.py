"""`edgekd predict` and what it prints, and what `calibrate` keeps."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edgekd.cli import calibrate as calibrate_command
from edgekd.cli import predict as predict_command
from edgekd.documents.prediction import Prediction
from tests.measure.prediction.graphs import Writer
from tests.measure.prediction.test_calibrate import MadeUpDevice
from tests.measure.prediction.test_target import calibration


def write(path: Path, convolutions: int) -> str:
    writer, made = Writer(), "x"
    for _ in range(convolutions):
        made = writer.op("Relu", writer.conv(made, 16, 16))
    path.write_bytes(writer.model(("batch", 16, 32, 32), made).SerializeToString())
    return str(path)


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(predict_command, "read_clock_mhz", lambda: 2000.0)


def test_this_machine_without_a_calibration(edgekd, facts, clock, tmp_path):
    done = edgekd("predict", write(tmp_path / "a.onnx", 2))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert re.fullmatch(
        r"a\.onnx +local +onnxruntime, 1 thread +est\. [0-9.]+ (µs|ms) \([0-9.]+ to [0-9.]+\) +4\.7 +0 %",
        lines[1],
    )
    assert "Conv0" in lines[5]
    assert "50 %" in lines[5]
    assert "local: peaks of a profile times generic efficiencies" in lines
    assert "note: x86-64-avx512-vnni times 1 core(s) at 2.00 GHz" in lines
    assert lines[-1] == "predictions rank, they never pass a gate; edgekd bench measures"


def test_several_graphs_are_ranked_on_each_device(edgekd, tmp_path):
    graphs = [write(tmp_path / f"{count}.onnx", count) for count in (3, 1, 2)]
    chosen = ("--profile", "raspberry-pi-5-8gb", "--profile", "jetson-orin-nano-8gb@15W")
    done = edgekd("predict", *graphs, *chosen)
    rows = [line.split()[:3] for line in done.stdout.splitlines()[1:7]]
    assert rows == [
        [str(rank), f"{rank}.onnx", device]
        for device in ("raspberry-pi-5-8gb@stock", "jetson-orin-nano-8gb@15W")
        for rank in (1, 2, 3)
    ]


def test_json_is_a_list_of_predictions(edgekd, tmp_path):
    done = edgekd("predict", write(tmp_path / "a.onnx", 1), "--profile", "raspberry-pi-5-8gb", "--json")
    (data,) = json.loads(done.stdout)
    found = Prediction.parse(data, where="standard output")
    assert (found.graph, found.profile, found.operating_point) == ("a.onnx", "raspberry-pi-5-8gb", "stock")
    assert found.low_ms < found.mid_ms < found.high_ms
    assert not [key for key in data if "p50" in key or "latency" in key]


def test_more_threads_are_faster(edgekd, tmp_path):
    graph, mids = write(tmp_path / "a.onnx", 2), []
    for threads in ("1", "4"):
        chosen = ("--profile", "raspberry-pi-5-8gb", "--threads", threads, "--json")
        mids.append(json.loads(edgekd("predict", graph, *chosen).stdout)[0]["mid_ms"])
    assert mids[1] < mids[0] / 2


def test_a_calibration_of_this_machine_is_used(edgekd, facts, clock, tmp_path):
    made = calibration(facts)
    from edgekd.measure.prediction.calibration import keep, path_of

    keep(made, path_of(made.key), force=False)
    graph = write(tmp_path / "a.onnx", 2)
    done = edgekd("predict", graph)
    assert "local: calibrated on AMD EPYC, onnxruntime 1.31.1, 1 thread(s)" in done.stdout
    assert "generic" in edgekd("predict", graph, "--threads", "2").stdout


def test_a_profile_without_peaks(edgekd, own_folders, tmp_path):
    own_folders.mkdir(parents=True)
    text = 'schema = 1\nid = "bare"\ndescription = "x"\nkind = "arm-board"\nruntimes = []\n[detect]\n'
    (own_folders / "bare.toml").write_text(text)
    done = edgekd("predict", write(tmp_path / "a.onnx", 1), "--profile", "bare")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: bare: the profile gives no fp32_tflops, and there is no calibration\n"
        "  try: edgekd devices calibrate on the device, or add the figures to a profile of your own\n"
    )


def test_unknown_operators_are_told(edgekd, tmp_path):
    writer = Writer()
    made = writer.op("Mystery", writer.conv("x", 4, 4), domain="com.example")
    path = tmp_path / "odd.onnx"
    path.write_bytes(writer.model((1, 4, 8, 8), made).SerializeToString())
    done = edgekd("predict", str(path), "--profile", "raspberry-pi-5-8gb")
    told = "odd.onnx: the work of 1 Mystery is not known, not counted, and widens the interval"
    assert told in done.stdout.splitlines()


def test_a_profile_that_is_none(edgekd, tmp_path):
    done = edgekd("predict", write(tmp_path / "a.onnx", 1), "--profile", "raspberry-pi-55")
    assert done.exit_code == 2
    assert "there is no profile 'raspberry-pi-55'" in done.stderr


@pytest.fixture
def calibrate(monkeypatch):
    """Runs `calibrate ARGUMENTS` on a made-up device."""
    from contextlib import nullcontext

    monkeypatch.setattr(
        calibrate_command, "open_device", lambda address, on_event: nullcontext(MadeUpDevice())
    )
    app = typer.Typer()
    app.command()(calibrate_command.calibrate)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_calibrate_keeps_what_it_finds_and_writes_over_nothing(calibrate, own_folders):
    done = calibrate("--threads", "2")
    assert done.exit_code == 0, done.output
    (file,) = (own_folders.parent / "calibrations").iterdir()
    assert f"kept in {file}; edgekd predict uses it" in done.stdout
    assert re.search(r"^conv +int8 +36864 +\d+$", done.stdout, re.MULTILINE)
    before = file.read_bytes()
    again = calibrate("--threads", "2")
    assert str(again.exception) == f"{file}: there is a calibration already\n  try: --force measures it anew"
    assert file.read_bytes() == before


def test_calibrate_writes_where_it_is_told(calibrate, tmp_path):
    done = calibrate("--output", str(tmp_path / "mine.json"), "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "mine.json").read_text())
