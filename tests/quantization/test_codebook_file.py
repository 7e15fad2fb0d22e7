"""Codebooks on disk: the same bits come back, and nothing else is taken for them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekd.errors import DocumentError
from edgekd.quantization.codebook import Codebook, Codebooks, encode
from edgekd.quantization.codebook_file import read_codebooks, write_codebooks
from edgekd.quantization.packing import packed_size
from tests.quantization.codebook_cases import codebooks, same_bits

HINT = "\n  try: copy the file again, or write it anew from the run that made it"


def example() -> Codebooks:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(6, 5, 3, generator=generator)
    points_S = torch.tensor([0.0, 0.3, 0.5, 1.0, 1.1])
    return Codebooks(
        {
            "conv.weight": encode(w, levels=16, bucket=32, name="conv.weight"),
            "head.weight": encode(w[0], levels=5, bucket=None, points_S=points_S, name="head.weight"),
        },
        {
            "conv.bias": torch.randn(6, generator=generator),
            "bn.num_batches_tracked": torch.tensor(7),
            "mask": torch.tensor([True, False]),
            "half": torch.ones(2, 2, dtype=torch.float16).T,
        },
        {"other.weight": "conv.weight"},
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(codebooks(), min_size=1, max_size=3))
def test_every_bit_comes_back(books: list[Codebook]) -> None:
    written = Codebooks({f"w{place}": book for place, book in enumerate(books)}, {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.safetensors"
        write_codebooks(written, path)
        read = read_codebooks(path)
    assert read.books.keys() == written.books.keys()
    for name, book in written.books.items():
        other = read.books[name]
        assert (other.shape, other.bucket, other.levels) == (book.shape, book.bucket, book.levels)
        assert torch.equal(other.codes_N, book.codes_N)
        assert (other.points_S is None) == (book.points_S is None)
        assert same_bits(other.decode(), book.decode())


def test_the_whole_state_comes_back(tmp_path: Path) -> None:
    written = example()
    write_codebooks(written, tmp_path / "a.safetensors")
    read = read_codebooks(tmp_path / "a.safetensors")
    assert read.tied == {"other.weight": "conv.weight"}
    before, after = written.state(), read.state()
    assert after.keys() == before.keys() == {*written.books, *written.tensors, "other.weight"}
    for name, value in before.items():
        assert (after[name].dtype, after[name].shape) == (value.dtype, value.shape)
        assert torch.equal(after[name], value)
    assert torch.equal(after["other.weight"], after["conv.weight"])


def test_the_same_codebooks_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_codebooks(example(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_codes_take_their_bits_and_no_more(tmp_path: Path) -> None:
    w = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0))
    for bits in range(1, 9):
        book = encode(w, levels=2**bits, bucket=None, name="w")
        write_codebooks(Codebooks({"w": book}, {}), tmp_path / "file")
        assert packed_size(10_000, bits) == 1250 * bits
        assert (tmp_path / "file").stat().st_size < 1250 * bits + 700


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_changed_file_is_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.safetensors"
        write_codebooks(example(), path)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            read = read_codebooks(path)
        except DocumentError:
            return
        # Only white space of the header can change without changing what is read.
        assert all(torch.equal(value, read.state()[name]) for name, value in example().state().items())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5000))
def test_a_cut_file_is_refused(size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.safetensors"
        write_codebooks(example(), path)
        content = path.read_bytes()
        path.write_bytes(content[: size % len(content)])
        with pytest.raises(DocumentError, match="is not a safetensors file"):
            read_codebooks(path)


def edited(
    path: Path, *, tensors: Callable[[dict[str, Tensor]], object] = len, index: Callable[[Any], object] = len
) -> DocumentError:
    """What is said of a file that somebody changed with care, digest aside."""
    write_codebooks(example(), path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    entry, values = json.loads(header["__metadata__"]["edgekd"]), safetensors.torch.load(content)
    tensors(values)
    index(entry)
    path.write_bytes(safetensors.torch.save(values, {"edgekd": json.dumps(entry)}))
    with pytest.raises(DocumentError) as caught:
        read_codebooks(path)
    return caught.value


def test_another_value_under_the_same_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    error = edited(path, tensors=lambda values: values["tensor:conv.bias"].neg_())
    assert str(error) == f"{path}: 1 problem\n  its content was changed: it is not what its digest says{HINT}"


def test_every_problem_at_once(tmp_path: Path) -> None:
    def change(values: dict[str, Tensor]) -> None:
        del values["beta:conv.weight"]
        values["codes:conv.weight"] = values["codes:conv.weight"][1:].clone()
        values["alpha:head.weight"] = values["alpha:head.weight"].double()
        values["points:head.weight"][2] = torch.nan
        values["stowaway"] = torch.zeros(1)

    def change_index(entry: dict[str, Any]) -> None:
        entry["books"]["head.weight"]["bucket"] = 99
        entry["tied"]["third"] = "nowhere"

    assert edited(tmp_path / "file", tensors=change, index=change_index).problems == (
        "'codes:conv.weight' is uint8 (44,); wanted: uint8 (45,)",
        "'beta:conv.weight' is missing",
        "'alpha:head.weight' is float64 (1,); wanted: float32 (1,)",
        "'points:head.weight' holds a value that is not finite",
        "'head.weight': a bucket of 99 in a tensor of 15",
        "'stowaway' is not in its index",
        "'third' is tied to 'nowhere', which has no codebook",
    )


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("levels", 1, "levels: found 1; at least 2 is expected"),
        ("bucket", 0, "bucket: found 0; at least 1 is expected"),
        ("color", "red", "color: unknown key; allowed: shape, bucket, levels, learned"),
    ],
)
def test_an_index_that_is_off(key: str, value: object, problem: str, tmp_path: Path) -> None:
    error = edited(tmp_path / "file", index=lambda entry: entry["books"]["conv.weight"].update({key: value}))
    assert error.problems == (f'its index: books."conv.weight".{problem}',)


def test_a_size_that_no_memory_has_is_never_asked_for(tmp_path: Path) -> None:
    error = edited(
        tmp_path / "file", index=lambda entry: entry["books"]["conv.weight"].update(shape=[10**12, 10**6])
    )
    assert error.problems[0].startswith(
        "'codes:conv.weight' is uint8 (45,); wanted: uint8 (500000000000000000,)"
    )


def test_a_code_beyond_the_points(tmp_path: Path) -> None:
    """The digest fits: whoever wrote the file meant it."""
    book = example().books["head.weight"]
    book.codes_N[3] = 5
    write_codebooks(Codebooks({"head.weight": book}, {}), tmp_path / "file")
    with pytest.raises(DocumentError) as caught:
        read_codebooks(tmp_path / "file")
    assert caught.value.problems == ("'head.weight': a code beyond its 5 points",)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.torch.save({"w": torch.zeros(1)}))
    with pytest.raises(DocumentError) as caught:
        read_codebooks(path)
    assert caught.value.problems == ("holds tensors but no codebooks",)
    path.write_bytes(safetensors.torch.save({"w": torch.zeros(1)}, {"edgekd": "[3"}))
    with pytest.raises(DocumentError) as caught:
        read_codebooks(path)
    assert caught.value.problems == ("its index is damaged",)
    with pytest.raises(DocumentError) as caught:
        read_codebooks(tmp_path / "nothing")
    assert caught.value.problems == ("there is no such file of codebooks",)
    with pytest.raises(DocumentError) as caught:
        read_codebooks(tmp_path)
    assert caught.value.problems == ("cannot be read: Is a directory",)
