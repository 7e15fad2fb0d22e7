"""The shipped profiles as a catalogue: all of them are there, and each number follows from what it names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pytest

from edgekd.devices.isa import int8_instruction
from edgekd.devices.profiles import default_point, list_profiles, load_profile
from edgekd.documents.profile import Figure, OperatingPoint, Profile
from edgekd.shipped import shipped

SHIPPED = {path.stem: Profile.read(path) for path in sorted(shipped("profiles").glob("*.toml"))}
NVIDIA = {name: profile for name, profile in SHIPPED.items() if profile.gpu is not None}

CATALOGUE = (
    *("jetson-orin-nano-8gb", "jetson-orin-nx-16gb", "jetson-agx-orin-64gb", "jetson-agx-thor-t5000-128gb"),
    *("jetson-xavier-nx-8gb", "nvidia-t4", "nvidia-a10", "nvidia-l4", "rtx-4060-laptop", "nvidia-h100-sxm"),
    *("nvidia-h200-sxm", "raspberry-pi-4b-8gb", "raspberry-pi-5-8gb", "raspberry-pi-zero-2-w", "intel-n100"),
    *("intel-core-ultra-155h", "intel-core-ultra-200v", "x86-64-avx2", "x86-64-avx512-vnni"),
    *("amd-ryzen-embedded-8845hs-class", "rockchip-rk3588", "nxp-imx8m-plus"),
)
"""Every id of the catalogue; raspberry-pi-4-8gb has its as an alias."""

INT8_OPERATIONS = {72: 2048, 75: 2048, 86: 2048, 87: 4096, 89: 2048, 90: 8192, 110: 16384}
"""Dense int8 operations of an SM's tensor cores in a cycle, by compute capability."""

LANES = {72: 64, 75: 64, 86: 128, 87: 128, 89: 128, 90: 128, 110: 128}
"""fp32 multiply-adds of an SM in a cycle."""

TENSOR_MHZ = {"nvidia-h100-sxm": 1830, "nvidia-h200-sxm": 1830}
"""Clock of a published peak whose profile gives none."""

BUS = {
    "jetson-orin-nano-8gb": (16, {"15W": 2 * 2133, "25W": 2 * 3199, "MAXN_SUPER": 2 * 3199}),
    "jetson-orin-nx-16gb": (16, {"10W": 2 * 2133, "15W": 2 * 3199, "25W": 2 * 3199, "40W": 2 * 3199}),
    "jetson-agx-orin-64gb": (32, {"15W": 2 * 2133, "30W": 2 * 3199, "50W": 2 * 3199, "MAXN": 2 * 3199}),
    "jetson-agx-thor-t5000-128gb": (32, {"MAXN": 2 * 4266}),
    "jetson-xavier-nx-8gb": (16, {"10W": 2 * 1600, "15W": 2 * 1600, "20W": 2 * 1866}),
    "nvidia-t4": (32, {"stock": 10_000}),
    "nvidia-a10": (48, {"stock": 12_500}),
    "nvidia-l4": (24, {"stock": 12_500}),
    "rtx-4060-laptop": (16, {"35W": 16_000, "115W": 16_000}),
    "nvidia-h100-sxm": (640, {"stock": 5234}),
    "nvidia-h200-sxm": (768, {"stock": 6250}),
    "raspberry-pi-4-8gb": (4, {"1500-mhz": 3200, "1800-mhz": 3200}),
    "raspberry-pi-5-8gb": (4, {"stock": 4267}),
    "intel-n100": (8, {"stock": 4800}),
    "intel-core-ultra-155h": (16, {"28W": 7467}),
    "intel-core-ultra-200v": (16, {"17W": 8533, "30W": 8533}),
    "amd-ryzen-embedded-8845hs-class": (16, {"stock": 5600}),
    "rockchip-rk3588": (8, {"stock": 4224, "big-cores": 4224}),
    "nxp-imx8m-plus": (4, {"stock": 4000}),
}
"""Bytes of the memory bus, and mega-transfers in a second at an operating point."""

ADVERTISED = {
    "jetson-orin-nano-8gb": {40, 60, 67},
    "jetson-orin-nx-16gb": {60, 77, 100, 157},
    "jetson-agx-orin-64gb": {14, 41, 109, 171, 105, 275},
    "jetson-agx-thor-t5000-128gb": {2070, 1035},
    "jetson-xavier-nx-8gb": {21},
    "nvidia-a10": {500},
    "nvidia-l4": {485},
    "nvidia-h100-sxm": {3958},
    "nvidia-h200-sxm": {3958},
}
"""Headlines that are sparse, or count other accelerators."""

