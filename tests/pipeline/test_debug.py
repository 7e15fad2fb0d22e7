"""`edgekd debug RUN`: the chain of a finished run, with torch and without."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.documents.divergence import Divergence
from edgekd.documents.recipe import Recipe
from edgekd.errors import BundleError, ConversionError, NetworkError, RunFolderError, UsageError
from edgekd.pipeline.debug import of_run, student
from edgekd.pipeline.debug.of_run import Wish, debug_run
from edgekd.pipeline.debug.student import InTorch, Trained, trained_student
from edgekd.pipeline.rejudge import RESOLVED
from edgekd.pipeline.run_folder import RunFolder, read_run

pytestmark = pytest.mark.xdist_group("whole run")

U8, S8 = "onnxruntime-u8", "tensorrt-s8"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    """The comparison of a healthy run, made once."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("debug") / "run")
    return debug_run(folder), folder


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setattr(of_run, "is_installed", lambda module: False)


def graph_of(run, row, dialect):
    (path,) = run.glob(f"stages/graphs-*/{row}.{dialect}.onnx")
    return path


def plant(run, path, factor=4.0, row="student-qad-int8", dialect=U8, at=3):
    """A copy of a graph of the run in which one scale is multiplied; the layer where that is."""
    model = onnx.load(graph_of(run, row, dialect))
    quantizer = [node for node in model.graph.node if node.op_type == "QuantizeLinear"][at]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scale = values[quantizer.input[1]] * np.float32(factor)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), "planted"))
    quantizer.input[1] = "planted"
    for node in model.graph.node:
        if node.input[:1] == quantizer.output[:1]:
            node.input[1] = "planted"
    onnx.save(model, path)
    made = {name: node for node in model.graph.node for name in node.output}
    node = made[quantizer.input[0]]
    return made[node.input[0]].name if node.op_type == "Relu" else node.name


def test_a_healthy_run_has_no_divergence(found):
    divergence, _ = found
    assert not divergence.parts
    assert [chain.dialect for chain in divergence.chains] == [U8, S8]
    for chain in divergence.chains:
        assert chain.headline == f"student QAD int8 {chain.dialect}: no divergence beyond quantization"
        assert chain.reference == "the float form of student QAD int8"
        assert chain.not_compared == ()
        assert [row.reference for row in chain.layers if row.reference is None] == []
    assert divergence.examples == 64


def test_the_links_of_the_chain(found):
    chains = found[0].chains
    assert [(link.source, link.target) for link in chains[0].links] == [
        ("fp32", "fake-quantized"),
        ("fake-quantized", f"{U8} as written"),
        ("fp32", f"{U8} as written"),
        (f"{U8} as written", "onnxruntime, optimized"),
    ]
    assert [link.target for link in chains[1].links] == ["fake-quantized", *[f"{S8} as written"] * 2]
    assert chains[1].notes[-1] == (
        "compared node by node on ONNX Runtime: TensorRT was not run, for there is no GPU with it here"
    )
    by_name = {(link.source, link.target): link for link in chains[0].links}
    student_link = by_name["fake-quantized", f"{U8} as written"]
    quantization = by_name["fp32", "fake-quantized"]
    assert student_link.sqnr_db is None or student_link.sqnr_db > quantization.sqnr_db
    assert quantization.parity.count == 64


def test_the_student_is_looked_into_layer_by_layer(found):
    for chain in found[0].chains:
        looked = [row for row in chain.layers if row.student_off is not None]
        assert {row.name for row in looked} == {row.name for row in chain.layers if row.quantized}
        assert all(row.student_off < 0.01 for row in looked)
        assert all(row.trained_sqnr_db > 20 for row in looked if row.trained_sqnr_db is not None)


def test_both_files_are_in_the_run_folder(found):
    divergence, folder = found
    assert Divergence.read(folder / "debug.json") == divergence
    text = (folder / "debug.md").read_text()
    assert text.startswith("# tiny: no divergence beyond quantization\n")
    assert text.count("| layer | operation | fp32 to graph | fp32 to student | student to graph |") == 2
    assert read_run(folder)[0].name == "tiny"


def test_a_changed_recipe_forgets_them(found, tmp_path):
    folder = shutil.copytree(found[1], tmp_path / "run")
    with RunFolder(folder, "tiny", recipe_sha256="0" * 64):
        assert not (folder / "debug.json").exists()
        assert not (folder / "debug.md").exists()


@pytest.mark.parametrize(("dialect", "factor"), [(U8, 4.0), (S8, 0.25)])
def test_a_planted_scale_is_found(copy, tmp_path, dialect, factor):
    layer = plant(copy, tmp_path / "came back.onnx", factor, dialect=dialect)
    divergence = debug_run(copy, Wish(graph=tmp_path / "came back.onnx"))
    (chain,) = divergence.chains  # which graph it stands for is seen by its codes
    assert divergence.parts
    first = chain.findings[0]
    assert (first.layer, first.link) == (layer, f"fake-quantized -> {dialect}")
    assert first.cause.startswith(f"its scale is {factor:g} times that of the trained student (")
    assert chain.headline.startswith(
        f"came back.onnx as student QAD int8 {dialect}: first divergence: {layer}, "
    )
    assert [row.name for row in chain.layers if row.parts] == [layer]
    assert [link.parts for link in chain.links[:3]] == [False, True, True]


