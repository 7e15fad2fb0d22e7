"""What a processor's int8 instruction means: the dialect, and whether int8 pays."""

from __future__ import annotations

from typing import get_args

import pytest

from edgekd.devices.isa import INT8_MEANING, dialect_for, int8_instruction, int8_warning, saturates
from edgekd.devices.profiles import load_profile, local_profile
from edgekd.documents.profile import Int8Instruction
from edgekd.documents.run_log import Facts
from edgekd.documents.runtime import TargetRuntime
from edgekd.documents.scheme import Scheme

SEVEN_BITS = Scheme(reduce_range=True)
FACTS = Facts(
    machine="x86_64",
    system="Linux 6.1",
    cpu="Intel Core i7-4770",
    isa=("avx", "avx2", "fma"),
    cores=4,
    memory_bytes=8 * 2**30,
    governor=None,
    versions={"python": "3.11.7"},
)

NEON = (
    " has NEON without a dot product: int8 may be no faster than fp32 (at best 2 times as many operations "
    "in a second, by issue width). Measure both there before int8 ships for its speed: edgekd bench; "
    "fp32 with a smaller student may serve better"
)
AVX2 = (
    " has AVX2 without VNNI: pairs of int8 products saturate at 16 bits. With reduce_range = true in its "
    "scheme a student is exact there and int8 pays; without it edgekd delivers uint8 weights, exact too, "
    "which may be no faster than fp32: edgekd bench compares them"
)


@pytest.mark.parametrize(
    ("isa", "instruction"),
    [
        (("avx2", "avx512f", "avx512bw", "avx512_vnni", "amx_int8"), "amx"),
        (("avx2", "avx512f", "avx512_vnni"), "vnni"),
        (("avx", "avx2", "fma", "avx_vnni"), "vnni"),
        (("avx", "avx2", "fma"), "avx2"),
        (("avx2", "avx512f", "avx512bw"), "avx2"),  # Skylake-X: AVX-512, and U8S8 saturates as well
        (("asimd", "asimddp", "i8mm"), "i8mm"),
        (("asimd", "asimddp", "asimdhp"), "dotprod"),
        (("asimd",), "neon"),
        (("sse4_2",), "none"),
    ],
)
def test_int8_instruction(isa: tuple[str, ...], instruction: str) -> None:
    assert int8_instruction(isa) == instruction


@pytest.mark.parametrize("instruction", [*get_args(Int8Instruction), None])
@pytest.mark.parametrize("scheme", [Scheme(), SEVEN_BITS, Scheme(weight_bits=4)])
@pytest.mark.parametrize("runtime", get_args(TargetRuntime))
def test_the_dialect(runtime: TargetRuntime, instruction: Int8Instruction | None, scheme: Scheme) -> None:
    dialect = dialect_for(runtime, instruction, scheme)
    if runtime == "tensorrt":
        assert dialect == "tensorrt-s8"
    elif instruction == "avx2" and scheme != SEVEN_BITS:
        assert dialect == "onnxruntime-u8u8"
    else:
        assert dialect == "onnxruntime-u8"


def test_only_avx2_saturates() -> None:
    assert [one for one in get_args(Int8Instruction) if saturates(one)] == ["avx2"]
    assert not saturates(None)


def test_every_instruction_has_its_words() -> None:
    assert set(INT8_MEANING) == set(get_args(Int8Instruction))


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("raspberry-pi-4-8gb", "raspberry-pi-4-8gb (Broadcom BCM2711, 4x Cortex-A72)" + NEON),
        ("raspberry-pi-zero-2-w", "raspberry-pi-zero-2-w (RP3A0, 4x Cortex-A53)" + NEON),
        ("nxp-imx8m-plus", "nxp-imx8m-plus (NXP i.MX 8M Plus, 4x Cortex-A53)" + NEON),
        ("x86-64-avx2", "x86-64-avx2 (any x86-64 with AVX2 and without VNNI)" + AVX2),
        ("x86-64-avx512-vnni", None),
        ("raspberry-pi-5-8gb", None),
        ("jetson-orin-nano-8gb", None),
        ("nvidia-l4", None),
    ],
)
def test_the_warning_of_a_profile(name: str, warning: str | None) -> None:
    assert int8_warning(load_profile(name), "onnxruntime") == warning
    assert int8_warning(load_profile(name), "tensorrt") is None


def warning_here(**changes: object) -> str | None:
    return int8_warning(local_profile(FACTS.model_copy(update=changes)), "onnxruntime")


def test_the_warning_of_the_machine_at_hand() -> None:
    assert (warning_here() or "").startswith(
        "local (Intel Core i7-4770) has AVX2 without VNNI: pairs of int8 products saturate at 16 bits. "
    )
    assert warning_here(isa=("avx2", "avx_vnni")) is None
    assert warning_here(cpu="Cortex-A72", isa=("asimd",)) == (
        "local (Cortex-A72) has NEON without a dot product: int8 may be no faster than fp32. "
        "Measure both there before int8 ships for its speed: edgekd bench; "
        "fp32 with a smaller student may serve better"
    )
    assert (warning_here(cpu="Cortex-A55", isa=("asimd", "asimdhp")) or "").endswith(
        "; fp32 or fp16 with a smaller student may serve better"
    )
    assert warning_here(cpu="Celeron", isa=()) == (
        "local (Celeron) has no instruction for int8 products that edgekd knows: int8 may be slower than fp32"
        ". Measure both there before int8 ships for its speed: edgekd bench"
    )
