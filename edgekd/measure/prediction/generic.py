"""Speeds of a device that nobody calibrated: its profile's peaks times efficiencies of its kind.

The efficiencies are placeholders, one for all devices of a kind; that is why such a prediction is an interval
of a factor of three to each side. `edgekd devices calibrate` replaces them. Convolutions of small networks at
batch 1 reach about a third of a processor's ceiling of issue width, depthwise ones, which use each input only
nine times, a few percent, and int8, whose ceiling is four times as high, a smaller share of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.documents.prediction import NumberType, OperatorClass
from edgekd.documents.profile import Figure, OperatingPoint, Profile
from edgekd.errors import UsageError
from edgekd.measure.prediction.roofline import Curve, Speeds

CORE_GB_S = 10.0
"""Memory bandwidth of one core where the profile of a processor gives none."""

Efficiency = Mapping[OperatorClass, float]
_CPU: Mapping[NumberType, Efficiency] = {
    "fp32": {
        "conv": 0.35,
        "pointwise": 0.35,
        "gemm": 0.35,
        "depthwise": 0.06,
        "elementwise": 0.03,
        "pooling": 0.03,
    },
    "int8": {
        "conv": 0.2,
        "pointwise": 0.2,
        "gemm": 0.2,
        "depthwise": 0.03,
        "elementwise": 0.005,
        "pooling": 0.01,
    },
}
_GPU: Mapping[NumberType, Efficiency] = {
    "fp32": {
        "conv": 0.3,
        "pointwise": 0.3,
        "gemm": 0.3,
        "depthwise": 0.1,
        "elementwise": 0.1,
        "pooling": 0.1,
    },
    "int8": {
        "conv": 0.2,
        "pointwise": 0.2,
        "gemm": 0.2,
        "depthwise": 0.02,
        "elementwise": 0.02,
        "pooling": 0.02,
    },
}
_MEMORY = 0.6
"""Share of the peak bandwidth that an operator reaches."""
_LAUNCH_S, _CALL_S = {"cpu": 1e-6, "gpu": 4e-6}, {"cpu": 10e-6, "gpu": 20e-6}
_FIELDS: tuple[tuple[NumberType, str], ...] = (
    ("fp32", "fp32_tflops"),
    ("fp16", "fp16_tflops"),
    ("int8", "int8_tops"),
)


@dataclass(frozen=True)
class Scale:
    """What a unit profile is multiplied by: the machine's cores that work, and their clock in GHz."""

    cores: int = 1
    ghz: float = 1.0


def generic_speeds(
    profile: Profile, point_name: str | None, threads: int, *, unit: Scale | None = None
) -> tuple[Speeds, tuple[str, ...]]:
    """Speeds from a profile's peaks, and what should be said about them.

    Args:
        profile: of the device.
        point_name: its operating point.
        threads: of the runtime.
        unit: what a unit profile is scaled by; None: one core for each thread, at 1 GHz.

    Raises:
        UsageError: the profile gives no peak, or no bandwidth of a GPU.
    """
    point = profile.operating_points.get(point_name or "", OperatingPoint())
    on_gpu = profile.gpu is not None
    factor, notes = _factor(profile, point, threads, unit)
    peaks = {
        kind: figure.value * 1e12 * factor
        for kind, name in _FIELDS
        if isinstance(figure := getattr(point, name), Figure)
    }
    bandwidth = point.memory_gb_s
    missing = [] if "fp32" in peaks else ["fp32_tflops"]
    missing += ["memory_gb_s"] if bandwidth is None and on_gpu else []
    if missing:
        raise _no_peaks(profile, point_name, missing)
    if bandwidth is None:
        cores = threads if unit is None else unit.cores
        gb_s = CORE_GB_S * cores
        notes.append(f"the profile gives no memory bandwidth: {gb_s:g} GB/s are assumed")
    else:
        gb_s = bandwidth.value
    where = "gpu" if on_gpu else "cpu"
    speeds = Speeds(
        rates=_rates(peaks, _GPU if on_gpu else _CPU, on_gpu=on_gpu),
        bandwidth=((1.0, gb_s * 1e9 * _MEMORY),),
        move_s=_LAUNCH_S[where],
        call_s=_CALL_S[where],
    )
    return speeds, tuple(notes)


def _factor(
    profile: Profile, point: OperatingPoint, threads: int, unit: Scale | None
) -> tuple[float, list[str]]:
    """What the peaks are multiplied by: the part of the cores that work, and a unit's scale."""
    if point.unit:
        if unit is not None:
            return unit.cores * unit.ghz, []
        return float(threads), [f"for {threads} core(s) at 1 GHz: divide by the device's clock in GHz"]
    if profile.gpu is not None or profile.cpu is None:
        return 1.0, []
    cores = point.cpu_cores or profile.cpu.cores
    return (1.0 if cores is None else min(1.0, threads / cores.value)), []


def _rates(
    peaks: Mapping[NumberType, float], efficiencies: Mapping[NumberType, Efficiency], *, on_gpu: bool
) -> dict[tuple[OperatorClass, NumberType], Curve]:
    """Peaks times efficiencies; int8 without a peak of its own has that of fp32, and so has fp16."""
    found: dict[tuple[OperatorClass, NumberType], Curve] = {}
    for number_type, _ in _FIELDS:
        own = number_type in peaks and (number_type != "fp16" or on_gpu)
        shares = efficiencies["int8" if number_type == "int8" and own else "fp32"]
        peak = peaks[number_type if own else "fp32"]
        found.update({(kind, number_type): ((1.0, peak * share),) for kind, share in shares.items()})
    return found


def _no_peaks(profile: Profile, point_name: str | None, missing: list[str]) -> UsageError:
    where = profile.id if point_name is None else f"{profile.id}@{point_name}"
    return UsageError(
        f"the profile gives no {' and no '.join(missing)}, and there is no calibration",
        where=where,
        hint="edgekd devices calibrate on the device, or add the figures to a profile of your own",
    )