def test_another_row_by_a_part_of_its_name(copy):
    (chain,) = debug_run(copy, Wish(row="ptq", dialect=S8)).chains
    assert chain.candidate == f"student PTQ int8 {S8}"
    assert chain.findings == ()


def test_without_torch_the_kept_logits_stand_for_the_student(copy, no_torch):
    (chain,) = debug_run(copy, Wish(row="PTQ", dialect=U8)).chains
    assert chain.findings == ()
    assert chain.reference == "student fp32"
    assert [link.source for link in chain.links[:2]] == ["fp32", "fake-quantized"]
    assert chain.notes == (
        "the fake-quantized student was not run: torch is not installed (pip install 'edgekd[train]'). "
        "Its logits are those that the run has kept",
    )
    assert all(row.student_off is None for row in chain.layers)


def test_without_torch_a_planted_scale_is_found_beside_the_runs_own_graph(copy, tmp_path, no_torch):
    layer = plant(copy, tmp_path / "bad.onnx", 1.05, dialect=S8, at=5)
    first = debug_run(copy, Wish(graph=tmp_path / "bad.onnx")).chains[0].findings[0]
    assert (first.layer, first.link) == (layer, f"fp32 -> {S8}")
    assert first.cause.startswith("its scale is 1.05 times that of the trained student (")


def test_without_torch_a_student_that_was_trained_on_raises_no_alarm(copy, no_torch):
    for chain in debug_run(copy).chains:
        assert chain.findings == ()


def test_a_student_that_cannot_be_built_is_left_out_and_said_so(copy, monkeypatch):
    def fails(*arguments):
        raise NetworkError("there is no network 'own'")

    monkeypatch.setattr(student, "trained_student", fails)
    (chain,) = debug_run(copy, Wish(dialect=U8)).chains
    assert chain.notes[-1] == (
        "the fake-quantized student was not run: there is no network 'own'. "
        "Its logits are those that the run has kept"
    )
    assert chain.findings == ()


def test_quantizers_that_are_not_those_of_the_graph_are_noticed(run):
    _, stages = read_run(run)
    trained = trained_student(run, Recipe.read(run / RESOLVED), stages, "student QAD int8")
    x = np.load(stages["graphs"].path("evaluation.inputs.npy"))[:2]
    InTorch(trained, "u8", x)
    quantizer = [node for node in trained.graph.graph.node if node.op_type == "QuantizeLinear"][1]
    larger = Trained(trained.float_graph, _scaled(trained.graph, quantizer, 60), trained.quantized)
    with pytest.raises(ConversionError, match=r"the student's tensor at '.*' is not the graph's"):
        InTorch(larger, "u8", x)
    fewer = Trained(trained.float_graph, _without_one(trained.graph), trained.quantized)
    with pytest.raises(ConversionError, match=r"the student has \d+ quantizers, its graph \d+"):
        InTorch(fewer, "u8", x)


def _scaled(model, quantizer, factor):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == quantizer.input[1]:
            value = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), tensor.name))
    return copy


def _without_one(model):
    from edgekd.conversion.remove_quantizers import quantized_tensors, remove_quantizers

    name = next(one.name for one in quantized_tensors(model) if one.kind == "activation")
    return remove_quantizers(model, [name])


def test_what_the_run_does_not_have(copy):
    with pytest.raises(UsageError) as caught:
        debug_run(copy, Wish(row="teacher"))
    assert caught.value.message == "the run has no such graph"
    assert f"student QAD int8 ({U8})" in caught.value.hint
    with pytest.raises(BundleError, match="there is no such graph"):
        debug_run(copy, Wish(graph=copy / "nothing.onnx"))


def test_a_graph_that_could_stand_for_several(copy):
    fp32 = next(copy.glob("stages/graphs-*/student-fp32.onnx"))
    with pytest.raises(UsageError) as caught:
        debug_run(copy, Wish(graph=fp32))
    assert (
        caught.value.message == f"the graph could stand for student QAD int8 ({U8}), student QAD int8 ({S8})"
    )
    (chain,) = debug_run(copy, Wish(graph=fp32, row="PTQ", dialect=S8)).chains
    assert chain.findings == ()
    assert chain.notes[-1] == "it has no quantizers: it is compared as a graph in float"


def test_a_run_without_graphs_or_with_damaged_ones(copy, tmp_path):
    (inputs,) = copy.glob("stages/graphs-*/evaluation.inputs.npy")
    whole = inputs.read_bytes()
    inputs.write_bytes(whole[:-8])
    with pytest.raises(RunFolderError, match="the stage graphs is missing or was altered"):
        debug_run(copy)
    index = json.loads((copy / "run.json").read_text())
    index["stages"] = {
        name: folder for name, folder in index["stages"].items() if name in ("teacher", "student")
    }
    (copy / "run.json").write_text(json.dumps(index))
    with pytest.raises(RunFolderError, match="has no graphs yet"):
        debug_run(copy)
    with pytest.raises(RunFolderError, match="is no run folder"):
        debug_run(tmp_path)
    assert not (copy / "debug.json").exists()
