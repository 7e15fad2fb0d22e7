from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.cli import audit as command
from edgekd.conversion.dialects import to_dialect
from edgekd.documents.audit import Audit, Cost, Finding, Profile, Speed
from edgekd.documents.causes import CAUSES
from edgekd.documents.common import Interval
from edgekd.pipeline import audit as pipeline
from tests.cli.conftest import Edgekd
from tests.conversion.graphs import conv_relu, residual


def written(model: onnx.ModelProto, folder: Path, name: str = "graph.onnx") -> str:
    onnx.save(model, folder / name)
    return str(folder / name)


@pytest.fixture
def signed(tmp_path: Path) -> str:
    """A graph in TensorRT's dialect."""
    return written(residual(), tmp_path)


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_text_without_cost(edgekd: Edgekd, signed: str) -> None:
    done = edgekd("audit", signed, "--no-cost")
    assert done.exit_code == 0, done.output
    found = lines(done.stdout)
    relu = "the Relu that follows is quantized to codes that do not start at zero"
    assert found[0].startswith(f"2 of 3 convolutions run in float because {relu}; 1 of 1 matrix product")
    assert "operator  type  runs as      in" in found[2]
    assert "relu-zero-point: 2 operators" in found
    assert "  try: use the dialect onnxruntime-u8: uint8 with zero point 0 after a Relu" in found
    assert "warning: add-in-float: 1 time" in found
    assert found[-1].startswith("1 of 4 weighted operators run in int8 (onnxruntime ")
    assert "where the time goes" not in done.stdout


def measured(found: Audit) -> Audit:
    """An audit with figures that were made up."""
    operators = tuple(
        one.model_copy(update={"time_us": 12.34, "share": 0.2, "float_time_us": 5.0})
        for one in found.operators
    )
    return found.model_copy(
        update={
            "operators": operators,
            "speed": Speed(
                ratio=2.05,
                interval=Interval(lower=1.98, upper=2.12, confidence=0.95),
                latency_ms=1.5,
                float_latency_ms=0.75,
                processes=3,
                samples=600,
            ),
            "profile": Profile(runs=50, kernels_us=1400.0, float_kernels_us=700.0),
            "costs": (
                Cost(bucket="float", cause_id="relu-zero-point", title="in float", count=2, share=0.6),
                Cost(bucket="int8", title="in int8", count=1, share=0.4),
            ),
            "findings": tuple(
                Finding(cause_id="cast", level="note", operators=(), message=f"cast {index}", share=0.01)
                for index in range(6)
            ),
            "not_measured": ("something",),
            "notes": ("made up",),
        }
    )


def test_text_with_cost(edgekd: Edgekd, signed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_with_cost", lambda examined, *_: measured(examined.audit))
    found = lines(edgekd("audit", signed).stdout)
    assert found[0].startswith("slower than fp32: 2 of 3 convolutions run in float because")
    assert found[1] == (
        "2.05 times the latency of the same graph in float "
        "(95 % interval 1.98 to 2.12; p50 1.50 ms and 750 µs; 600 samples in 3 processes)"
    )
    assert found[3].split() == ["operator", "type", "runs", "as", "in", "time", "share", "in", "float"]
    assert found[4].split() == [
        "/Conv_3",
        "Conv",
        "FusedConv",
        "float",
        "12.3",
        "µs",
        "20.0",
        "%",
        "5.0",
        "µs",
    ]
    assert "relu-zero-point: 2 operators, 40.0 % of the time" in found
    assert "note: cast: 6 times, 6.0 % of the time" in found
    assert "  and 2 more like these" in found
    assert "where the time goes (50 profiled runs; kernels 1.40 ms a run, in float 700 µs):" in found
    assert "60.0 %       2  in float" in found
    assert found[-3:-1] == ["not measured: something", "note: made up"]


def test_the_other_dialect_is_all_int8(edgekd: Edgekd, tmp_path: Path) -> None:
    graph = written(to_dialect(residual(), "onnxruntime-u8"), tmp_path)
    done = edgekd("audit", graph, "--no-cost", "--min-int8", "1.0")
    assert done.exit_code == 0
    assert lines(done.stdout)[0] == "3 of 3 convolutions and 1 of 1 matrix product run in int8"
    assert "relu-zero-point" not in done.stdout


def test_too_little_int8_fails(edgekd: Edgekd, signed: str) -> None:
    done = edgekd("audit", signed, "--no-cost", "--min-int8", "0.5")
    assert done.exit_code == 1
    assert done.stderr == (
        "fail: 1 of 4 weighted operators run in int8, 0.25 of them; --min-int8 asks for 0.5\n"
    )
    assert edgekd("audit", signed, "--no-cost", "--min-int8", "0.25").exit_code == 0


def test_a_graph_without_weights_has_no_share_of_int8(edgekd: Edgekd, tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[N] x) => (float[N] y) { y = Relu (x) }'
    graph = written(onnx.parser.parse_model(text), tmp_path)
    assert edgekd("audit", graph, "--no-cost", "--min-int8", "0.1").exit_code == 1
    assert edgekd("audit", graph, "--no-cost", "--min-int8", "0").exit_code == 0


def test_json_is_the_document(edgekd: Edgekd, signed: str) -> None:
    done = edgekd("audit", signed, "--no-cost", "--json")
    found = Audit.parse(json.loads(done.stdout), where="stdout")
    assert (found.int8_ops, found.weighted_ops, found.quantization) == (1, 4, "qdq")
    schema = json.loads(edgekd("schema", "audit").stdout)
    assert set(json.loads(done.stdout)) <= set(schema["properties"])


def test_sarif_is_printed(edgekd: Edgekd, signed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(Path(signed).parent))
    found = json.loads(edgekd("audit", signed, "--no-cost", "--sarif").stdout)
    (run,) = found["runs"]
    assert run["artifacts"][0]["location"]["uri"] == "graph.onnx"
    assert {result["ruleId"] for result in run["results"]} >= {"relu-zero-point", "gemm-bias"}


@pytest.mark.parametrize(
    ("options", "name", "key"),
    [
        ((), "audit.json", "operators"),
        ((), "audit.sarif", "runs"),
        (("--json",), "audit.txt", "operators"),
        (("--sarif",), "audit.json", "runs"),
    ],
)
def test_a_file_is_written_beside_the_text(
    options: tuple[str, ...], name: str, key: str, edgekd: Edgekd, signed: str, tmp_path: Path
) -> None:
    target = tmp_path / "out" / name
    done = edgekd("audit", signed, "--no-cost", "--output", str(target), *options)
    assert done.exit_code == 0
    assert key in json.loads(target.read_text())
    assert "1 of 4 weighted operators run in int8" in done.stdout
    assert [path.name for path in target.parent.iterdir()] == [name]


USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "no graph": ((), "error: there is no graph to audit\n  try: edgekd audit GRAPH.onnx\n"),
    "two forms": (
        ("g.onnx", "--json", "--sarif"),
        "error: --json and --sarif are two forms of one thing\n  try: choose one of them\n",
    ),
    "another file": (
        ("g.onnx", "--output", "a.txt"),
        "error: a.txt: is neither .json nor .sarif\n  try: add --json or --sarif\n",
    ),
    "no such graph": (("none.onnx",), "error: none.onnx: there is no such graph\n"),
}


