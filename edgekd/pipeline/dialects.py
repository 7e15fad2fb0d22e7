"""Which dialect each target of a recipe gets: by its runtime, its precision and its processor."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.conversion.fp8 import check_fp8
from edgekd.devices.isa import dialect_for
from edgekd.documents.profile import Profile
from edgekd.documents.recipe import Recipe, Target
from edgekd.documents.run_log import Facts
from edgekd.documents.scheme import Scheme
from edgekd.documents.spec import Dialect
from edgekd.pipeline.measuring import profile_of


def dialects_of(recipe: Recipe, scheme: Scheme, facts: Facts) -> Mapping[str, Dialect]:
    """Dialect of each target, by `PROFILE/RUNTIME`; `facts` are those of the machine at hand.

    Raises:
        UsageError: a target asks for FP8 and its GPU has none.
    """
    return {target.name: _dialect_of(target, profile_of(target, facts), scheme) for target in recipe.targets}


def _dialect_of(target: Target, profile: Profile, scheme: Scheme) -> Dialect:
    match target.precision:
        case "fp8":
            check_fp8(None if profile.gpu is None else profile.gpu.sm)
            return "tensorrt-fp8"
        case "fp16":
            return "onnxruntime-fp16" if target.runtime == "onnxruntime" else "tensorrt-fp16"
        case "int8":
            int8 = None if profile.cpu is None else profile.cpu.int8
            return dialect_for(target.runtime, int8, scheme)
