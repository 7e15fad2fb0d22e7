"""One valid document of every kind, as plain data, and how to damage it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgekd.documents.arms import Arms
from edgekd.documents.audit import Audit
from edgekd.documents.base import Document
from edgekd.documents.bench import Bench
from edgekd.documents.calibration import Calibration
from edgekd.documents.comparison import Comparison
from edgekd.documents.divergence import Divergence
from edgekd.documents.engine import EngineRecord
from edgekd.documents.job import Job
from edgekd.documents.manifest import Manifest
from edgekd.documents.measurement import Measurement
from edgekd.documents.prediction import Prediction
from edgekd.documents.profile import Profile
from edgekd.documents.recipe import Recipe
from edgekd.documents.report import Report
from edgekd.documents.run_log import RunLog
from edgekd.documents.scheme import Scheme
from edgekd.documents.sensitivity import Sensitivity
from edgekd.documents.spec import Spec
from edgekd.documents.verdict import Verdict
from edgekd.errors import DocumentError

SHA = "0123456789abcdef" * 4
INTERVAL = {"lower": 0.9, "upper": 1, "confidence": 0.95}
PARITY = {"count": 9, "top1_agreement": 1, "mean_difference": 0.1, "max_difference": 1, "logit_std": 3.5}
FACTS = {
    "machine": "x86_64",
    "system": "Linux 6.1",
    "cpu": "AMD EPYC",
    "isa": ["avx2", "fma", "avx512f", "avx512bw", "avx512_vnni"],
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "governor": None,
    "gpus": ["NVIDIA L4 (8.9)"],
    "hypervisor": True,
    "cgroup_cpus": 1.5,
    "versions": {"python": "3.11.7", "onnxruntime": "1.31.1"},
}
CONDITIONS = {"load1": 0.5, "steal_fraction": 0.0, "throttled": None}
CHECK = {
    "name": "size_bytes",
    "target": "local/onnxruntime",
    "value": 3,
    "limit": 4,
    "outcome": "pass",
    "reason": "fits",
}
VERSIONS = {"packages": {"numpy": "2.4.6"}, "python": "3.11.7", "edgekd_commit": None}
FIGURE = {"value": 4, "provenance": "vendor", "source": "a datasheet"}
INPUT = {"shape": [1, 8, 8], "layout": "NCHW", "raw_dtype": "uint8", "mean": [4.9], "std": [6.0]}

RECIPE: dict[str, Any] = {
    "schema": 1,
    "name": "my-digits",
    "seed": 3,
    "task": {
        "name": "npz",
        "train": "train.npz",
        "test": "test.npz",
        "augmentation": {"crop": 1, "flip": True},
    },
    "teacher": {"network": "resnet20", "args": {"width": 2, "bias": False, "rate": 0.5, "kind": "a"}},
    "student": {"training": {"schedule": "step", "milestones": [10, 20], "learning_rate": 1}},
    "distillation": {"terms": [{"kind": "kd", "temperature": 2}]},
    "quantization": {"training": {"epochs": 0}},
    "targets": [{}, {"profile": "nvidia-l4", "runtime": "tensorrt", "measure": False}],
    "gate": {"latency_p50_ratio": 0.5, "size_bytes": 90_000},
}
AUDIT: dict[str, Any] = {
    "schema": 1,
    "graph": "model.onnx",
    "graph_sha256": SHA,
    "runtime": "onnxruntime",
    "runtime_version": "1.31.1",
    "machine": "x86_64",
    "operators": [{"name": "conv1", "op_type": "Conv", "int8": True, "runs_as": "QLinearConv"}],
    "optimized_operators": {"QLinearConv": 1},
}
MEASUREMENT: dict[str, Any] = {
    "schema": 1,
    "profile": "local",
    "runtime": "onnxruntime",
    "facts": FACTS,
    "conditions": [CONDITIONS],
    "subjects": [
        {
            "name": "student QAD int8",
            "graph_sha256": SHA,
            "size_bytes": 80_000,
            "accuracy": {"top1": 0.98, "correct": 98, "count": 100, "interval": INTERVAL},
            "latency": {
                "samples": 1000,
                "processes": 5,
                "batch_size": 1,
                "threads": 1,
                "confidence": 0.95,
                "p50": {"lower_ms": 0.09, "value_ms": 0.1, "upper_ms": 0.11},
                "p90": {"lower_ms": 0.19, "value_ms": 0.2, "upper_ms": 0.22},
                "p99": None,
                "process_p50_ms": [0.1, 1],
                "load_ms": 3,
                "first_ms": 0.5,
            },
            "parity": PARITY,
            "audit": AUDIT,
        }
    ],
    "ratios": [{"name": "int8", "reference": "fp32", "value": 0.4, "interval": INTERVAL}],
    "warnings": ["the machine is virtual"],
}
ENGINE: dict[str, Any] = {
    "schema": 1,
    "graph_sha256": SHA,
    "sm": 89,
    "status": "parsed",
    "note": "parsed only",
}


def beside(to: str, mean: float, finding: str) -> dict[str, Any]:
    """An arm beside another one."""
    wide = 0.015 if finding == "cannot tell" else 0.01
    return {
        "to": to,
        "mean": mean,
        "interval": {"lower": mean - wide, "upper": mean + wide, "confidence": 0.95},
        "degrees": 4,
        "seed_error": 0.002,
        "example_error": 0.003,
        "finding": finding,
    }


def arm(
    name: str, teacher: str, top1: float, spread: float | None, seconds: float, *differences: dict[str, Any]
) -> dict[str, Any]:
    """One arm of a comparison, trained with two seeds."""
    result = {"test_top1": top1, "validation_top1": 0.9, "best_epoch": 2, "seconds": seconds}
    return {
        "name": name,
        "teacher": teacher,
        "objective": {"label_weight": 1.0, "terms": []},
        "seeds": [{"seed": 3, **result}, {"seed": 4, **result}],
        "test_top1": top1,
        "spread": spread,
        "seconds": seconds,
        "differences": list(differences),
    }


COST = {"what": "latency", "ratio": 1.05, "interval": INTERVAL, "samples": 240, "processes": 3}
SENSITIVITY: dict[str, Any] = {
    "schema": 1,
    "name": "my-digits",
    "precision": "float",
    "budget_pt": 0.3,
    "within": True,
    "scheme": {"schema": 1, "layers": {"stem.0": "float"}},
    "fp32_top1": 0.98,
    "start": {"top1": 0.9, "drop_pt": 8, "kl": 0.2, "count": 100},
    "found": {"top1": 0.98, "drop_pt": 0, "kl": 0.001, "count": 100},
    "cost": COST,
    "all_cost": {**COST, "ratio": 2},
    "examples": 100,
    "layers": [
        {"name": "stem.0", "precision": "float", "gain": 0.19, "top1": 0.98, "cost": COST},
        {"name": "block.conv1", "precision": "int8", "gain": -0.001, "top1": 0.9, "cost": COST},
    ],
    "tensors": [{"name": "input", "gain": 0.18, "layers": ["stem.0"]}],
    "groups": [{"layers": ["stem.0", "block.conv1"], "gain": 0.19, "cost": COST}],
    "steps": [{"layers": [], "drop_pt": 8}, {"layers": ["stem.0"], "drop_pt": 0}],
    "notes": ["a note"],
    "facts": FACTS,
    "versions": VERSIONS,
}


SETTING = {"graph": "a.onnx", "device": "ssh://pi", "runtime": "openvino", "threads": 1, "batch_size": 1}
COMPARED = {
    "reference": "b.onnx",
    "candidate": "a.onnx",
    "ratio": 1.05,
    "interval": INTERVAL,
    "margin": 0.02,
    "outcome": "slower",
    "processes": 8,
    "blocks": 160,
    "process_ratios": [1.04, 1.06],
    "seconds": 7.5,
}
DOCUMENTS: dict[type[Document], dict[str, Any]] = {
    Recipe: RECIPE,
    Profile: {
        "schema": 1,
        "id": "my-board",
        "description": "a board",
        "kind": "arm-board",
        "detect": {
            "machine": ["aarch64"],
            "isa": ["asimddp"],
            "board": "My Board",
            "min_memory_bytes": 1_000,
        },
        "cpu": {"name": "4x Cortex-A76", "int8": "dotprod", "cores": FIGURE},
        "gpu": {"name": "a GPU", "sm": 87},
        "operating_points": {"15W": {"power_w": FIGURE}, "25W": {"default": True}},
        "runtimes": [{"runtime": "onnxruntime"}],
    },
    Spec: {
        "schema": 1,
        "runtime": "onnxruntime",
        "dialect": "onnxruntime-u8",
        "description": "a dialect",
        "opset": 21,
        "saturation": "u8",
        "quantizers": {"activation_dtypes": ["uint8"], "activation_zero_points": [0, 128]},
        "parity": {"min_top1_agreement": 0.995, "max_mean_logit_difference": 0.05},
    },
    Manifest: {
        "schema": 1,
        "name": "my-digits",
        "profile": "local",
        "runtime": "onnxruntime",
        "dialect": "onnxruntime-u8",
        "saturation": "u8",
        "opset": 21,
        "sha256": SHA,
        "size_bytes": 80_000,
        "input": INPUT,
        "output": {"classes": ["0", "1"]},
        "evaluation": {"inputs": "evaluation/inputs.npy", "labels": "evaluation/labels.npy", "count": 10},
        "fake_quant_top1": 1,
        "parity": PARITY,
        "files": {"kit/run.py": SHA},
        "recipe_sha256": SHA,
        "versions": VERSIONS,
    },
    Job: {
        "schema": 1,
        "mode": "latency",
        "runtime": "onnxruntime",
        "graphs": [{"name": "int8", "path": "model.onnx"}],
        "session_options": {"session.intra_op.allow_spinning": "0"},
        "warmup_s": 1,
    },
    RunLog: {
        "schema": 1,
        "mode": "latency",
        "runtime": "onnxruntime",
        "facts": FACTS,
        "conditions": CONDITIONS,
        "graphs": [
            {"name": "int8", "load_ns": 5, "first_ns": 6, "latency_ns": [1, 2], "block_of_sample": [0, 0]}
        ],
    },
    Measurement: MEASUREMENT,
    Bench: {
        "schema": 1,
        "graphs": {"a.onnx": SHA},
        "measuring": {"processes": 5, "min_time_s": 0.5},
        "rows": [
            {
                "setting": SETTING,
                "measurement": {**MEASUREMENT, "device": "ssh://pi"},
                "logs": ["logs/a.json"],
            },
            {"setting": SETTING, "error": "it refuses connections", "exit_code": 3},
        ],
        "comparisons": [{"setting": SETTING, "reference": "b.onnx", "comparison": COMPARED}],
    },
    Prediction: {
        "schema": 1,
        "graph": "a.onnx",
        "graph_sha256": SHA,
        "profile": "local",
        "runtime": "onnxruntime",
        "threads": 1,
        "low_ms": 0.5,
        "mid_ms": 1,
        "high_ms": 2.5,
        "method": "roofline, generic efficiencies",
        "coverage": 1,
        "operators": [
            {
                "name": "conv",
                "kind": "conv",
                "number_type": "int8",
                "macs": 100,
                "operations": 200,
                "read_bytes": 30,
                "written_bytes": 10,
                "mid_ms": 1,
                "bound": "compute",
            }
        ],
    },
    Calibration: {
        "schema": 1,
        "key": {
            "processor": "AMD EPYC",
            "runtime": "onnxruntime",
            "runtime_version": "1.31.1",
            "threads": 1,
            "kit_sha256": SHA,
        },
        "facts": FACTS,
        "call_us": 5,
        "move_us": 0.5,
        "launches": [{"kind": "conv", "number_type": "fp32", "launch_us": 2}],
        "rates": [{"kind": "conv", "number_type": "fp32", "width": 144, "gops": 50}],
        "bandwidths": [{"held_bytes": 1000, "gb_s": 12.5}],
        "benchmarks": [{"name": "conv", "lower_ms": 1, "value_ms": 1.5, "upper_ms": 2}],
    },
    Verdict: {"schema": 1, "verdict": "pass", "checks": [CHECK]},
    Report: {
        "schema": 1,
        "name": "my-digits",
        "verdict": "pass",
        "checks": [CHECK],
        "rows": [
            {
                "name": "student QAD int8",
                "target": "local/onnxruntime",
                "top1": 0.98,
                "top1_interval": INTERVAL,
                "latency_ms": None,
                "size_bytes": 80_000,
                "int8_ops": 9,
                "weighted_ops": 9,
            }
        ],
        "measurements": [MEASUREMENT],
        "engines": [ENGINE],
        "recipe": RECIPE,
        "stages": [{"name": "teacher", "key": SHA, "seconds": 3}],
        "versions": VERSIONS,
    },
    Sensitivity: SENSITIVITY,
    Divergence: {
        "schema": 1,
        "name": "my-digits",
        "examples": 64,
        "inputs": "the run's test examples",
        "runtime": "onnxruntime 1.31.1",
        "machine": "x86_64 avx2 avx512_vnni",
        "chains": [
            {
                "candidate": "student QAD int8 onnxruntime-u8",
                "dialect": "onnxruntime-u8",
                "candidate_sha256": SHA,
                "reference": "student fp32",
                "links": [
                    {"source": "fp32", "target": "as written", "sqnr_db": 36, "parity": PARITY, "parts": True}
                ],
                "layers": [
                    {
                        "name": "stem/Conv",
                        "operation": "Conv + Relu",
                        "reference": "stem/Conv",
                        "computes": True,
                        "quantized": True,
                        "sqnr_db": 22.1,
                        "cosine": 0.99,
                        "local_sqnr_db": 22,
                        "expected_sqnr_db": None,
                        "mean_steps": 0.25,
                        "max_steps": 1,
                        "saturated": 0,
                        "parts": True,
                    }
                ],
                "findings": [
                    {
                        "link": "fp32 -> onnxruntime-u8",
                        "layer": "stem/Conv",
                        "operation": "Conv + Relu",
                        "cause": "its scale is 4 times what the data give",
                    }
                ],
                "notes": ["a note"],
                "bisection": {
                    "runtime": "tensorrt",
                    "against": "as written",
                    "runs": 7,
                    "before_db": 20,
                    "after_db": None,
                    "expected_db": None,
                    "layers": ["stem/Conv"],
                    "part": "activations",
                },
            }
        ],
    },
    Audit: AUDIT,
    EngineRecord: ENGINE,
    Scheme: {"schema": 1, "weight_bits": 4, "scales": "learned", "layers": {"head": "float"}},
    Arms: {
        "schema": 1,
        "name": "digits",
        "runtime": "onnxruntime",
        "arms": [
            {
                "name": "qad",
                "description": "fine-tuned",
                "scheme": {"schema": 1},
                "seconds": 12.5,
                "validation_top1": 0.9,
                "validation_kl": 0.01,
                "drop_pt": 0.2,
                "accuracy": {"top1": 0.9, "correct": 9, "count": 10, "interval": INTERVAL},
                "change": {"mean": -0.1, "interval": INTERVAL},
                "agreement": 1,
                "latency_ms": {
                    "p50": 0.5,
                    "p90": None,
                    "p99": None,
                    "p50_upper": 0.6,
                    "p90_upper": None,
                    "samples": 100,
                    "processes": 5,
                },
                "ratio": {"name": "qad", "reference": "fp32", "value": 0.5, "interval": INTERVAL},
                "size_bytes": 1000,
                "int8_ops": 9,
                "weighted_ops": 9,
                "on_front": True,
                "ships": True,
            }
        ],
        "why": "it is enough",
        "recipe": {"schema": 1, "name": "digits"},
        "stages": [{"name": "student", "key": SHA, "seconds": 1.5}],
        "facts": FACTS,
        "versions": {"packages": {"edgekd": "0.1.0"}, "python": "3.12"},
    },
    Comparison: {
        "schema": 1,
        "name": "my-digits",
        "finished": True,
        "arms": [
            arm("ce", "none", 0.90, 0.01, 10, beside("kd", -0.02, "below")),
            arm("kd", "trained", 0.92, 0.005, 20, beside("ce", 0.02, "above")),
            {
                **arm("sskd:a=1", "trained", 0.895, None, 40, beside("ce", -0.005, "cannot tell")),
                "head_seconds": 5,
            },
        ],
        "seeds": [3, 4],
        "epochs": 30,
        "test_examples": 539,
        "teacher_top1": 0.955,
        "flags": ["a flag"],
        "notes": ["a note"],
        "recipe": RECIPE,
        "stages": [{"name": "compare-kd-seed3", "key": SHA, "seconds": 3}],
        "versions": VERSIONS,
        "facts": FACTS,
    },
}


def changed(data: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """The data with another value at a path."""
    copied = inner = copy.deepcopy(data)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


def problems(kind: type[Document], data: dict[str, Any]) -> tuple[str, ...]:
    """The lines that a document refuses some data with."""
    with pytest.raises(DocumentError) as caught:
        kind.parse(data, where="a file")
    return caught.value.problems
