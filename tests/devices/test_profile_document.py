"""The form of a profile: what it refuses, with words; written as TOML it is read as the same profile."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.devices.probe_toml import profile_text
from edgekd.documents.profile import Profile
from edgekd.errors import DocumentError
from edgekd.shipped import shipped

SHIPPED = {path.stem: Profile.read(path) for path in sorted(shipped("profiles").glob("*.toml"))}

TEXT = """
schema = 1
id = "mine"
description = "mine"
kind = "jetson"
runtimes = []
[detect]
board_any = ["one", "two"]
[operating_points.a]
{lines}
"""


def problems(tmp_path: Path, *lines: str) -> tuple[str, ...]:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.format(lines="\n".join(lines)))
    with pytest.raises(DocumentError) as caught:
        Profile.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("\n  try: edgekd schema profile prints every key that is allowed")
    return caught.value.problems


@pytest.mark.parametrize("key", ["sparse_tops", "int8_tops_sparse", "Sparse_INT8"])
def test_a_sparse_figure_is_refused_with_the_reason(tmp_path: Path, key: str) -> None:
    figure = '{ value = 67, provenance = "vendor", source = "datasheet" }'
    assert problems(tmp_path, "default = true", f"{key} = {figure}") == (
        f"operating_points.a.{key}: peaks are dense, and a 2:4-sparse figure has no key: networks reach "
        "it only after pruning; write the dense one, half of it, as int8_tops or fp16_tflops",
    )


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    lines = problems(
        tmp_path,
        "default = true",
        'sparse_tops = { value = 67, provenance = "vendor", source = "datasheet" }',
        'int8_tops = { value = "40", provenance = "vendor", source = "datasheet" }',
        'cpu_mhz = { value = 1500, provenance = "hearsay", source = "a friend" }',
        "gpu_mhz = { value = 1500 }",
        "sparsity = true",
    )
    assert len(lines) == 6
    assert lines[
        0
    ] == "operating_points.a.cpu_mhz.provenance: found 'hearsay'; allowed: 'vendor', 'secondary', " + (
        "'derived', 'measured' or 'unverified'"
    )
    assert lines[1:3] == (
        "operating_points.a.gpu_mhz.provenance: is missing",
        "operating_points.a.gpu_mhz.source: is missing",
    )
    assert lines[3] == "operating_points.a.int8_tops.value: found '40'; a number is expected"
    assert "operating_points.a.sparse_tops: peaks are dense" in lines[4]
    assert lines[5].startswith("operating_points.a.sparsity: unknown key")


def test_a_key_that_is_merely_unknown_is_told_as_before(tmp_path: Path) -> None:
    assert problems(tmp_path, "default = true", "int8_top = 3") == (
        "operating_points.a.int8_top: unknown key; did you mean 'int8_tops'?",
    )


def test_an_npu_names_runtimes_of_edgekd(tmp_path: Path) -> None:
    assert problems(
        tmp_path, "default = true", "[npu]", 'name = "N"', 'runtimes = ["onnxruntime-qnn", "tflite"]'
    ) == (
        "npu.runtimes[1]: found 'tflite'; the pattern is "
        "^(onnxruntime(-[a-z0-9]+)?|tensorrt|tensorrt-rtx|torch-tensorrt|openvino|reference|null)$",
    )


def test_the_boards_are_those_of_both_keys() -> None:
    data = tomllib.loads(TEXT.format(lines="default = true"))
    assert Profile.parse(data, where="x").detect.boards() == ("one", "two")
    data["detect"]["board"] = "zero"
    assert Profile.parse(data, where="x").detect.boards() == ("zero", "one", "two")
    assert SHIPPED["nvidia-l4"].detect.boards() == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_profile_written_as_toml_is_the_same_when_it_is_read(name: str) -> None:
    text = profile_text(SHIPPED[name])
    assert Profile.parse(tomllib.loads(text), where=name) == SHIPPED[name]
    assert text.startswith(f'schema = 1\nid = "{name}"\n')


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=60)
@given(
    words,
    words,
    st.lists(words, max_size=3),
    st.dictionaries(st.text(min_size=1, max_size=6), words, max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_words_and_numbers_survive(
    description: str, board: str, notes: list[str], points: dict[str, str], value: float
) -> None:
    figure = {"value": value, "provenance": "measured", "source": description}
    data = {
        "schema": 1,
        "id": "mine",
        "description": description,
        "kind": "other",
        "notes": notes,
        "detect": {"board": board},
        "memory_bytes": figure,
        "operating_points": {
            name: {"default": index == 0, "description": text, "cpu_mhz": figure}
            for index, (name, text) in enumerate(points.items())
        },
        "runtimes": [],
    }
    profile = Profile.parse(data, where="made")
    assert Profile.parse(tomllib.loads(profile_text(profile)), where="read") == profile
