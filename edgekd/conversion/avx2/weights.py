"""Whether the int8 weights of a graph as it is written could saturate on AVX2 without VNNI."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekd.conversion.avx2.convolution import filters_can_saturate
from edgekd.conversion.avx2.products import can_saturate
from edgekd.conversion.graph_view import GraphView, attribute

Array = npt.NDArray[Any]


def weight_can_saturate(view: GraphView, name: str, codes: npt.NDArray[np.int8]) -> bool:
    """Whether some activations make an operator saturate that reads the tensor `name` with these codes.

    A weight is the second operand; a first operand in int8 is multiplied exactly.
    """
    readers = view.consumers.get(name, [])
    return any(name in reader.input[1:2] and _saturates(reader, codes) for reader in readers) or any(
        weight_can_saturate(view, reader.output[0], codes.transpose(_order(reader, codes.ndim)))
        for reader in readers
        if reader.op_type == "Transpose"
    )


def _saturates(reader: onnx.NodeProto, codes: Array) -> bool:
    match reader.op_type:
        case "Conv" if codes.ndim > 2:
            return filters_can_saturate(codes, attribute(reader, "group", 1))
        case "Gemm" if codes.ndim == 2:
            return can_saturate(codes.T if attribute(reader, "transB", 0) else codes)
        case "MatMul" if codes.ndim > 1:
            return any(can_saturate(matrix) for matrix in codes.reshape(-1, *codes.shape[-2:]))
        case _:
            return False


def _order(transpose: onnx.NodeProto, rank: int) -> list[int]:
    given = [list(entry.ints) for entry in transpose.attribute if entry.name == "perm"]
    return given[0] if given else list(range(rank))[::-1]
