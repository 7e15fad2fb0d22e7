"""`edgekd debug` at the command line: what it prints, how it ends, and what it says of bad files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.conversion.remove_quantizers import quantized_tensors, remove_quantizers
from edgekd.documents.divergence import Divergence
from tests.cli.conftest import Edgekd
from tests.conversion.divergence.planted import WEIGHTS, halves, layer_at, quantizers, scaled, weights
from tests.conversion.divergence.small import constant, copied, small, value_of

GIVEN = small("residual", "onnxruntime-u8")
PLACE = quantizers(GIVEN.candidate)[2]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """float.onnx, int8.onnx and x.npy."""
    onnx.save(GIVEN.reference, tmp_path / "float.onnx")
    onnx.save(GIVEN.candidate, tmp_path / "int8.onnx")
    np.save(tmp_path / "x.npy", GIVEN.x)
    return tmp_path


@pytest.fixture
def debug(edgekd: Edgekd, files: Path):
    """Runs the command on a changed candidate, or other files."""

    def run(
        candidate: onnx.ModelProto | None = None,
        *more: str,
        reference: str = "float.onnx",
        inputs: str = "x.npy",
    ):
        if candidate is not None:
            onnx.save(candidate, files / "other.onnx")
        name = "int8.onnx" if candidate is None else "other.onnx"
        given = () if inputs == "" else ("--inputs", str(files / inputs))
        paths = ("--reference", str(files / reference), "--candidate", str(files / name))
        return edgekd("debug", *paths, *given, *more)

    return run


def test_a_healthy_graph_ends_with_0(debug) -> None:
    result = debug()
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["layer", "operation"]
    assert "int8.onnx: no divergence beyond quantization" in lines
    assert "  compared with float.onnx" in lines
    assert "PARTS" not in result.stdout
    assert lines[-1].startswith("48 examples (x.npy), onnxruntime ")


def test_a_planted_fault_ends_with_1_and_names_its_layer(debug) -> None:
    result = debug(scaled(4)(GIVEN.candidate, PLACE))
    layer = layer_at(GIVEN.candidate, PLACE)
    assert result.exit_code == 1
    headline = next(line for line in result.stdout.splitlines() if line.startswith("other.onnx: "))
    start = f"other.onnx: first divergence: {layer}, fp32 -> candidate: its scale is 4.5 times what the data"
    assert headline == f"{start} give (amax 4.29 on these examples, the quantizer's 39)"
    marked = [line.split()[0] for line in result.stdout.splitlines() if line.endswith("PARTS")]
    assert marked[0] == layer


def test_json_is_the_document(debug) -> None:
    result = debug(scaled(4)(GIVEN.candidate, PLACE), "--json", "--bisect", "--examples", "20")
    document = Divergence.parse(json.loads(result.stdout), where="output")
    (chain,) = document.chains
    assert (result.exit_code, document.examples) == (1, 20)
    assert chain.findings[0].layer == layer_at(GIVEN.candidate, PLACE)
    assert chain.bisection is not None
    assert chain.bisection.against == "fp32"


def test_a_search_is_told_in_a_line(debug) -> None:
    result = debug(scaled(24)(GIVEN.candidate, PLACE), "--bisect")
    (line,) = [line for line in result.stdout.splitlines() if "by removing quantizers" in line]
    assert "graphs on onnxruntime, optimized, held against the reference): the values of /Conv_8 (" in line
    healthy = debug(None, "--bisect").stdout
    assert "(1 graph on onnxruntime, optimized, held against the reference): no few layers make" in healthy


def test_examples_that_are_made_up_are_told(debug) -> None:
    result = debug(scaled(4)(GIVEN.candidate, PLACE), inputs="")
    assert result.exit_code == 0
    assert (
        "  the examples are made up, normal with unit variance: weights and operators are judged by them, "
        "scales are not; --inputs takes examples"
    ) in result.stdout.splitlines()
    lost = WEIGHTS["bias lost"](GIVEN.candidate, weights(GIVEN.candidate)[0])
    assert debug(lost, inputs="").exit_code == 1


def test_two_quantized_graphs(debug) -> None:
    """As when a graph came back from somewhere: its scales are held against those that it had."""
    result = debug(scaled(1.1)(GIVEN.candidate, PLACE), reference="int8.onnx")
    assert result.exit_code == 1
    assert "its scale is 1.1 times that of the reference (" in result.stdout
    assert "  the reference is quantized: its float form is compared with" in result.stdout
    assert debug(None, reference="int8.onnx").exit_code == 0


def partly() -> onnx.ModelProto:
    names = [one.name for one in quantized_tensors(GIVEN.candidate)]
    return remove_quantizers(GIVEN.candidate, names[2:6])


def no_scale() -> onnx.ModelProto:
    model = copied(GIVEN.candidate)
    scale = constant(model, np.float32(np.nan))
    for node in halves(model, PLACE):
        node.input[1] = scale
    return model


def free_rank() -> onnx.ModelProto:
    model = copied(GIVEN.candidate)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


SEEN = {
    "not quantized": (
        lambda: copied(GIVEN.reference),
        0,
        "it has no quantizers: it is compared as a graph in float",
    ),
    "half quantized": (
        partly,
        0,
        " of its 4 weighted operators read a quantized input and weight; not so '/Conv_",
    ),
    "free rank": (free_rank, 0, "other.onnx: no divergence beyond quantization"),
    "no scale": (no_scale, 1, "its scale nan is no positive number"),
}


@pytest.mark.parametrize("what", list(SEEN))
def test_it_says_what_it_sees(debug, what: str) -> None:
    make, code, text = SEEN[what]
    result = debug(make())
    assert (result.exit_code, result.stderr) == (code, "")
    assert text in result.stdout


def test_weights_off_center(debug) -> None:
    weight = next(one.dequantizers[0] for one in quantized_tensors(GIVEN.candidate) if one.kind == "constant")
    model = copied(GIVEN.candidate)
    node = next(one for one in model.graph.node if one.output == weight.output)
    codes = np.clip(value_of(model, node.input[0]).astype(int) + 1, -128, 127).astype(np.int8)
    node.input[0], node.input[2] = (
        constant(model, codes),
        constant(model, np.full_like(value_of(model, node.input[2]), 1)),
    )
    result = debug(model)
    assert result.exit_code == 0
    assert "  1 weight with a zero point off the middle, which TensorRT refuses: 'planted_" in result.stdout


def unknown_operator() -> onnx.ModelProto:
    model = copied(GIVEN.candidate)
    model.graph.node[4].op_type, model.graph.node[4].domain = "Own", "my.ops"
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    return model


def newer() -> onnx.ModelProto:
    model = copied(GIVEN.candidate)
    model.opset_import[0].version = 999
    return model


def two_inputs() -> onnx.ModelProto:
    model = copied(GIVEN.candidate)
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    return model


def strange() -> onnx.ModelProto:
    return small("depthwise", "onnxruntime-u8").candidate


REFUSED = {
    "unknown operator": (unknown_operator, 4, "error: other.onnx: ONNX Runtime cannot load the graph: "),
    "another opset": (newer, 2, ": asks for opset 999; "),
    "two inputs": (
        two_inputs,
        2,
        "other.onnx: has 2 inputs: 'input', 'second'; graphs of one input can be compared",
    ),
    "another network": (strange, 2, "error: the graphs are not of one network: "),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_it_says_why_it_cannot(debug, what: str) -> None:
    make, code, text = REFUSED[what]
    result = debug(make())
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


def test_damaged_and_missing_files(debug, files: Path) -> None:
    whole = (files / "int8.onnx").read_bytes()
    (files / "int8.onnx").write_bytes(whole[: len(whole) // 2])
    assert "is not an ONNX graph: it is damaged or of another kind" in debug().stderr
    onnx.save(
        copied(GIVEN.candidate),
        files / "int8.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    assert debug().exit_code == 0
    (files / "w").unlink()
    assert "is missing: there is no file 'w'" in debug().stderr
    (files / "int8.onnx").unlink()
    result = debug()
    assert result.exit_code == 2
    assert result.stderr.endswith("int8.onnx: there is no such graph\n")


BAD_INPUTS = {
    "shape": (GIVEN.x[:, :, :5], "an example of the inputs is 3x5x12; the graph takes 3x12x12"),
    "rank": (GIVEN.x[:, 0, 0], "an example of the inputs is 12; the graph takes 3x12x12"),
    "type": (np.zeros((4, 3, 12, 12), np.uint8), "the inputs are uint8; the graph takes float"),
    "nan": (np.where(GIVEN.x > 3, np.nan, GIVEN.x), "the inputs hold values that are not finite numbers"),
    "constant": (np.full((4, 3, 12, 12), 2.5, np.float32), "the inputs hold one value only, 2.5"),
    "none": (GIVEN.x[:0], "holds no examples: its shape is 0x3x12x12"),
    "number": (np.float32(3), "holds no examples: its shape is a single number"),
    "objects": (np.array([{}], dtype=object), "is no .npy of numbers"),
}


@pytest.mark.parametrize("what", list(BAD_INPUTS))
def test_examples_that_cannot_be_used(debug, files: Path, what: str) -> None:
    array, text = BAD_INPUTS[what]
    np.save(files / "bad.npy", array, allow_pickle=True)
    result = debug(None, inputs="bad.npy")
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in result.stderr


def test_examples_in_double_precision_are_taken(debug, files: Path) -> None:
    np.save(files / "double.npy", GIVEN.x.astype(np.float64))
    assert debug(None, inputs="double.npy").exit_code == 0


@pytest.mark.parametrize(
    ("sizes", "code"), [((4, 4), 0), ((4, None), 0), ((None, 1), 0), ((4, 1), 2), ((64, 64), 2)]
)
def test_graphs_of_a_fixed_batch(debug, files: Path, sizes: tuple[int | None, ...], code: int) -> None:
    for name, model, size in zip(("float", "int8"), (GIVEN.reference, GIVEN.candidate), sizes, strict=True):
        model = copied(model)
        for entry in (*model.graph.input, *model.graph.output) if size else ():
            entry.type.tensor_type.shape.dim[0].dim_value = size or 0
        onnx.save(model, files / f"{name}.onnx")
    result = debug()
    assert result.exit_code == code
    if code:
        assert "examples at a time" in result.stderr


def test_a_bundle_brings_its_examples(debug, edgekd: Edgekd, files: Path) -> None:
    bundle = files / "bundle"
    (bundle / "evaluation").mkdir(parents=True)
    onnx.save(GIVEN.candidate, bundle / "model.onnx")
    np.save(bundle / "evaluation" / "inputs.npy", GIVEN.x)
    (bundle / "manifest.json").write_text("{}")
    result = edgekd("debug", "--reference", str(files / "float.onnx"), "--candidate", str(bundle))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("48 examples (inputs.npy), ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there is nothing to compare\n  try: edgekd debug RUN, or edgekd debug --reference A.onnx "),
        (("--reference", "a.onnx"), "there is nothing to compare\n"),
        (("run", "--inputs", "x.npy"), "--inputs is for two files\n"),
        (("--reference", "a", "--candidate", "b", "--row", "QAD"), "--row is for a run folder\n"),
        (("nowhere",), "nowhere: is no run folder\n"),
        (("--reference", "a.onnx", "--candidate", "b.onnx"), "b.onnx: there is no such graph\n"),
    ],
)
def test_a_call_that_is_off(edgekd: Edgekd, tmp_path: Path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(GIVEN.reference, tmp_path / "a.onnx")
    result = edgekd("debug", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
