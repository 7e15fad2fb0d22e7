"""Which speeds a prediction uses: a calibration where its key is met, else the profile that is nearest."""

import pytest

from edgekd.devices.profiles import list_profiles
from edgekd.documents.calibration import Calibration
from edgekd.documents.run_log import Facts
from edgekd.errors import DocumentError, MissingError, UsageError
from edgekd.measure.prediction import calibration as store
from edgekd.measure.prediction.calibration import find_calibration, keep, key_of, path_of
from edgekd.measure.prediction.generic import Scale, generic_speeds
from edgekd.measure.prediction.target import machine_target, profile_target, read_clock_mhz

VNNI = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni")


def facts(**changed):
    data = {
        "machine": "x86_64",
        "system": "Linux",
        "cpu": "AMD EPYC",
        "isa": VNNI,
        "cores": 4,
        "memory_bytes": 8 * 2**30,
        "governor": None,
        "versions": {"onnxruntime": "1.31.1"},
    }
    return Facts(**{**data, **changed})


def calibration(of=None, threads=1):
    return Calibration(
        key=key_of(of or facts(), threads),
        facts=of or facts(),
        call_us=5,
        move_us=1,
        launches=(),
        rates=({"kind": "gemm", "number_type": "fp32", "width": 100, "gops": 50},),
        bandwidths=({"held_bytes": 1000, "gb_s": 10},),
        benchmarks=(),
    )


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("EDGEKD_PROFILES", raising=False)
    return tmp_path / "edgekd" / "calibrations"


def profiles(*names):
    return [one.profile for one in list_profiles() if one.name in names]


def test_a_calibration_is_found_again(own_folder):
    made = calibration()
    keep(made, path_of(made.key), force=False)
    assert find_calibration(facts(), 1) == made
    (file,) = own_folder.iterdir()
    assert file.name.startswith("amd-epyc-1.31.1-1t-")


@pytest.mark.parametrize(
    "changed",
    [{"cpu": "AMD EPYC 2"}, {"versions": {"onnxruntime": "1.32.0"}}, {"versions": {}}, {"board": "a board"}],
)
def test_another_machine_or_version_does_not_use_it(changed):
    made = calibration()
    keep(made, path_of(made.key), force=False)
    assert find_calibration(facts(**changed), 1) is None


def test_another_number_of_threads_or_another_kit_does_not_use_it(monkeypatch):
    made = calibration()
    keep(made, path_of(made.key), force=False)
    assert find_calibration(facts(), 2) is None
    monkeypatch.setattr(store, "kit_digest", lambda: "f" * 64)
    assert find_calibration(facts(), 1) is None


def test_a_file_of_another_key_in_its_place_is_an_error():
    path = path_of(key_of(facts(), 1))
    calibration(threads=2).write(path)
    with pytest.raises(DocumentError) as caught:
        find_calibration(facts(), 1)
    assert str(caught.value) == (
        f"{path}: 1 problem\n  key: is not that of this machine and runtime\n"
        "  try: edgekd devices calibrate --force makes it anew"
    )


def test_nothing_is_written_over_unasked():
    made, path = calibration(), path_of(key_of(facts(), 1))
    keep(made, path, force=False)
    with pytest.raises(UsageError) as caught:
        keep(made, path, force=False)
    assert str(caught.value) == (f"{path}: there is a calibration already\n  try: --force measures it anew")
    keep(made.model_copy(update={"call_us": 7.0}), path, force=True)
    assert find_calibration(facts(), 1).call_us == 7


def test_a_runtime_that_is_not_there_has_no_key():
    with pytest.raises(MissingError) as caught:
        key_of(facts(versions={}), 1)
    assert str(caught.value) == "onnxruntime is not installed there\n  try: edgekd doctor"


def test_a_calibrated_machine():
    target = machine_target(facts(), 1, calibration=calibration(), profiles=(), clock_mhz=None)
    assert target.calibration == "AMD EPYC, onnxruntime 1.31.1, 1 thread(s)"
    assert target.speeds.rate("gemm", "fp32", 1) == pytest.approx(50e9)
    assert (target.speeds.call_s, target.speeds.launch_s("conv", "fp32")) == pytest.approx((5e-6, 1e-6))


