"""What is measured: an ONNX file or a bundle, whoever made it, with what it is fed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekd.bundle import MANIFEST, read_bundle
from edgekd.conversion.check_graph import read_graph
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import BundleError, UsageError
from edgekd.files import sha256_bytes, sha256_file, write_bytes
from edgekd.pipeline.bench.feeds import GraphInput, check_inputs, graph_inputs, input_like, made_up


@dataclass(frozen=True)
class Candidate:
    """A graph that holds its weights itself, and what it is fed."""

    name: str
    graph: Path
    sha256: str
    """Digest of that file."""
    size_bytes: int
    """Its size."""
    wants: tuple[GraphInput, ...]
    """The graph's inputs."""
    inputs: Path | None
    """A .npy or .npz of inputs; None: they are made up."""
    labels: Path | None
    """Labels of the inputs; None where there are none."""
    profile: str
    """What the device is expected to be; `local` for anything."""
    runtime: RuntimeName
    """The runtime that it is for."""
    bundled: bool = False
    """Whether it is a bundle's, in the form that its runtime wants."""

    def fed(self, batch_size: int, folder: Path) -> tuple[Path, str | None]:
        """Inputs for batches of a size, and what to say of them; made-up ones are written into `folder`.

        Raises:
            UsageError: they cannot be made up, or are too few.
        """
        if self.inputs is not None:
            check_inputs(self.inputs, self.wants, batch_size)
            return self.inputs, None
        return made_up(self.wants, batch_size, folder, self.name)

    def batch_size(self, wanted: int | None) -> int:
        """The batch size that is measured: the one that is wanted, or the graph's own.

        Raises:
            UsageError: the graph's batch is fixed, and is another one.
        """
        sizes = {one.batch for one in self.wants}
        fixed = sizes.pop() if len(sizes) == 1 else 1
        if wanted is not None and len(self.wants) != 1:
            hint = "a .npz of --inputs holds whole feeds"
            raise UsageError("--batch is for graphs of one input", where=self.name, hint=hint)
        if wanted not in (None, fixed or wanted):
            raise UsageError(
                f"the graph's batch is {fixed}, not {wanted}",
                where=self.name,
                hint="export it with a free batch axis, or leave out --batch",
            )
        return wanted or fixed or 1


def read_candidate(path: Path, inputs: Path | None, scratch: Path) -> Candidate:
    """A bundle, or any ONNX graph; one with weights beside it is written whole into `scratch`.

    Raises:
        BundleError: the bundle or graph is incomplete, altered or unsafe.
        UsageError: its inputs cannot be fed, the file of inputs does not fit, or a path is no text.
    """
    for given in (path, inputs):
        _check_text(given)
    if path.is_dir() or path.name == MANIFEST:
        return _from_bundle(path if path.is_dir() else path.parent, inputs)
    if path.suffix == ".pt2":
        return _from_program(path, inputs)
    model = read_graph(path)
    wants = graph_inputs(model, path)
    if inputs is not None:
        check_inputs(inputs, wants, 1)
    data = path.read_bytes()
    graph = path
    if onnx.ModelProto.FromString(data) != model:  # weights lay beside it: a board is sent one file
        data = model.SerializeToString()
        graph = scratch / f"{sha256_bytes(data)[:16]}.onnx"
        write_bytes(graph, data)
    return Candidate(
        name=path.name,
        graph=graph,
        sha256=sha256_bytes(data),
        size_bytes=len(data),
        wants=wants,
        inputs=inputs,
        labels=None,
        profile="local",
        runtime="onnxruntime",
    )


def _check_text(path: Path | None) -> None:
    """A job is JSON, which holds no path of bytes that are no UTF-8."""
    shown = str(path).encode(errors="replace").decode()
    if shown != str(path):
        raise UsageError("its path is no UTF-8 text", where=shown, hint="rename it")


def _from_program(path: Path, inputs: Path | None) -> Candidate:
    """A program of Torch-TensorRT: what it takes is known by what it is fed."""
    if not path.is_file():
        raise BundleError("there is no such program", where=path)
    if inputs is None:
        raise UsageError(
            "a program does not tell what it takes", where=path, hint="--inputs X.npy, batch first"
        )
    return Candidate(
        name=path.name,
        graph=path,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        wants=(input_like(inputs),),
        inputs=inputs,
        labels=None,
        profile="local",
        runtime="torch-tensorrt",
    )


def _from_bundle(folder: Path, inputs: Path | None) -> Candidate:
    manifest = read_bundle(folder)
    # Read here first: a runtime would follow external data to wherever it lies.
    model: onnx.ModelProto = read_graph(folder / manifest.graph)
    wants = graph_inputs(model, folder)
    if inputs is not None:
        check_inputs(inputs, wants, 1)
    evaluation = manifest.evaluation
    return Candidate(
        name=manifest.name,
        graph=folder / manifest.graph,
        sha256=manifest.sha256,
        size_bytes=manifest.size_bytes,
        wants=wants,
        inputs=folder / evaluation.inputs if inputs is None else inputs,
        labels=folder / evaluation.labels if inputs is None else None,
        profile=manifest.profile,
        runtime=manifest.runtime,
        bundled=True,
    )
