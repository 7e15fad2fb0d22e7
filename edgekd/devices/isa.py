"""What a processor's int8 instruction means for a student: which dialect it gets, and whether int8 pays.

An x86-64 processor without VNNI adds pairs of U8S8 products in 16 bits that saturate (conversion/avx2).
There either the weights are so small that no pair leaves 16 bits (`reduce_range` of the scheme), or those
that are not become uint8. Both give the trained student's own answers. Small int8 weights are the faster
way: uint8 weights run on kernels that take about as long as those of fp32 (benchmarks/README.md has the
figures).

Without a dot product (NEON of ARMv8.0: Cortex-A53, A72) bytes are widened before they are multiplied, so
that a core does at most twice as many int8 as fp32 operations in a cycle; SDOT and VNNI do four times as
many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from edgekd.documents.profile import Int8Instruction, Profile
from edgekd.documents.runtime import TargetRuntime
from edgekd.documents.scheme import Scheme
from edgekd.documents.spec import DEFAULT_DIALECT, Int8Dialect

INT8_MEANING: dict[Int8Instruction, str] = {
    "amx": "AMX: int8 pays, most of all in matrix products",
    "vnni": "VNNI: int8 pays",
    "avx2": "AVX2 without VNNI: int8 gains less, and U8S8 products may saturate",
    "i8mm": "i8mm: int8 pays",
    "dotprod": "asimddp (SDOT): int8 pays",
    "neon": "NEON without a dot product: int8 may not pay",
    "none": "no known dot product: int8 may not pay",
}
"""An instruction for int8 products, in a few words."""

_AVX2_ADVICE = (
    "With reduce_range = true in its scheme a student is exact there and int8 pays; without it edgekd "
    "delivers uint8 weights, exact too, which may be no faster than fp32: edgekd bench compares them"
)

_INT8_FEATURES: tuple[tuple[Int8Instruction, frozenset[str]], ...] = (
    ("amx", frozenset({"amx_int8"})),
    ("vnni", frozenset({"avx512_vnni", "avx_vnni"})),
    ("avx2", frozenset({"avx2"})),
    ("i8mm", frozenset({"i8mm"})),
    ("dotprod", frozenset({"asimddp"})),
    ("neon", frozenset({"asimd"})),
)
"""Best first. Names of features as in Linux's /proc/cpuinfo."""


def int8_instruction(isa: Iterable[str]) -> Int8Instruction:
    """The best instruction for int8 products among some instruction-set features."""
    features = frozenset(isa)
    return next((name for name, any_of in _INT8_FEATURES if any_of & features), "none")


def saturates(instruction: Int8Instruction | None) -> bool:
    """Whether a processor's products of uint8 activations and int8 weights may saturate."""
    return instruction == "avx2"


def dialect_for(runtime: TargetRuntime, instruction: Int8Instruction | None, scheme: Scheme) -> Int8Dialect:
    """The dialect in which a student of a scheme goes to a device.

    Args:
        runtime: the device's runtime.
        instruction: the processor's best instruction for int8 products; None where it is not known.
        scheme: how the student is quantized.
    """
    match runtime:
        case "tensorrt":
            return DEFAULT_DIALECT[runtime]
        case "onnxruntime":
            exact = scheme.reduce_range or not saturates(instruction)
            return DEFAULT_DIALECT[runtime] if exact else "onnxruntime-u8u8"
        case _:
            assert_never(runtime)


def int8_warning(profile: Profile, runtime: TargetRuntime) -> str | None:
    """Why int8 may not pay on a device with a runtime, and what to do; None where it pays or no one knows.

    `devices.profiles.local_profile` makes a profile of a machine's own facts.
    """
    if runtime == "tensorrt" or profile.cpu is None:
        return None
    name = f"{profile.id} ({profile.cpu.name})"
    match profile.cpu.int8:
        case "avx2":
            return f"{name} has AVX2 without VNNI: pairs of int8 products saturate at 16 bits. {_AVX2_ADVICE}"
        case "neon":
            return (
                f"{name} has NEON without a dot product: int8 may be no faster than fp32{_peaks(profile)}. "
                f"Measure both there before int8 ships for its speed: edgekd bench; {_instead(profile)}"
            )
        case "none":
            return (
                f"{name} has no instruction for int8 products that edgekd knows: int8 may be slower than "
                "fp32. Measure both there before int8 ships for its speed: edgekd bench"
            )
        case "amx" | "vnni" | "i8mm" | "dotprod":
            return None
        case _:
            assert_never(profile.cpu.int8)


def _instead(profile: Profile) -> str:
    """What may serve better on a processor of ARMv8.0."""
    half = "or fp16 " if "asimdhp" in profile.detect.isa else ""
    return f"fp32 {half}with a smaller student may serve better"


def _peaks(profile: Profile) -> str:
    """The ratio of the profile's own peaks, where it has them."""
    for point in profile.operating_points.values():
        if point.int8_tops is not None and point.fp32_tflops is not None:
            ratio = point.int8_tops.value / point.fp32_tflops.value
            return f" (at best {ratio:.0f} times as many operations in a second, by issue width)"
    return ""
