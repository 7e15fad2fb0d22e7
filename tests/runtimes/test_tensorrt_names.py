"""Every name of TensorRT that edgekd uses, held against the published bindings of TensorRT 10 and 11.

The tables in tensorrt_names/ were recorded from the wheels by record.py there. A name that not all of them
have must be asked for with getattr or hasattr, or be in RTX_ONLY.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edgekd.runtimes import tensorrt_worker
from edgekd.shipped import shipped

TABLES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "tensorrt_names").glob("*.json"))
}
KIT = shipped("export", "kit", "runtimes")
SOURCES = (*sorted(KIT.glob("tensorrt_*.py")), Path(tensorrt_worker.__file__))
MODULES = {"trt", "tensorrt", "tensorrt_rtx", "_trt"}
RECEIVERS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "layer": "ILayer",
    "logger": "Logger",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "cache": "ITimingCache",
    "error": "ParserError",
}
"""Names of our variables and attributes, a leading underscore left out, to what they hold."""
RESULTS = {"get_error": "ParserError", "get_input": "ITensor", "get_output": "ITensor"}
"""Methods whose result is asked for something at once."""
RTX_ONLY = {
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
"""What only TensorRT for RTX has; our code asks for ComputeCapability before it uses any of these."""


def used(tree: ast.AST) -> Iterator[tuple[str, str, bool]]:
    """(owner, name, whether it is asked for first) of every name of TensorRT's; the module's owner is ''."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = owner_of(node.value)
            if owner is not None and not (node.attr.startswith("__") and node.attr != "__version__"):
                yield owner, node.attr, False
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            owner, name = owner_of(node.args[0]), node.args[1]
            if (
                node.func.id in ("getattr", "hasattr")
                and owner is not None
                and isinstance(name, ast.Constant)
            ):
                yield owner, str(name.value), True


def owner_of(value: ast.expr) -> str | None:
    """The class that an expression is an instance of, or is itself; '' for the module, None for all else."""
    match value:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name) if name in MODULES:
            return ""
        case ast.Attribute(value=inner, attr=name) if owner_of(inner) == "":
            return name
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name):
            return RECEIVERS.get(name.lstrip("_"))
        case ast.Call(func=ast.Attribute(attr=name)):
            return RESULTS.get(name)
    return None


def has(table: dict, owner: str, name: str) -> bool:
    if owner == "":
        return name in table["names"]
    return name in table["classes"].get(owner, ()) or name in table["enums"].get(owner, ())


def missing(source: str) -> list[str]:
    """Names that are used as if every TensorRT had them, and that some have not."""
    found = sorted(set(used(ast.parse(source))))
    asked = {(owner, name) for owner, name, first in found if first}
    return [
        f"{owner}.{name} is not in {version}".lstrip(".")
        for owner, name, _ in found
        if (owner, name) not in asked | RTX_ONLY
        for version, table in TABLES.items()
        if not has(table, owner, name)
    ]


def test_both_majors_are_recorded() -> None:
    assert {version.split(".")[0] for version in TABLES} == {"10", "11"}
    for version, table in TABLES.items():
        assert table["wheel"].startswith(f"tensorrt_cu12_bindings-{version}-")
        assert len(table["sha256"]) == 64


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_name_is_in_both_majors_or_asked_for(source: Path) -> None:
    assert missing(source.read_text()) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_what_is_asked_for_is_somewhere(source: Path) -> None:
    """A name that no TensorRT has would never be found, and its branch never taken."""
    asked = {(owner, name) for owner, name, first in used(ast.parse(source.read_text())) if first}
    nowhere = {one for one in asked if not any(has(table, *one) for table in TABLES.values())}
    assert nowhere <= RTX_ONLY


def test_the_names_are_those_that_we_think_we_use() -> None:
    """The walk sees the adapters' calls: without these, it would find nothing missing in anything."""
    engine, session = (KIT / name for name in ("tensorrt_engine.py", "tensorrt_session.py"))
    found = {(owner, name) for owner, name, _ in used(ast.parse(engine.read_text() + session.read_text()))}
    assert found >= {
        ("", "OnnxParser"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("HardwareCompatibilityLevel", "AMPERE_PLUS"),
        ("IBuilderConfig", "set_timing_cache"),
        ("IBuilderConfig", "hardware_compatibility_level"),
        ("ITimingCache", "serialize"),
        ("ParserError", "desc"),
        ("Runtime", "engine_host_code_allowed"),
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "get_tensor_name"),
    }
    assert len(found) > 40


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("trt.Bilder(logger)", "Bilder is not in"),
        ("self._trt.Builder.biuld", "Builder.biuld is not in"),
        ("config.set_timings(cache)", "IBuilderConfig.set_timings is not in"),
        ("self._context.execute_async_v2(stream)", "IExecutionContext.execute_async_v2 is not in"),
        ("parser.get_error(0).text()", "ParserError.text is not in"),
        (
            "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
            "NetworkDefinitionCreationFlag.EXPLICIT_BATCH is",
        ),
    ],
)
def test_a_wrong_name_is_found(source: str, problem: str) -> None:
    assert missing(source)[0].startswith(problem)


def test_a_name_that_11_dropped_is_found() -> None:
    assert missing("config.set_flag(trt.BuilderFlag.INT8)") == [
        "BuilderFlag.INT8 is not in 11.0.0.114",
        "BuilderFlag.INT8 is not in 11.4.0.106",
    ]


def test_the_majors_agree_on_what_our_calls_take() -> None:
    calls = {one[:2] for source in SOURCES for one in used(ast.parse(source.read_text()))}
    for owner, name in sorted(calls):
        texts = [table["classes"].get(owner, {}).get(name, "") for table in TABLES.values()]
        # One pybind11 writes `int` and `buffer` for what another writes `SupportsInt` and `Buffer`.
        found = {text.replace("SupportsInt", "int").lower() for text in texts if text}
        assert len(found) <= 1, (owner, name)


def test_the_names_of_tensorrt_for_rtx() -> None:
    trt: ModuleType = pytest.importorskip("tensorrt_rtx")
    for source in SOURCES:
        for owner, name, first in used(ast.parse(source.read_text())):
            holder = getattr(trt, owner) if owner else trt
            assert first or hasattr(holder, name), (source.name, owner, name)
