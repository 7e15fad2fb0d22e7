"""Codebooks in a file: safetensors, never pickle, and the weights that come back are the same bit for bit.

    codes:NAME   uint8     the codes as a stream of bits (packing.py)
    points:NAME  float32   learned points; not there where they are uniform
    alpha:NAME   float32   width of each bucket's range
    beta:NAME    float32   its lower end
    tensor:NAME  as it is  what is not in codes

The metadata hold one entry, the index (edgekd/documents/codebook.py), with a digest of everything else: a
file in which one bit was changed is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from edgekd.documents.codebook import CodebookEntry, CodebookIndex
from edgekd.errors import DocumentError
from edgekd.files import write_bytes
from edgekd.quantization.buckets import bucket_size
from edgekd.quantization.codebook import Codebook, Codebooks, bits_of
from edgekd.quantization.packing import pack, packed_size, unpack

_INDEX = "edgekd"
_PLAIN = "tensor:"
_UNSIGNED = "0" * 64
_HINT = "copy the file again, or write it anew from the run that made it"


def write_codebooks(codebooks: Codebooks, path: Path) -> None:
    """Write codebooks atomically; the same codebooks give the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    tensors = dict(_tensors(codebooks))
    unsigned = CodebookIndex(
        books={name: _entry(book) for name, book in codebooks.books.items()},
        tied=dict(codebooks.tied),
        sha256=_UNSIGNED,
    )
    index = unsigned.model_copy(update={"sha256": _digest(unsigned, tensors)})
    write_bytes(path, safetensors.torch.save(tensors, {_INDEX: index.to_json()}))


def read_codebooks(path: Path) -> Codebooks:
    """Read codebooks, and see that they are whole.

    Raises:
        DocumentError: the file is missing, damaged or of another kind; with every problem.
    """
    data = _read(path)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # a parser that is given a damaged file may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DocumentError(path, [f"is not a safetensors file: {reason}"], hint=_HINT) from None
    index = _index(data, path)
    problems = list(_problems(index, tensors))
    if not problems and _digest(index.model_copy(update={"sha256": _UNSIGNED}), tensors) != index.sha256:
        problems = ["its content was changed: it is not what its digest says"]
    books = {} if problems else {name: _book(name, entry, tensors) for name, entry in index.books.items()}
    for name, book in books.items():
        if (book.codes_N.int() >= book.levels).any():
            problems.append(f"'{name}': a code beyond its {book.levels} points")
    if problems:
        raise DocumentError(path, problems, hint=_HINT)
    return Codebooks(
        books=books,
        tensors={
            name.removeprefix(_PLAIN): value for name, value in tensors.items() if name.startswith(_PLAIN)
        },
        tied=index.tied,
    )


def _tensors(codebooks: Codebooks) -> Iterator[tuple[str, Tensor]]:
    for name, book in codebooks.books.items():
        yield f"codes:{name}", torch.from_numpy(pack(book.codes_N.numpy(), book.bits))
        yield f"alpha:{name}", book.alpha_B.clone()
        yield f"beta:{name}", book.beta_B.clone()
        if book.points_S is not None:
            yield f"points:{name}", book.points_S.clone()
    for name, value in codebooks.tensors.items():
        # Copies: safetensors takes neither shared nor strided memory.
        yield f"{_PLAIN}{name}", value.detach().cpu().contiguous().clone()


def _entry(book: Codebook) -> CodebookEntry:
    return CodebookEntry(
        shape=book.shape, bucket=book.bucket, levels=book.levels, learned=book.points_S is not None
    )


def _book(name: str, entry: CodebookEntry, tensors: Mapping[str, Tensor]) -> Codebook:
    codes_N = unpack(tensors[f"codes:{name}"].numpy(), math.prod(entry.shape), bits_of(entry.levels))
    return Codebook(
        shape=entry.shape,
        bucket=entry.bucket,
        levels=entry.levels,
        codes_N=torch.from_numpy(codes_N),
        points_S=tensors[f"points:{name}"] if entry.learned else None,
        alpha_B=tensors[f"alpha:{name}"],
        beta_B=tensors[f"beta:{name}"],
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DocumentError(path, ["there is no such file of codebooks"]) from None
    except OSError as error:
        raise DocumentError(path, [f"cannot be read: {error.strerror}"]) from None


def _index(data: bytes, path: Path) -> CodebookIndex:
    """The index in the header, which was read once already: its length, little-endian, then JSON."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = header.get("__metadata__", {}).get(_INDEX)
    if text is None:
        raise DocumentError(path, ["holds tensors but no codebooks"], hint=_HINT)
    try:
        return CodebookIndex.parse(dict(json.loads(text)), where=path)
    except (ValueError, TypeError):
        raise DocumentError(path, ["its index is damaged"], hint=_HINT) from None
    except DocumentError as error:
        raise DocumentError(path, [f"its index: {line}" for line in error.problems], hint=_HINT) from None


def _digest(unsigned: CodebookIndex, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(unsigned.to_json().encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _problems(index: CodebookIndex, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Whatever would stop decoding, a line each."""
    wanted: set[str] = set()
    for name, entry in index.books.items():
        for part, (dtype, count) in _parts(entry).items():
            key = f"{part}:{name}"
            wanted.add(key)
            yield from _part_problems(key, tensors.get(key), dtype, count)
        if entry.bucket > max(1, math.prod(entry.shape)):
            yield f"'{name}': a bucket of {entry.bucket} in a tensor of {math.prod(entry.shape)}"
    for key in sorted(tensors):
        if key not in wanted and not key.startswith(_PLAIN):
            yield f"'{key}' is not in its index"
    for name, first in index.tied.items():
        if first not in index.books:
            yield f"'{name}' is tied to '{first}', which has no codebook"


def _parts(entry: CodebookEntry) -> dict[str, tuple[torch.dtype, int]]:
    """Each tensor of a codebook with its element type and length."""
    count = math.prod(entry.shape)
    buckets = -(-count // bucket_size(count, entry.bucket))
    parts = {
        "codes": (torch.uint8, packed_size(count, bits_of(entry.levels))),
        "alpha": (torch.float32, buckets),
        "beta": (torch.float32, buckets),
    }
    return {**parts, "points": (torch.float32, entry.levels)} if entry.learned else parts


def _part_problems(key: str, value: Tensor | None, dtype: torch.dtype, count: int) -> Iterator[str]:
    if value is None:
        yield f"'{key}' is missing"
    elif value.dtype != dtype or value.shape != (count,):
        found = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        yield f"'{key}' is {found}; wanted: {str(dtype).removeprefix('torch.')} ({count},)"
    elif not torch.isfinite(value).all():
        yield f"'{key}' holds a value that is not finite"