@pytest.mark.parametrize(("words", "message"), USAGE.values(), ids=USAGE.keys())
def test_usage(words: tuple[str, ...], message: str, edgekd: Edgekd) -> None:
    done = edgekd("audit", *words)
    assert (done.exit_code, done.stderr) == (2, message)


def test_arrays_that_do_not_fit_are_the_users_fault(edgekd: Edgekd, signed: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3, 5, 5), np.float32))
    done = edgekd("audit", signed, "--inputs", str(tmp_path / "x.npy"))
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: {tmp_path / 'x.npy'}: holds float32 (2, 3, 5, 5) for 'input'; "
        "the graph takes float32 (N, 3, 12, 12)\n"
    )
    (tmp_path / "x.npy").write_bytes(b"no array")
    assert (
        "is no .npy or .npz of numbers" in edgekd("audit", signed, "--inputs", str(tmp_path / "x.npy")).stderr
    )
    assert "there is no such file of inputs" in edgekd("audit", signed, "--inputs", "none.npy").stderr


def test_tensorrt(edgekd: Edgekd, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    done = edgekd("audit", written(conv_relu(), tmp_path), "--runtime", "tensorrt")
    assert done.exit_code == 0, done.output
    found = lines(done.stdout)
    assert found[0] == "1 of 1 convolution is parsed in int8"
    assert any(
        "kernels (tactics) that the builder chooses on a GPU are not known here" in line for line in found
    )
    assert found[-1].startswith("1 of 1 weighted operators are parsed in int8 (tensorrt tensorrt-rtx ")


def test_tensorrt_that_is_not_installed(edgekd: Edgekd, signed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.runtimes.tensorrt._TOOLS", {"no_such_tensorrt": "tensorrt"})
    done = edgekd("audit", signed, "--runtime", "tensorrt")
    assert (done.exit_code, done.stderr) == (
        3,
        'error: neither tensorrt-rtx nor tensorrt is installed\n  try: pip install "edgekd[tensorrt-rtx]"\n',
    )


def test_the_causes_are_listed(edgekd: Edgekd) -> None:
    text = edgekd("audit", "--causes").stdout
    assert [line.split(" (")[0] for line in lines(text) if not line.startswith(" ")] == list(CAUSES)
    rows: list[dict[str, Any]] = json.loads(edgekd("audit", "--causes", "--json").stdout)
    assert [row["id"] for row in rows] == list(CAUSES)
    assert rows[0] == {
        "id": "graph-not-quantized",
        "level": "warning",
        "runtimes": ["onnxruntime", "tensorrt"],
        "cause": "the graph is not quantized",
        "advice": "quantize it: edgekd compress writes int8 graphs",
    }


def test_a_bundle_is_audited_by_its_graph(edgekd: Edgekd, tmp_path: Path) -> None:
    written(residual(), tmp_path, "model.onnx")
    assert "1 of 4 weighted operators" in edgekd("audit", str(tmp_path), "--no-cost").stdout


def test_the_command_is_given_its_options(
    edgekd: Edgekd, signed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(command, "examine", lambda path, request: asked.append((path, request)) or 1 / 0)
    edgekd("audit", signed, "--threads", "3", "--inputs", "x.npy", "--no-cost", "--runtime", "tensorrt")
    assert asked == [
        (
            Path(signed),
            pipeline.Request(runtime="tensorrt", cost=False, inputs=Path("x.npy"), threads=3),
        )
    ]
