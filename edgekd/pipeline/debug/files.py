"""What `edgekd debug` reads: graphs that anybody may have made, and examples for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.bundle import MANIFEST
from edgekd.conversion.any_graph import read_any_graph
from edgekd.conversion.divergence.probe import input_of, input_shape
from edgekd.conversion.divergence.question import Subject
from edgekd.errors import BundleError, DataError, UsageError
from edgekd.files import sha256_file

_MAX_ELEMENTS = 2**26
"""Of examples that are made up: a stranger's graph chooses their shape."""
_BUNDLED = Path("evaluation", "inputs.npy")


def graph_file(path: Path) -> Path:
    """The graph of a bundle, or the file itself."""
    return path / "model.onnx" if path.is_dir() else path


def read_subject(path: Path, name: str | None = None) -> Subject:
    """A graph to be compared, called by its file's name if it is given no other.

    Raises:
        BundleError: the file is missing or no valid ONNX graph, its external data is missing or outside of
            its folder, or it is too large or too new to be run here.
    """
    file = graph_file(path)
    found = read_any_graph(file)
    if not found.whole:
        raise BundleError("is larger than 2 GiB with its external data, too large to be run here", where=file)
    opset = next((entry.version for entry in found.model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset > onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        raise BundleError(f"asks for opset {opset}; {newest} is the newest that is known here", where=file)
    return Subject(name or file.name, found.model, sha256_file(file))


def bundled_inputs(path: Path) -> Path | None:
    """The examples that travel in a bundle, if it is one."""
    return path / _BUNDLED if (path / MANIFEST).is_file() and (path / _BUNDLED).is_file() else None


def read_examples(path: Path, count: int) -> NDArray[Any]:
    """Up to `count` examples of a .npy, evenly spread over it.

    Raises:
        DataError: the file is missing or no .npy of numbers, or it holds no examples.
    """
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except (OSError, ValueError, EOFError):
        raise DataError("is no .npy of numbers", where=path) from None
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiub":
        raise DataError("is no .npy of numbers", where=path)
    if x.ndim < 2 or len(x) == 0:
        shape = "x".join(map(str, x.shape)) or "a single number"
        raise DataError(
            f"holds no examples: its shape is {shape}", where=path, hint="the first axis is examples"
        )
    return np.ascontiguousarray(x[spread(len(x), count)])


def spread(total: int, count: int) -> NDArray[np.int64]:
    """Up to `count` positions, evenly spread over `total`."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).astype(np.int64))


def made_up_examples(model: onnx.ModelProto, count: int, where: str) -> NDArray[np.float32]:
    """Examples of unit variance in the shape that a graph takes.

    Raises:
        UsageError: the shape is open or too large, or the input is no float.
    """
    entry = input_of(model, where)
    shape, hint = input_shape(entry), "give examples with --inputs"
    if shape is None or len(shape) < 2 or any(not size for size in shape[1:]):
        raise UsageError("the shape of its input is open", where=where, hint=hint)
    if entry.type.tensor_type.elem_type not in (1, 10, 11, 16):
        raise UsageError("its input is not of a float type", where=where, hint=hint)
    sizes = [size for size in shape[1:] if size is not None]
    count = max(count, shape[0] or 0)
    if count * np.prod(sizes, dtype=np.float64) > _MAX_ELEMENTS:
        raise UsageError("its input is too large to make examples up", where=where, hint=hint)
    return np.random.default_rng(0).standard_normal((count, *sizes), dtype=np.float32)
