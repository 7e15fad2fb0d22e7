"""Names of runtimes: what runs a graph on a device.

A target of a recipe is one of two, for each of which edgekd writes a dialect. What can be measured is more:
every execution provider of ONNX Runtime by its own name, and runtimes that read one of the two dialects.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

TargetRuntime = Literal["onnxruntime", "tensorrt"]
"""A runtime that a recipe may ask for."""

RUNTIME_PATTERN = r"^(onnxruntime(-[a-z0-9]+)?|tensorrt|tensorrt-rtx|torch-tensorrt|openvino|reference|null)$"
RuntimeName: TypeAlias = Annotated[str, Field(pattern=RUNTIME_PATTERN)]
"""A runtime that the kit has. `onnxruntime` is the CPU provider; `onnxruntime-cuda` and the like name the
execution provider; `reference` is onnx's evaluator, `null` computes nothing."""
