from __future__ import annotations

from typing import get_args

import pytest

from edgekd.conversion.specs import load_spec, spec_of
from edgekd.documents.runtime import TargetRuntime
from edgekd.documents.spec import FloatDialect, Int8Dialect


@pytest.mark.parametrize("runtime", get_args(TargetRuntime))
def test_every_runtime_has_a_spec(runtime: TargetRuntime) -> None:
    spec = load_spec(runtime)
    assert spec.runtime == runtime
    assert spec.parity.min_top1_agreement == 0.995
    assert spec.parity.max_mean_logit_difference == 0.02
    assert spec.sources


@pytest.mark.parametrize("dialect", [*get_args(Int8Dialect), *get_args(FloatDialect)])
def test_every_dialect_has_a_spec(dialect: Int8Dialect | FloatDialect) -> None:
    assert spec_of(dialect).dialect == dialect


def test_the_dialect_for_avx2_differs_in_its_weights_alone() -> None:
    plain, exact = spec_of("onnxruntime-u8"), spec_of("onnxruntime-u8u8")
    assert exact.quantizers is not None
    assert plain.quantizers is not None
    assert exact.quantizers.weight_dtypes == ("int8", "uint8")
    assert (plain.quantizers.saturating_weights, exact.quantizers.saturating_weights) == (True, False)
    rules = {"weight_dtypes": ("int8",), "saturating_weights": True}
    assert exact.quantizers.model_copy(update=rules) == plain.quantizers
    texts = {"dialect": plain.dialect, "description": plain.description, "sources": plain.sources}
    assert exact.model_copy(update={"quantizers": plain.quantizers, **texts}) == plain


def test_what_sets_the_dialects_apart() -> None:
    unsigned, signed = load_spec("onnxruntime"), load_spec("tensorrt")
    assert unsigned.quantizers is not None
    assert signed.quantizers is not None
    assert (unsigned.dialect, signed.dialect) == ("onnxruntime-u8", "tensorrt-s8")
    assert (unsigned.saturation, signed.saturation) == ("u8", "s8")
    assert unsigned.opset == signed.opset == 21
    assert unsigned.quantizers.activation_zero_points == (0, 128)
    assert unsigned.quantizers.int32_bias_ops == ("Gemm",)
    assert (signed.quantizers.activation_dtypes, signed.quantizers.activation_zero_points) == (
        ("int8",),
        (0,),
    )
    assert signed.quantizers.int32_bias_ops == ()