UNITS = {"x86-64-amx", "x86-64-avx2", "x86-64-avx512-vnni"}


def figures(profile: Profile) -> Iterator[tuple[str, Figure]]:
    for name, point in profile.operating_points.items():
        for key in OperatingPoint.model_fields:
            if isinstance(figure := getattr(point, key), Figure):
                yield f"{name}.{key}", figure
    for key, figure in (
        ("memory_bytes", profile.memory_bytes),
        ("cpu.cores", profile.cpu and profile.cpu.cores),
        ("gpu.sm_count", profile.gpu and profile.gpu.sm_count),
        ("npu.int8_tops", profile.npu and profile.npu.int8_tops),
    ):
        if figure is not None:
            yield key, figure


def sms(profile: Profile, point: OperatingPoint) -> float:
    assert profile.gpu is not None
    count = point.sm_count or profile.gpu.sm_count
    assert count is not None
    return count.value


def arithmetic(source: str) -> float:
    """The sum of products that a source begins with: `4 cores x 16 x 2.4 GHz + 4 cores x 8 x 1.8 GHz; ..`."""
    number = r"(?<![\w-])\d+(?:\.\d+)?(?![\w-])"
    products = source.split(";")[0].split(" + ")
    return sum(math.prod(float(found) for found in re.findall(number, product)) for product in products)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_device_of_the_catalogue_is_shipped(name: str) -> None:
    assert name in (load_profile(name).id, *load_profile(name).aliases)


