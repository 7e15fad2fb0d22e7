"""The roofline against an independent statement of it, and the speeds that a profile's peaks give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.documents.profile import Profile
from edgekd.errors import UsageError
from edgekd.measure.prediction.fused_graph import FusedOperator
from edgekd.measure.prediction.generic import Scale, generic_speeds
from edgekd.measure.prediction.roofline import Speeds, at, times_of

SPEEDS = Speeds(
    rates={
        ("gemm", "fp32"): ((100.0, 1e9), (10_000.0, 4e9)),
        ("conv", "fp32"): ((1.0, 2e9),),
        ("conv", "int8"): ((1.0, 8e9),),
        ("gemm", "int8"): ((1.0, 16e9),),
    },
    bandwidth=((1000.0, 1e10), (1e6, 1e9)),
    move_s=1e-6,
    call_s=5e-6,
    launches_s={("conv", "fp32"): 3e-6},
)


def operator(
    kind="conv", number_type="fp32", operations=10**6, read=1000, written=1000, weights=0, width=1, launches=1
):
    counts = (0, operations, width, read, written, weights)
    return FusedOperator("a", kind, number_type, *counts, ("Conv",), launches)


def figure(value):
    return {"value": value, "provenance": "derived", "source": "a test"}


def profile(cpu=None, gpu=None, **point):
    figures = {key: figure(value) if isinstance(value, float) else value for key, value in point.items()}
    data = {
        "id": "board",
        "description": "a board",
        "kind": "arm-board",
        "detect": {},
        "operating_points": {"stock": {"default": True, **figures}},
        "runtimes": [],
        **({"cpu": {"name": "cores", "int8": "dotprod", **cpu}} if cpu is not None else {}),
        **({"gpu": gpu} if gpu else {}),
    }
    return Profile.parse({"schema": 1, **data}, where="a test")


@given(
    st.lists(
        st.builds(
            operator,
            kind=st.sampled_from(["conv", "gemm", "depthwise", "elementwise", "data movement"]),
            number_type=st.sampled_from(["fp32", "int8", "fp16"]),
            operations=st.integers(0, 10**9),
            read=st.integers(10**5, 10**7),
            written=st.integers(0, 10**6),
            weights=st.integers(0, 10**5),
            width=st.integers(1, 10**6),
            launches=st.integers(1, 3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_roofline_against_its_formula(operators):
    rate_of = {
        ("gemm", "fp32"): lambda width: np.exp(
            np.interp(np.log(width), np.log([100, 10_000]), np.log([1e9, 4e9]))
        ),
        ("conv", "fp32"): lambda width: 2e9,
        ("conv", "int8"): lambda width: 8e9,
        ("gemm", "int8"): lambda width: 16e9,
    }

    def bandwidth(held):
        share = np.clip(np.log(held / 1000) / np.log(1000), 0, 1)
        return 1e10 * 10.0**-share

    held = sum(one.weight_bytes for one in operators)
    held += max(one.read_bytes + one.written_bytes - one.weight_bytes for one in operators)
    for one, timed in zip(operators, times_of(operators, SPEEDS), strict=True):
        keys = [(kind, kind_of) for kind in (one.kind, "gemm") for kind_of in (one.number_type, "fp32")]
        rate = next(rate_of[key] for key in keys if key in rate_of)(one.width)
        activations = one.read_bytes + one.written_bytes - one.weight_bytes
        memory = activations / bandwidth(max(activations, 1)) + one.weight_bytes / bandwidth(held)
        launch = 3e-6 if (one.kind, one.number_type) == ("conv", "fp32") else 1e-6
        launch *= one.launches
        compute = one.operations / rate
        assert timed.seconds == pytest.approx(max(compute, memory) + launch, rel=1e-9)
        names = {"compute": compute, "memory": memory, "launch": launch}
        assert names[timed.bound] >= max(compute, memory) * (1 - 1e-9)


def test_what_an_operator_is_bound_by():
    cases = [operator(), operator(operations=10, read=10**6), operator(operations=10, read=10, written=10)]
    assert [timed.bound for timed in times_of(cases, SPEEDS)] == ["compute", "memory", "launch"]


def test_weights_come_from_where_all_weights_fit():
    small = operator(operations=0, read=1000, written=0, weights=1000)
    large = operator(operations=0, read=10**6, written=0, weights=10**6)
    (alone,) = times_of([small], SPEEDS)
    among = times_of([small, large], SPEEDS)[0]
    assert alone.seconds == pytest.approx(1000 / 1e10 + 3e-6)
    assert among.seconds == pytest.approx(1000 / 1e9 + 3e-6)


def test_a_curve_stays_beyond_its_ends():
    curve = ((10.0, 1.0), (1000.0, 100.0))
    assert [at(curve, size) for size in (1, 10, 100, 1000, 5000)] == pytest.approx([1, 1, 10, 100, 100])


def test_peaks_are_of_all_cores_and_fewer_threads_use_a_part():
    board = profile({"cores": figure(4.0)}, fp32_tflops=0.4, int8_tops=1.6, memory_gb_s=10.0)
    one, all_of_them, more = (generic_speeds(board, "stock", threads)[0] for threads in (1, 4, 8))
    rates = [speeds.rate("conv", "fp32", 1) for speeds in (one, all_of_them, more)]
    assert rates == pytest.approx([0.1e12 * 0.35, 0.4e12 * 0.35, 0.4e12 * 0.35])
    assert one.rate("conv", "int8", 1) == pytest.approx(0.4e12 * 0.2)
    assert at(one.bandwidth, 1) == pytest.approx(6e9)


def test_a_power_mode_that_turns_cores_off():
    board = profile({"cores": figure(8.0)}, fp32_tflops=0.4, memory_gb_s=10.0, cpu_cores=4.0)
    assert generic_speeds(board, "stock", 1)[0].rate("conv", "fp32", 1) == pytest.approx(0.1e12 * 0.35)


def test_a_unit_profile_is_scaled():
    unit = profile({}, unit=True, fp32_tflops=0.064, int8_tops=0.256)
    speeds, notes = generic_speeds(unit, "stock", 4, unit=Scale(2, 2.5))
    assert speeds.rate("gemm", "fp32", 1) == pytest.approx(0.064e12 * 2 * 2.5 * 0.35)
    assert at(speeds.bandwidth, 1) == pytest.approx(2 * 10e9 * 0.6)
    assert notes == ("the profile gives no memory bandwidth: 20 GB/s are assumed",)
    alone, notes = generic_speeds(unit, "stock", 3)
    assert alone.rate("gemm", "fp32", 1) == pytest.approx(3 * 0.064e12 * 0.35)
    assert notes[0] == "for 3 core(s) at 1 GHz: divide by the device's clock in GHz"


def test_int8_without_a_peak_of_its_own_is_fp32():
    board = profile({"cores": figure(1.0)}, fp32_tflops=0.1, memory_gb_s=10.0)
    speeds, _ = generic_speeds(board, "stock", 1)
    assert speeds.rate("conv", "int8", 1) == speeds.rate("conv", "fp32", 1)


def test_half_precision_is_faster_on_a_gpu_alone():
    peaks = {"fp32_tflops": 1.0, "fp16_tflops": 8.0, "memory_gb_s": 100.0}
    gpu, _ = generic_speeds(profile(gpu={"name": "gpu", "sm": 87}, **peaks), "stock", 1)
    cpu, _ = generic_speeds(profile({}, **peaks), "stock", 1)
    assert gpu.rate("conv", "fp16", 1) == pytest.approx(8 * gpu.rate("conv", "fp32", 1))
    assert cpu.rate("conv", "fp16", 1) == cpu.rate("conv", "fp32", 1)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (profile({}), "no fp32_tflops"),
        (profile({}, int8_tops=2.0), "no fp32_tflops"),
        (profile(gpu={"name": "gpu", "sm": 87}), "no fp32_tflops and no memory_gb_s"),
        (profile(gpu={"name": "gpu", "sm": 87}, fp32_tflops=1.0), "no memory_gb_s"),
    ],
)
def test_a_profile_without_peaks(given, missing):
    with pytest.raises(UsageError) as caught:
        generic_speeds(given, "stock", 1)
    assert str(caught.value) == (
        f"board@stock: the profile gives {missing}, and there is no calibration\n"
        "  try: edgekd devices calibrate on the device, or add the figures to a profile of your own"
    )
