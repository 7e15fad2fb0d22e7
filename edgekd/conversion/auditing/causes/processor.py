"""What of the processor decides which int8 kernels there are. Source: onnxruntime core/mlas/lib/platform."""

from __future__ import annotations

from dataclasses import dataclass

_DOT_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8")


@dataclass(frozen=True)
class Processor:
    """What kernels can be expected.

    Attributes:
        unsigned_alone: the kernels read uint8 activations alone, as all do but Arm's.
        signed_weights: kernels for int8 weights are faster than those for uint8: there are instructions for
            products of uint8 and int8 (VNNI, AMX). Without them uint8 weights are exact, though slower.
    """

    unsigned_alone: bool
    signed_weights: bool

    @classmethod
    def of(cls, machine: str) -> Processor:
        """From an audit's machine, such as `x86_64 avx2 avx512_vnni`."""
        words = machine.split()
        arm = machine.startswith(("aarch64", "arm"))
        return cls(unsigned_alone=not arm, signed_weights=any(word in words for word in _DOT_PRODUCTS))