def test_a_machine_by_the_profile_that_it_matches_scaled_by_its_cores_and_clock():
    known = profiles("x86-64-avx2", "x86-64-avx512-vnni")
    target = machine_target(facts(), 8, calibration=None, profiles=known, clock_mhz=3000.0)
    (unit,) = profiles("x86-64-avx512-vnni")
    expected, _ = generic_speeds(unit, "1-core-1-ghz", 8, unit=Scale(4, 3.0))
    assert (target.speeds, target.calibration, target.runtime) == (expected, None, "onnxruntime")
    assert target.notes == (
        "x86-64-avx512-vnni times 4 core(s) at 3.00 GHz",
        "the profile gives no memory bandwidth: 40 GB/s are assumed",
        "nobody measured this machine: edgekd devices calibrate narrows the interval",
    )


def test_the_machine_s_own_word_on_its_clock_comes_first():
    known = profiles("x86-64-avx512-vnni")
    target = machine_target(facts(cpu_max_mhz=2500.0), 1, calibration=None, profiles=known, clock_mhz=3000.0)
    assert target.notes[0] == "x86-64-avx512-vnni times 1 core(s) at 2.50 GHz"


def test_a_machine_that_has_more_than_the_nearest_profile():
    known = profiles("x86-64-avx2", "x86-64-avx512-vnni")
    target = machine_target(
        facts(isa=(*VNNI, "amx_int8")), 1, calibration=None, profiles=known, clock_mhz=1000.0
    )
    assert target.notes[0] == (
        "no profile matches this machine; x86-64-avx512-vnni is nearest and leaves out amx_int8"
    )


def test_a_gpu_s_profile_is_not_the_processor_s():
    known = profiles("nvidia-l4", "x86-64-avx512-vnni")
    target = machine_target(
        facts(gpus=("NVIDIA L4 (8.9)",)), 1, calibration=None, profiles=known, clock_mhz=1000.0
    )
    assert target.notes[0].startswith("x86-64-avx512-vnni times")


def test_a_machine_that_no_profile_comes_near():
    with pytest.raises(UsageError) as caught:
        machine_target(
            facts(machine="riscv64"), 1, calibration=None, profiles=profiles("nvidia-l4"), clock_mhz=1.0
        )
    assert str(caught.value) == (
        "local: no profile comes near this machine (AMD EPYC)\n"
        "  try: edgekd devices calibrate measures it, edgekd devices list shows every profile"
    )


def test_a_machine_without_a_clock():
    known = profiles("x86-64-avx512-vnni")
    with pytest.raises(UsageError) as caught:
        machine_target(facts(), 1, calibration=None, profiles=known, clock_mhz=None)
    assert str(caught.value) == (
        "local: its clock cannot be read, and x86-64-avx512-vnni has to be scaled by it\n"
        "  try: edgekd devices calibrate measures what is needed"
    )


def test_a_profile_by_name():
    target = profile_target("jetson-orin-nano-8gb@15W", 1)
    assert (target.profile, target.point, target.runtime) == ("jetson-orin-nano-8gb", "15W", "tensorrt")
    assert profile_target("raspberry-pi-4-8gb", 1).runtime == "onnxruntime"


@pytest.mark.parametrize("found", list_profiles(), ids=lambda found: found.name)
def test_every_profile_that_ships_can_be_predicted_for_or_has_no_peaks(found):
    points = found.profile.operating_points.values()
    if any(point.fp32_tflops is None for point in points if point.default):
        with pytest.raises(UsageError, match="the profile gives no fp32_tflops"):
            profile_target(found.name, 1)
    else:
        assert profile_target(found.name, 1).speeds.rate("conv", "int8", 1) > 1e9


def test_the_clock_of_the_cores(tmp_path):
    assert read_clock_mhz(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("cpu MHz\t\t: 1200.5\nflags: x\ncpu MHz\t\t: 2700.000\n")
    assert read_clock_mhz(tmp_path) == 2700


def test_a_profile_is_predicted_by_the_calibration_of_such_a_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    name = "x86-64-avx512-vnni"
    assert profile_target(name, 1).calibration is None
    old = facts(versions={"onnxruntime": "1.9.0"})
    for of in (old, facts(), facts(isa=("avx2", "fma"), cpu="another")):
        made = calibration(of)
        keep(made, path_of(made.key), force=False)
    (tmp_path / "edgekd" / "calibrations" / "damaged.json").write_text("{")
    found = profile_target(name, 1)
    assert found.profile == name
    assert "1.31.1" in found.calibration
    assert profile_target(name, 2).calibration is None  # of other threads nobody knows
