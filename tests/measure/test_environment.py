"""The rules of the environment: what is invalid, what is flagged, and what stays unsaid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.documents.conditions import Conditions
from edgekd.documents.run_log import Energy, Facts, GraphLog, RunLog
from edgekd.measure.energy import inferences_of, joules_per_inference
from edgekd.measure.environment import judge
from edgekd.measure.noise import find_invalid, find_warnings

FACTS = Facts(
    machine="aarch64",
    system="Linux",
    cpu=None,
    isa=(),
    cores=4,
    memory_bytes=None,
    governor=None,
    versions={},
)
UNVERIFIED = (
    "environment: unverified: no clock, temperature, throttling or stolen time could be read; "
    "try: outside a container, or as a user who may read /sys"
)
COOLING = "better cooling, a stronger power supply, a lower power mode"


def moment(**changes) -> Conditions:
    """A quiet device with a readable environment, but for some changes."""
    quiet = {"load1": 0.1, "steal_fraction": 0.0, "seconds": 10.0}
    return Conditions.model_validate({**quiet, **changes})


def found(*moments: Conditions, facts: Facts = FACTS, **options) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in judge(facts, moments, **options)]


def clock(low: float, high: float = 1000.0) -> dict:
    return {"min_mhz": low, "median_mhz": (low + high) / 2, "max_mhz": high}


def gpu(**changes) -> Conditions:
    return moment(gpu={"name": "NVIDIA L4", **changes})


def jetson(**changes) -> Conditions:
    return moment(jetson={"power_mode_before": "25W", "power_mode_after": "25W", **changes})


def pi(before: int, during: int | None, after: int) -> Conditions:
    return moment(pi_bits={"before": before, "during": during, "after": after})


def test_a_quiet_device_has_no_finding():
    quiet = moment(
        governor_before="performance",
        governor_after="performance",
        cgroup_throttled_s=0.0,
        throttle_events=0,
        throttled=False,
        clock_jump_s=0.9,
        pi_bits={"before": 0x50000, "during": 0x50000, "after": 0x50000},
        jetson={
            "power_mode_before": "25W",
            "power_mode_after": "25W",
            "gpu_cap_mhz": 918.0,
            "gpu_clock": clock(872.2),
        },
        gpu={"name": "NVIDIA L4", "event_reasons": 0x1 | 0x2 | 0x10 | 0x100, "other_processes": 0},
    )
    assert (
        found(quiet, quiet, facts=FACTS.model_copy(update={"governor": "performance", "cgroup_cpus": 4.0}))
        == []
    )


@pytest.mark.parametrize(
    ("state", "level", "text"),
    [
        (
            gpu(event_reasons=0x8),
            "invalid",
            "the GPU's clocks were held down by hardware slowdown; try: better cooling and power",
        ),
        (
            gpu(event_reasons=0x61),
            "invalid",
            "the GPU's clocks were held down by thermal slowdown by software, thermal slowdown by hardware; "
            "try: better cooling and power",
        ),
        (
            gpu(event_reasons=0x80),
            "invalid",
            "the GPU's clocks were held down by the power brake; try: better cooling and power",
        ),
        (
            gpu(event_reasons=0x4),
            "flag",
            "the GPU's clocks were held down by its power limit; "
            "try: sudo nvidia-smi -lgc MHZ, at a clock that it can keep up",
        ),
        (
            gpu(other_processes=2),
            "flag",
            "2 other processes computed on the GPU; try: end them: nvidia-smi names them",
        ),
        (
            jetson(power_mode_after="MAXN_SUPER"),
            "invalid",
            "the power mode changed: 25W, MAXN_SUPER; try: sudo nvpmodel -m MODE, once, before",
        ),
        (
            jetson(alarms=["VDD_IN crit", "VDD_IN max"]),
            "invalid",
            f"current went over its limit: VDD_IN crit, VDD_IN max; try: {COOLING}",
        ),
        (
            jetson(gpu_clock=clock(581.0), gpu_cap_mhz=612.0),
            "flag",
            "the GPU's clock fell to 581 of 612 MHz; try: sudo jetson_clocks",
        ),
        (
            pi(0x0, None, 0x50000),
            "invalid",
            "the Raspberry Pi reported under-voltage, throttling; "
            "try: a stronger power supply and a shorter cable",
        ),
        (
            pi(0x80000, 0x80008, 0x80000),
            "invalid",
            "the Raspberry Pi reported the soft temperature limit; try: better cooling",
        ),
        (
            pi(0x20002, None, 0x20000),  # capped before the warm-up: it may not have been over at once
            "invalid",
            "the Raspberry Pi reported a capped clock; try: better cooling",
        ),
        (moment(throttled=True), "invalid", f"the device throttled itself; try: {COOLING}"),
        (
            moment(throttle_events=3),
            "invalid",
            "the processor slowed down for heat 3 times; try: better cooling, a pause before",
        ),
        (
            moment(governor_before="performance", governor_after="schedutil"),
            "flag",
            "the frequency governor changed between performance and schedutil; try: keep it at performance",
        ),
        (
            moment(steal_fraction=0.0051),
            "flag",
            "other virtual machines took up to 0.51 % of the processor time; "
            "try: a quieter or a dedicated host, or more processes",
        ),
        (
            moment(steal_fraction=0.201),
            "invalid",
            "other virtual machines took up to 20.10 % of the processor time; "
            "try: a quieter or a dedicated host, or more processes",
        ),
        (
            moment(cgroup_throttled_s=0.5),
            "flag",
            "the container's quota stopped the process for up to 5.00 % of the time; "
            "try: a larger quota, fewer threads, or pinned processors (cpuset)",
        ),
        (
            moment(cgroup_throttled_s=0.51),
            "invalid",
            "the container's quota stopped the process for up to 5.10 % of the time; "
            "try: a larger quota, fewer threads, or pinned processors (cpuset)",
        ),
        (
            moment(clock_jump_s=-3600.0),
            "flag",
            "the wall clock jumped by -3600.0 s, or the device slept; latencies are of another clock; "
            "try: set the clock first, and keep the device awake",
        ),
        (Conditions(load1=0.5, steal_fraction=None), "flag", UNVERIFIED),
    ],
)
def test_one_thing_that_happened(state, level, text):
    quiet = moment() if state.steal_fraction is not None else state
    expected = [(level, text)]
    assert found(state) == expected
    assert found(quiet, state, quiet) == expected  # in one process of several


def test_no_conditions_at_all_are_unverified():
    assert found() == [("flag", UNVERIFIED)]


@pytest.mark.parametrize(
    "changes",
    [
        {"steal_fraction": 0.0},
        {"pi_bits": {"before": 0, "after": 0}},
        {"temperature": {"zone": "x86_pkg_temp", "before_c": 50.0}},
        {"gpu": {"name": "NVIDIA L4"}},
        {"jetson": {"gpu_clock": clock(612.0)}},
    ],
)
def test_one_thing_that_was_read_verifies(changes):
    assert found(Conditions.model_validate({"load1": None, "steal_fraction": None, **changes})) == []


def test_a_jetson_that_told_nothing_is_unverified():
    silent = Conditions.model_validate({"load1": None, "steal_fraction": None, "jetson": {}})
    assert found(silent) == [("flag", UNVERIFIED)]


def test_governors_that_differ_from_process_to_process():
    first = moment(governor_before="performance", governor_after="performance")
    second = moment(governor_before="powersave", governor_after="powersave")
    (finding,) = found(first, second)
    assert finding[1].startswith("the frequency governor changed between performance and powersave; ")


def test_power_modes_that_differ_from_process_to_process():
    other = jetson(power_mode_before="15W", power_mode_after="15W")
    assert found(jetson(), other)[0][1].startswith("the power mode changed: 25W, 15W; ")


def test_clocks_against_the_operating_point():
    state = moment(clock=clock(1400.0, 1500.0), jetson={"gpu_clock": clock(600.0), "gpu_cap_mhz": 612.0})
    assert found(state) == []
    assert found(state, cpu_cap_mhz=1500.0, gpu_cap_mhz=918.0) == [
        ("flag", "the GPU's clock fell to 600 of 918 MHz; try: sudo jetson_clocks"),
        (
            "flag",
            "the processor's clock fell to 1400 of 1500 MHz; try: sudo cpupower frequency-set -g performance",
        ),
    ]
    discrete = gpu(sm_clock=clock(1500.0, 2040.0))
    assert found(discrete) == []
    (finding,) = found(discrete, gpu_cap_mhz=2040.0)
    assert finding[1] == "the GPU's clock fell to 1500 of 2040 MHz; try: sudo nvidia-smi -lgc MHZ"


def log(mode: str, *moments: Conditions) -> list[RunLog]:
    graph = GraphLog(name="g", load_ns=1, first_ns=1, latency_ns=(1000,) * 40)
    return [
        RunLog(mode=mode, runtime="onnxruntime", facts=FACTS, conditions=each, graphs=(graph,))
        for each in moments
    ]


def test_pauses_let_clocks_fall():
    slow = jetson(gpu_clock=clock(306.0), gpu_cap_mhz=612.0)
    assert find_warnings(log("paced", slow), threads=1) == ()
    assert find_warnings(log("sustained", slow), threads=1) == (
        "the GPU's clock fell to 306 of 612 MHz; try: sudo jetson_clocks",
    )


def test_what_is_invalid_is_among_the_warnings():
    logs = log("latency", moment(steal_fraction=0.3, clock_jump_s=5.0), pi(0, None, 0x10000))
    invalid = find_invalid(logs)
    assert [text.split(" ")[0] for text in invalid] == ["other", "the"]
    assert set(invalid) < set(find_warnings(logs, threads=1))
    assert find_invalid(log("latency", moment(), moment())) == ()


def states() -> st.SearchStrategy[Conditions]:
    """Conditions of any device, with anything unread."""
    maybe = st.none() | st.floats(0, 1e6)
    bits = st.integers(0, 0xFFFFF)
    clocks = st.none() | st.builds(clock, st.floats(1, 1000))
    names = st.none() | st.sampled_from(["performance", "powersave"])
    return st.fixed_dictionaries(
        {
            "load1": maybe,
            "steal_fraction": st.none() | st.floats(0, 1),
            "throttled": st.none() | st.booleans(),
            "seconds": maybe,
            "cgroup_throttled_s": maybe,
            "governor_before": names,
            "governor_after": names,
            "clock": clocks,
            "throttle_events": st.none() | st.integers(0, 5),
            "clock_jump_s": st.none() | st.floats(-1e6, 1e6),
            "pi_bits": st.none()
            | st.fixed_dictionaries({"before": bits, "during": st.none() | bits, "after": bits}),
            "jetson": st.none() | st.fixed_dictionaries({"gpu_clock": clocks, "gpu_cap_mhz": maybe}),
            "gpu": st.none()
            | st.fixed_dictionaries(
                {"name": st.just("x"), "event_reasons": st.none() | st.integers(0, 0x1FF)}
            ),
        }
    ).map(Conditions.model_validate)


@given(st.lists(states(), max_size=4), st.none() | st.floats(1, 1e4))
def test_every_state_is_judged_and_one_more_process_takes_nothing_back(moments, cap):
    levels = {"flag": 0, "invalid": 1}

    def worst(some):
        findings = judge(FACTS, some, cpu_cap_mhz=cap, gpu_cap_mhz=cap)
        assert all("; try: " in finding.text and "\n" not in finding.text for finding in findings)
        assert len({finding.text for finding in findings}) == len(findings)
        return max((levels[finding.level] for finding in findings if finding.text != UNVERIFIED), default=-1)

    assert worst(moments) >= worst(moments[:-1])


def test_energy_of_an_inference():
    def joules(mode, energy, **graph):
        graph = GraphLog(name="g", load_ns=1, first_ns=1, **graph)
        return joules_per_inference(
            RunLog(mode=mode, runtime="onnxruntime", facts=FACTS, graphs=(graph,), energy=energy)
        )

    read = Energy(joules=12.0, seconds=3.0, source="RAPL package-0")
    assert joules("sustained", read, latency_ns=(1, 2, 3), inferences=600) == 0.02
    # 40 timed inferences in two turns, each of which starts with one that is not timed.
    assert joules("latency", read, latency_ns=(1,) * 40, block_of_sample=(0,) * 20 + (3,) * 20) == 12 / 42
    assert joules("sustained", Energy(joules=None, reason="no energy counter"), inferences=600) is None
    assert joules("sustained", None, inferences=600) is None
    assert joules("latency", read) is None
    assert inferences_of(GraphLog(name="g", load_ns=1, first_ns=1)) == 0
