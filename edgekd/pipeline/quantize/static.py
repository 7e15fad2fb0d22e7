"""onnxruntime's own way: quantize_static on the student's fp32 graph, with the same calibration examples.

QDQ, uint8 activations and int8 weights per channel (U8S8), after the runtime's own pre-processing: what a
user of the runtime gets without edgekd.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Examples(CalibrationDataReader):  # type: ignore[misc]
    """Calibration examples, one at a time."""

    def __init__(self, name: str, x_NC: NDArray[np.float32]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = iter([{name: x[None]} for x in x_NC])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next example as a batch of one; None at the end."""
        return next(self._batches, None)


def quantize_statically(fp32: Path, input_name: str, x_NC: NDArray[np.float32], out: Path) -> None:
    """Write the graph that quantize_static makes of an fp32 graph.

    Args:
        fp32: the graph.
        input_name: name of its input.
        x_NC: normalized calibration examples.
        out: file to write.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it logs advice on pre-processing, which is done here
    try:
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(str(fp32), str(prepared))
            quantize_static(
                str(prepared),
                str(out),
                Examples(input_name, x_NC),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        root.setLevel(level)
