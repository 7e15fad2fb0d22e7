"""What codebooks weigh: in packed codes, and in the codes of Huffman.

One Huffman code serves all tensors, over the code numbers 0 .. 255, as in the paper; its table is counted as
one byte for each number in use. The ranges of the buckets and learned points are float32 in both cases.
Sources: Huffman, "A Method for the Construction of Minimum-Redundancy Codes", 1952; the code of Polino,
Pascanu, Alistarh, ICLR 2018.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from edgekd.quantization.codebook import MAX_LEVELS, Codebook, Codebooks
from edgekd.quantization.packing import packed_size

_FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class CodebookSize:
    """Bytes of a network in several forms; what is not in codes is in all of them."""

    weights: int
    """Weights in codes."""
    float_bytes: int
    """In float32, as it was."""
    packed_bytes: int
    """With packed codes, points and ranges."""
    huffman_bytes: int
    """With Huffman codes, their table, points and ranges."""
    mean_bits: float
    """Mean length of a Huffman code, in bits."""
    plain_bytes: int
    """Of what is not in codes: biases, normalization, buffers."""

    def summary(self) -> dict[str, Any]:
        """The sizes as a JSON value."""
        return asdict(self)


def size_of(codebooks: Codebooks) -> CodebookSize:
    """Weigh codebooks; the header of a file, some 400 bytes a tensor, is left out."""
    books = codebooks.books.values()
    plain = sum(tensor.numel() * tensor.element_size() for tensor in codebooks.tensors.values())
    ranges = sum(_FLOAT * (2 * len(book.alpha_B) + _points(book)) for book in books)
    packed = sum(packed_size(len(book.codes_N), book.bits) for book in books)
    frequencies = code_frequencies(codebooks)
    lengths = huffman_lengths(frequencies)
    total = sum(frequencies.values())
    bits = sum(count * lengths[code] for code, count in frequencies.items())
    return CodebookSize(
        weights=total,
        float_bytes=plain + _FLOAT * total,
        packed_bytes=plain + ranges + packed,
        huffman_bytes=plain + ranges + math.ceil(bits / 8) + len(lengths),
        mean_bits=bits / total if total else 0.0,
        plain_bytes=plain,
    )


def code_frequencies(codebooks: Codebooks) -> dict[int, int]:
    """Code number -> how many weights have it, over all tensors."""
    counts = torch.zeros(MAX_LEVELS, dtype=torch.int64)
    for book in codebooks.books.values():
        counts += _counts(book.codes_N)
    return {code: int(count) for code, count in enumerate(counts) if count}


def huffman_lengths(frequencies: Mapping[int, int]) -> dict[int, int]:
    """Symbol -> length in bits of its code in a minimum-redundancy code; 0 for a symbol that is alone.

    Args:
        frequencies: symbol -> how often it occurs, at least once.
    """
    lengths = dict.fromkeys(frequencies, 0)
    heap = [(count, symbol, [symbol]) for symbol, count in sorted(frequencies.items())]
    heapq.heapify(heap)
    while len(heap) > 1:
        (count, least, symbols), (other_count, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in symbols + others:
            lengths[symbol] += 1
        heapq.heappush(heap, (count + other_count, least, symbols + others))
    return lengths


def _points(book: Codebook) -> int:
    return 0 if book.points_S is None else len(book.points_S)


def _counts(codes_N: Tensor) -> Tensor:
    return torch.bincount(codes_N.long(), minlength=MAX_LEVELS)
