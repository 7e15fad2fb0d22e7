"""The lines that an author reads: whole messages, one for each thing that is wrong."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from edgekd.documents.base import nearest
from edgekd.documents.manifest import Manifest
from edgekd.documents.profile import Profile
from edgekd.documents.recipe import Recipe
from edgekd.documents.terms import SECTIONS
from edgekd.errors import DocumentError
from tests.documents.cases import DOCUMENTS, changed, problems

BAD_RECIPE = """
name = "a b"
seed = "3"
sede = 4

[task]
name = "npz"
train = 3
layout = "HW"
flip = true

[teacher.training]
epochs = 3.0
optimizer = "sdg"
optimzer = "sgd"
milestones = [0, "x"]

[student]
network = 18

[student.args]
width = { is = 2 }

[[distillation.terms]]
kind = "kd"
weight = -1
temprature = 3

[[targets]]
profile = 3

[gate]
top1_min = nan
int8_share = 1.5
confidence = 1
"""

NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PYTHON = r"^python:[\w.]+:\w+$"
KEYS = "schema, name, seed, task, teacher, student, distillation, quantization, targets, measuring, gate"

LINES = """\
my.toml: 21 problems
  schema: is missing; write schema = 1
  name: found 'a b'; the pattern is ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$
  seed: found '3'; a whole number is expected
  task.train: found 3; a string is expected
  task.test: is missing
  task.layout: found 'HW'; the pattern is ^N[A-Z]{1,4}$
  task.flip: unknown key; allowed: validation_fraction, augmentation, name, train, test, layout, unlabeled, \
class_names
  teacher.training.epochs: found 3.0; a whole number is expected
  teacher.training.optimizer: found 'sdg'; allowed: 'sgd' or 'adamw'; did you mean 'sgd'?
  teacher.training.milestones[0]: found 0; at least 1 is expected
  teacher.training.milestones[1]: found 'x'; a whole number is expected
  teacher.training.optimzer: unknown key; did you mean 'optimizer'?
  student.network: found 18; a string is expected
  student.args.width: found a table; true or false, a whole number, a number or a string is expected
  distillation.terms[0].weight: found -1; at least 0 is expected
  distillation.terms[0].temprature: unknown key; did you mean 'temperature'?
  targets[0].profile: found 3; a string is expected
  gate.top1_min: found nan; a finite number is expected
  gate.int8_share: found 1.5; at most 1 is expected
  gate.confidence: found 1; less than 1 is expected
  sede: unknown key; did you mean 'seed'?
  try: edgekd schema recipe prints every key that is allowed"""


def test_one_bad_file_gives_all_its_problems_at_once() -> None:
    with pytest.raises(DocumentError) as caught:
        Recipe.parse(tomllib.loads(BAD_RECIPE), where="my.toml")
    assert str(caught.value) == LINES


@pytest.mark.parametrize(
    ("section", "lines"),
    [
        ({"task": 3}, ("task: found 3; a table is expected",)),
        (
            {"task": {"name": "digit"}},
            (
                "task.name: found 'digit'; allowed: 'digits', 'npz' or 'python:package.module:function'; "
                "did you mean 'digits'?",
            ),
        ),
        (
            {"task": {"name": 3}},
            ("task.name: found 3; allowed: 'digits', 'npz' or 'python:package.module:function'",),
        ),
        ({"task": {"name": "python:x"}}, (r"task.name: found 'python:x'; the pattern is " + PYTHON,)),
        ({"targets": []}, ("targets: found an empty array; at least 1 of them must be given",)),
        ({"targets": {}}, ("targets: found a table; an array is expected",)),
        ({"targets": [{}, {}]}, ("targets: two targets are local with onnxruntime",)),
        ({"targets": [{"measure": 1}]}, ("targets[0].measure: found 1; true or false is expected",)),
        ({"seed": 2**31}, ("seed: found 2147483648; less than 2147483648 is expected",)),
        ({"seed": None}, ("seed: found null; a whole number is expected",)),
        ({"gate": {"size_bytes": 0}}, ("gate.size_bytes: found 0; more than 0 is expected",)),
        ({"student": {"args": []}}, ("student.args: found an empty array; a table is expected",)),
        (
            {"distillation": {"label_weight": 0, "terms": []}},
            ("distillation: every weight is zero: nothing would be learned",),
        ),
        (
            {"student": {"training": {"schedule": "step"}}},
            ("student.training: a step schedule needs milestones, such as milestones = [150, 180, 210]",),
        ),
        ({"name": "x" * 99}, (f"name: found '{'x' * 56}...; the pattern is {NAME}",)),
        ({"a.b": 1}, (f'"a.b": unknown key; allowed: {KEYS}',)),
        ({"name": "\ud800"}, ("cannot be read: unexpected end of hex escape at line 1 column 30",)),
    ],
)  # fmt: skip
def test_lines(section: dict[str, Any], lines: tuple[str, ...]) -> None:
    assert problems(Recipe, {"schema": 1, "name": "a", **section}) == lines


def test_a_date_is_found_wherever_it_is() -> None:
    data = tomllib.loads("schema = 1\nname = 1979-05-27\n[student]\nnetwork = 07:32:00\n")
    assert problems(Recipe, data) == (
        "name: found the date or time 1979-05-27; write it in quotes if a string is meant",
        "student.network: found the date or time 07:32:00; write it in quotes if a string is meant",
    )


def test_problems_inside_a_table_of_sections_name_the_section() -> None:
    data = changed(DOCUMENTS[Profile], ("operating_points", "15W"), {"power_w": {"valu": 3}, "watt": 1})
    points = (
        "default, unit, description, nvpmodel, power_w, cpu_cores, cpu_mhz, sm_count, gpu_mhz, "
        "memory_gb_s, fp32_tflops, fp16_tflops, int8_tops"
    )
    assert problems(Profile, data) == (
        "operating_points.15W.power_w.value: is missing",
        "operating_points.15W.power_w.provenance: is missing",
        "operating_points.15W.power_w.source: is missing",
        "operating_points.15W.power_w.valu: unknown key; did you mean 'value'?",
        f"operating_points.15W.watt: unknown key; allowed: {points}",
    )


def test_a_rule_of_the_whole_document_has_no_key() -> None:
    data = changed(DOCUMENTS[Profile], ("operating_points", "15W", "default"), True)
    assert problems(Profile, data) == ("exactly one operating point has default = true",)


def test_a_key_that_is_itself_wrong_is_quoted() -> None:
    data = changed(DOCUMENTS[Manifest], ("files",), {"../x": "y"})
    name = "[A-Za-z0-9_-][A-Za-z0-9._-]*"
    assert problems(Manifest, data) == (
        f"files.\"../x\" (the key itself): found '../x'; the pattern is ^{name}(/{name})*$",
        "files.\"../x\": found 'y'; the pattern is ^[0-9a-f]{64}$",
    )


def test_nearest() -> None:
    assert nearest("optimzer", ("optimizer", "momentum")) == "; did you mean 'optimizer'?"
    assert nearest("wings", ("optimizer", "momentum")) == ""


def test_an_unknown_term_is_told_the_nearest_and_all() -> None:
    data = {"schema": 1, "name": "x", "distillation": {"terms": [{"kind": "kdd"}]}}
    with pytest.raises(DocumentError) as caught:
        Recipe.parse(data, where="my.toml")
    known = ", ".join(repr(section.tag) for section in SECTIONS if section.tag != "python")
    allowed = f"{known} or 'python:package.module:function'"
    line = f"distillation.terms[0].kind: found 'kdd'; allowed: {allowed}; did you mean 'kd'?"
    assert line in str(caught.value)
