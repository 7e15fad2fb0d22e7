from __future__ import annotations

from typing import get_args

import pytest

from edgekd.conversion.specs import load_spec
from edgekd.documents.recipe import RuntimeName


@pytest.mark.parametrize("runtime", get_args(RuntimeName))
def test_every_runtime_has_a_spec(runtime: RuntimeName) -> None:
    spec = load_spec(runtime)
    assert spec.runtime == runtime
    assert spec.parity.min_top1_agreement == 0.995
    assert spec.parity.max_mean_logit_difference == 0.02
    assert spec.sources


def test_what_sets_the_dialects_apart() -> None:
    unsigned, signed = load_spec("onnxruntime"), load_spec("tensorrt")
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
