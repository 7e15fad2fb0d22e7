"""Torch-TensorRT on the host: the exported program of a network, compiled for the GPU at hand and saved.

What the kit's runtime `torch-tensorrt` loads. Torch-TensorRT makes TensorRT engines of those parts of the
program that it can convert and leaves the others to torch; here everything must be converted. It takes each
operator in the type that it has in the program, so a network that fake-quantizes is computed in floats, Q/DQ
included, unless its quantizers are those that Torch-TensorRT converts to TensorRT's own
(`torch.ops.tensorrt.quantize_op`, which comes with NVIDIA's Model Optimizer): its logits are the student's,
its time is not that of an int8 engine.

Not run by edgekd's tests, which have no GPU: they hold the calls against the signatures of torch-tensorrt
2.14.0, as published. Importing this file imports neither torch nor Torch-TensorRT.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from edgekd.errors import ConversionError, MissingError
from edgekd.files import write_bytes

FILE_NAME = "student.pt2"
_INSTALL = "pip install 'edgekd[tensorrt]', on a machine with an NVIDIA GPU"


def compile_student(network: Any, example: Any, folder: Path) -> Path:
    """Compile a network for batches of the example's size; returns the program's file in `folder`.

    Args:
        network: a torch module in evaluation mode, with one input.
        example: a batch of inputs (B, ...), a tensor of the shape and type that the program will take.
        folder: where FILE_NAME is written.

    Raises:
        MissingError: Torch-TensorRT is not installed, cannot be imported, or there is no GPU.
        ConversionError: an operator cannot be converted, or no engine can be built.
    """
    torch, torch_tensorrt = _modules()
    inputs = (example.to("cuda"),)
    try:
        with torch.no_grad():
            program = torch.export.export(network.to("cuda"), inputs)
            compiled = torch_tensorrt.dynamo.compile(
                program, arg_inputs=inputs, require_full_compilation=True, min_block_size=1
            )
    except Exception as error:  # its converters, TensorRT and torch.export have errors of their own
        raise ConversionError(f"Torch-TensorRT cannot compile the network: {error}") from error
    return _save(torch_tensorrt, compiled, inputs, folder)


def _save(torch_tensorrt: Any, compiled: Any, inputs: tuple[Any, ...], folder: Path) -> Path:
    # torch wants a file that ends in .pt2, which a temporary file beside the target would not.
    with tempfile.TemporaryDirectory(prefix="edgekd-torch-tensorrt-") as name:
        file = Path(name) / FILE_NAME
        try:
            torch_tensorrt.save(compiled, str(file), output_format="exported_program", arg_inputs=inputs)
        except Exception as error:  # as above
            raise ConversionError(f"Torch-TensorRT cannot save the program: {error}") from error
        write_bytes(folder / FILE_NAME, file.read_bytes())
    return folder / FILE_NAME


def _modules() -> tuple[Any, Any]:
    """Both modules, imported late: neither is needed by those who only measure."""
    try:
        torch, torch_tensorrt = map(importlib.import_module, ("torch", "torch_tensorrt"))
    except ImportError as error:
        raise MissingError(f"Torch-TensorRT cannot be imported: {error}", hint=_INSTALL) from error
    if not torch.cuda.is_available():
        raise MissingError(
            "Torch-TensorRT compiles for the GPU at hand, and there is none here", hint=_INSTALL
        )
    return torch, torch_tensorrt