def test_nothing_else_is_shipped_but_amx_and_every_file_is_whole() -> None:
    assert {load_profile(name).id for name in CATALOGUE} | {"x86-64-amx"} == set(SHIPPED)
    assert len(CATALOGUE) == len(set(CATALOGUE)) == 22
    problems = {one.name: one.problem for one in list_profiles() if one.name in SHIPPED}
    assert problems == dict.fromkeys(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_profile_has_a_default_point_and_says_where_every_number_is_from(name: str) -> None:
    profile = SHIPPED[name]
    assert default_point(profile) in profile.operating_points
    assert profile.notes
    for key, figure in figures(profile):
        assert figure.value > 0, key
        assert len(figure.source) >= 6, key
        assert figure.provenance != "measured", key
        if figure.provenance == "derived":
            assert figure.source[0].isdigit(), key
    for key, point in profile.operating_points.items():
        assert point.description, key


@pytest.mark.parametrize("name", SHIPPED)
def test_a_derived_figure_is_what_its_source_computes(name: str) -> None:
    for key, figure in figures(SHIPPED[name]):
        if figure.provenance != "derived":
            continue
        power = math.log10(arithmetic(figure.source) / figure.value)
        assert power == pytest.approx(round(power), abs=0.003), key  # two to three digits are written
        assert round(power) % 3 == 0, key


@pytest.mark.parametrize("name", NVIDIA)
def test_peaks_of_a_gpu_follow_from_its_sms_and_its_clock(name: str) -> None:
    profile = NVIDIA[name]
    assert profile.gpu is not None
    for key, point in profile.operating_points.items():
        if point.int8_tops is None:
            continue
        clock_hz = 1e6 * (point.gpu_mhz.value if point.gpu_mhz else TENSOR_MHZ[name])
        int8 = sms(profile, point) * INT8_OPERATIONS[profile.gpu.sm] * clock_hz / 1e12
        assert point.int8_tops.value == pytest.approx(int8, rel=0.03), key
        assert point.fp16_tflops is not None
        assert point.fp16_tflops.value == pytest.approx(int8 / 2, rel=0.03), key
        if point.gpu_mhz and point.fp32_tflops:
            fp32 = sms(profile, point) * LANES[profile.gpu.sm] * 2 * clock_hz / 1e12
            assert point.fp32_tflops.value == pytest.approx(fp32, rel=0.03), key


@pytest.mark.parametrize("name", BUS)
def test_bandwidth_follows_from_the_width_of_the_memory_and_its_rate(name: str) -> None:
    width, rates = BUS[name]
    for key, megatransfers in rates.items():
        figure = SHIPPED[name].operating_points[key].memory_gb_s
        assert figure is not None
        assert figure.value == pytest.approx(width * megatransfers / 1000, rel=0.005), key


@pytest.mark.parametrize("name", ADVERTISED)
def test_no_peak_is_an_advertised_sparse_one(name: str) -> None:
    for key, point in SHIPPED[name].operating_points.items():
        if point.int8_tops is not None:
            assert point.int8_tops.value not in ADVERTISED[name], key


@pytest.mark.parametrize("name", SHIPPED)
def test_peaks_are_dense(name: str) -> None:
    for key, point in SHIPPED[name].operating_points.items():
        if point.int8_tops and point.fp16_tflops:
            assert point.int8_tops.value == pytest.approx(2 * point.fp16_tflops.value, rel=0.01), key


@pytest.mark.parametrize("name", SHIPPED)
def test_the_instruction_is_that_of_the_features_that_the_profile_wants(name: str) -> None:
    profile = SHIPPED[name]
    if profile.cpu is not None:
        assert profile.cpu.int8 == int8_instruction(profile.detect.isa)


@pytest.mark.parametrize("name", ["nxp-imx8m-plus", "raspberry-pi-4-8gb", "raspberry-pi-zero-2-w"])
def test_boards_without_a_dot_product_do_at_most_twice_as_many_operations_in_int8(name: str) -> None:
    assert SHIPPED[name].detect.isa_absent == ("asimddp", "asimdhp")
    for key, point in SHIPPED[name].operating_points.items():
        assert point.int8_tops is not None
        assert point.fp32_tflops is not None
        assert point.int8_tops.value == pytest.approx(2 * point.fp32_tflops.value, rel=0.01), key


@pytest.mark.parametrize(
    ("name", "modes", "default"),
    [
        ("jetson-orin-nano-8gb", {"15W": 612, "25W": 918, "MAXN_SUPER": 1020}, "25W"),
        (
            "jetson-orin-nx-16gb",
            {
                "10W": 612,
                "15W": 612,
                "15W-legacy": 612,
                "25W": 408,
                "40W": 1173,
                "MAXN_SUPER": 1173,
                "MAXN": 918,
            },
            "40W",
        ),
        ("jetson-agx-orin-64gb", {"15W": 420.75, "30W": 624.75, "50W": 828.75, "MAXN": 1300}, "30W"),
        ("jetson-agx-thor-t5000-128gb", {"MAXN": 1575, "120W": None}, "MAXN"),
        ("jetson-xavier-nx-8gb", {"10W": 803.25, "15W": 1109.25, "20W": 1109.25}, "15W"),
        ("rtx-4060-laptop", {"35W": 1470, "115W": 2370}, "115W"),
    ],
)
def test_power_modes_have_their_clocks(name: str, modes: dict[str, float | None], default: str) -> None:
    points = SHIPPED[name].operating_points
    assert {key: point.gpu_mhz and point.gpu_mhz.value for key, point in points.items()} == modes
    assert default_point(SHIPPED[name]) == default


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("jetson-")])
def test_each_mode_of_a_jetson_has_the_name_that_nvpmodel_prints(name: str) -> None:
    for key, point in SHIPPED[name].operating_points.items():
        assert point.nvpmodel is not None, key
        assert point.nvpmodel.removeprefix("MODE_").split("_")[0] == key.split("-")[0].split("_")[0], key


def test_25_watts_of_the_orin_nx_are_the_trap_that_they_are() -> None:
    points = SHIPPED["jetson-orin-nx-16gb"].operating_points
    assert points["25W"].gpu_mhz is not None
    assert points["15W"].gpu_mhz is not None
    assert points["25W"].gpu_mhz.value < points["15W"].gpu_mhz.value


@pytest.mark.parametrize(
    ("name", "tops"),
    [
        ("rockchip-rk3588", 6),
        ("nxp-imx8m-plus", 2.3),
        ("intel-core-ultra-155h", 11.5),
        ("intel-core-ultra-200v", 48),
        ("amd-ryzen-embedded-8845hs-class", 16),
    ],
)
def test_an_npu_is_told_and_is_not_the_peak_of_an_operating_point(name: str, tops: float) -> None:
    npu = SHIPPED[name].npu
    assert npu is not None
    assert npu.int8_tops is not None
    assert (npu.int8_tops.value, npu.runtimes) == (tops, ())
    assert npu.note
    for point in SHIPPED[name].operating_points.values():
        assert point.int8_tops is None or point.int8_tops.value < tops


def test_units_to_scale_from_are_marked() -> None:
    marked = {name for name, one in SHIPPED.items() if any(p.unit for p in one.operating_points.values())}
    assert marked == UNITS
