"""The scheme as a file for people: it reads back, and knows whether it was edited."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.documents.scheme import Scheme
from edgekd.documents.scheme_toml import is_untouched, scheme_toml
from edgekd.documents.sensitivity import Sensitivity
from tests.documents.cases import SENSITIVITY


def sensitivity(**changed: Any) -> Sensitivity:
    return Sensitivity.parse({**copy.deepcopy(SENSITIVITY), **changed}, where="a file")


def read_back(found: Sensitivity, folder: Path) -> Scheme:
    (folder / "scheme.toml").write_text(scheme_toml(found))
    return Scheme.read(folder / "scheme.toml")


def test_it_reads_back_as_the_scheme(tmp_path: Path) -> None:
    found = sensitivity()
    assert read_back(found, tmp_path) == found.scheme


NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["stem.0", 'a"b', "a\\b", "a\nb", "#", "é", "a\x7fb", "\U00010000"]
)
SCHEMES = st.fixed_dictionaries(
    {
        "weight_bits": st.sampled_from([4, 8]),
        "ends_8bit": st.booleans(),
        "scales": st.sampled_from(["followed", "learned"]),
        "layers": st.dictionaries(NAMES, st.sampled_from(["int8", "int4", "float"]), max_size=4),
        "rewrites": st.sampled_from(
            [{}, {"float_sums": False}, {"float_sums": True, "float_attention": False}]
        ),
    }
)


@settings(max_examples=60, deadline=None)
@given(data=SCHEMES, listed=st.lists(NAMES, max_size=3, unique=True))
def test_any_scheme_reads_back(data: dict[str, Any], listed: list[str], tmp_path_factory: Any) -> None:
    rows = [{**SENSITIVITY["layers"][0], "name": name} for name in listed]
    precision = "int8" if data["weight_bits"] == 4 else "float"
    found = sensitivity(scheme={"schema": 1, **data}, layers=rows, precision=precision)
    assert read_back(found, tmp_path_factory.mktemp("scheme")) == found.scheme


def test_a_name_that_json_would_escape_otherwise_reads_back(tmp_path: Path) -> None:
    found = sensitivity(scheme={"schema": 1, "layers": dict.fromkeys(("a\x7fb", "\U00010000"), "float")})
    assert read_back(found, tmp_path) == found.scheme


def test_every_layer_stands_there_with_its_figures() -> None:
    lines = scheme_toml(sensitivity()).splitlines()
    assert '"stem.0" = "float"  # +0.19000 nats, 1.050 times (0.900 to 1.000)' in lines
    assert '# "block.conv1" = "float"  # -0.00100 nats, 1.050 times (0.900 to 1.000)' in lines
    assert lines[1:13] == [
        "#",
        "# Top-1 on 100 validation examples:",
        "#   the fp32 student      98.00 %",
        "#   the scheme before     90.00 %, 8.00 points below",
        "#   this scheme           98.00 %, 0.00 points below; the budget is 0.3 points",
        "# Latency: 1.050 times (0.900 to 1.000) that of the scheme before.",
        "#",
        "# Beside each layer: by how much the divergence from the fp32 student falls when it alone is",
        "# in float, of 0.20000 nats, and what that costs. Take away a # to spare a layer.",
        "",
        "schema = 1",
        "weight_bits = 8",
    ]


def test_taking_a_hash_away_spares_a_layer(tmp_path: Path) -> None:
    text = scheme_toml(sensitivity()).replace('# "block.conv1"', '"block.conv1"')
    (tmp_path / "scheme.toml").write_text(text)
    assert Scheme.read(tmp_path / "scheme.toml").layers == {"stem.0": "float", "block.conv1": "float"}


def test_what_was_not_reached_is_said() -> None:
    text = scheme_toml(sensitivity(within=False))
    assert (
        "# No set of layers is within the budget and costs less than all of them: this is the best one.\n"
        in text
    )


def test_of_4_bits_it_speaks_of_8() -> None:
    cost = {"what": "weights", "ratio": 1.25}
    rows = [{**SENSITIVITY["layers"][1], "precision": "int4", "cost": cost}]
    scheme = {"schema": 1, "weight_bits": 4}
    text = scheme_toml(sensitivity(scheme=scheme, precision="int8", layers=rows, cost=cost))
    assert '# "block.conv1" = "int8"  # -0.00100 nats, 1.250 times\n' in text
    assert "# Weights: 1.250 times that of the scheme before.\n" in text
    assert "when it alone is\n# with 8 bits, of" in text


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 10_000), letter=st.characters(codec="ascii"))
def test_any_change_is_an_edit(place: int, letter: str) -> None:
    text = scheme_toml(sensitivity())
    assert is_untouched(text)
    place %= len(text)
    changed = text[:place] + letter + text[place + 1 :]
    assert is_untouched(changed) == (changed == text)
    assert not is_untouched(text[:place] + text[place + 1 :])


def test_a_file_of_the_users_own_is_no_file_of_ours() -> None:
    for text in ("", "schema = 1\n", "# a comment\n\n[layers]\n"):
        assert not is_untouched(text)
