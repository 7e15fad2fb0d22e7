"""The timing loop, with calls that take no time and a clock that the test winds."""

import gc
import statistics

import pytest


class Clock:
    """A clock that moves only when told."""

    def __init__(self):
        self.now_ns = 0

    def __call__(self):
        return self.now_ns


@pytest.fixture
def clock(timing, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter_ns", clock)
    return clock


def taking(clock, *durations_ns):
    """A run that takes these durations in turn, the last one for ever, and notes its inputs."""
    left = list(durations_ns)

    def run(feed):
        run.seen.append(feed)
        clock.now_ns += left.pop(0) if len(left) > 1 else left[0]

    run.seen = []
    return run


def test_a_block_times_each_call_and_cycles_the_inputs(timing, clock):
    run = taking(clock, 5, 7, 9)
    assert timing.time_block(run, ["a", "b"], 1, 3) == [5, 7, 9]
    assert run.seen == ["b", "a", "b"]


def test_the_loop_adds_less_than_a_microsecond(timing):
    taken = timing.time_block(lambda feed: None, [None], 0, 2000)
    assert statistics.median(taken) <= 1000


def test_warm_up_ends_when_five_windows_agree(timing, clock):
    slow_start = [2_000_000] * 20 + [1_000_000]
    spent_ns, converged = timing.warm_up(taking(clock, *slow_start), [None], 0.0, 10.0)
    assert converged is True
    assert spent_ns == 20 * 2_000_000 + 5 * 20 * 1_000_000  # the slow window, then five that agree


def test_warm_up_takes_its_least_time_even_when_steady(timing, clock):
    spent_ns, converged = timing.warm_up(taking(clock, 1_000_000), [None], 0.5, 10.0)
    assert converged is True
    assert spent_ns == 500_000_000


def test_warm_up_gives_up_at_its_most_time(timing, clock):
    growing = [1_000_000 * 1.001**step for step in range(5000)]
    spent_ns, converged = timing.warm_up(taking(clock, *growing), [None], 0.1, 0.5)
    assert converged is False
    assert 0.5e9 <= spent_ns < 0.6e9


def test_a_slow_graph_has_smaller_windows(timing, clock):
    spent_ns, converged = timing.warm_up(taking(clock, 400_000_000), [None], 0.3, 10.0)
    assert converged is True
    assert spent_ns == 5 * 3 * 400_000_000  # three inferences fill a tenth of ten seconds


@pytest.mark.parametrize(
    ("medians", "agree"),
    [
        ([100, 101, 100, 102, 100], True),
        ([100, 101, 100, 102.1, 100], False),
        ([100, 100, 100, 100], False),
    ],
)
def test_agreement(timing, medians, agree):
    assert timing.agree(medians) is agree


def test_turns_go_on_until_each_graph_has_samples_and_time(timing, clock):
    fast, slow = taking(clock, 1_000_000), taking(clock, 10_000_000)
    turns = timing.take_turns([(fast, ["f"]), (slow, ["s"])], 40, 0.1, 20, 3, 10**6)
    (fast_ns, fast_rounds), (slow_ns, slow_rounds) = turns
    assert fast_ns == [1_000_000] * 100  # 0.1 s of it
    assert slow_ns == [10_000_000] * 40  # 40 samples of it; then it has left the turns
    assert fast_rounds == [turn for turn in range(5) for _ in range(20)]
    assert slow_rounds == [0] * 20 + [1] * 20
    assert len(fast.seen) == 100 + 5  # one inference that is not timed before each block


def test_the_order_of_turns_is_random_and_seeded(timing, clock):
    def order(seed):
        seen = []
        contenders = [(lambda feed, name=name: seen.append(name), [None]) for name in "abc"]
        timing.take_turns(contenders, 20, 0.0, 1, seed, 10**6)
        return "".join(seen)[::2]

    assert order(1) == order(1)
    assert order(1) != order(2)
    firsts = [turn[0] for turn in (order(1)[index : index + 3] for index in range(0, 60, 3))]
    assert set(firsts) == set("abc")


def test_a_graph_that_is_too_fast_for_its_time_leaves_with_the_most_samples(timing):
    ((samples, rounds),) = timing.take_turns([(lambda feed: None, [None])], 1, 60.0, 10, 0, 100)
    assert len(samples) == len(rounds) == 100


def test_no_garbage_is_collected_in_a_block(timing):
    states = []
    timing.take_turns([(lambda feed: states.append(gc.isenabled()), [None])], 5, 0.0, 5, 0, 10**6)
    assert set(states) == {False}
    assert gc.isenabled()


def test_garbage_collection_comes_back_after_an_error(timing):
    def fail(feed):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        timing.take_turns([(fail, [None])], 5, 0.0, 5, 0, 10**6)
    assert gc.isenabled()


def test_a_sustained_run_times_every_inference_until_time_is_up(timing, clock):
    run = taking(clock, 3_000_000, 2_000_000)
    found = timing.sustain(run, ["a", "b"], 0.01, 1000)
    assert found == {
        "at_ns": [0, 3_000_000, 5_000_000, 7_000_000, 9_000_000],
        "latency_ns": [3_000_000, 2_000_000, 2_000_000, 2_000_000, 2_000_000],
        "inferences": 5,
    }
    assert run.seen == ["a", "b", "a", "b", "a"]
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("count", "kept", "step"), [(99, 99, 1), (100, 50, 2), (1000, 63, 16), (10_000, 79, 128)]
)
def test_a_sustained_run_keeps_every_kth_sample_in_bounded_memory(timing, clock, count, kept, step):
    durations = [1_000_000 + number for number in range(count)]
    duration_s = sum(durations[:-1]) / 1e9 + 1e-9
    found = timing.sustain(taking(clock, *durations), [None], duration_s, 100)
    assert found["inferences"] == count
    assert found["latency_ns"] == durations[::step]
    assert len(found["latency_ns"]) == kept
    assert found["at_ns"] == [sum(durations[:number]) for number in range(0, count, step)]


@pytest.fixture
def sleeping(timing, clock, monkeypatch):
    """Sleeps wind the clock; the list takes them."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        clock.now_ns += round(seconds * 1e9)

    monkeypatch.setattr(timing.time, "sleep", sleep)
    return slept


def test_a_paced_run_waits_for_each_turn(timing, clock, sleeping):
    run = taking(clock, 4_000_000)
    found = timing.pace(run, ["a", "b"], 0.05, 100, 1000)
    assert found == {
        "at_ns": [0, 10_000_000, 20_000_000, 30_000_000, 40_000_000],
        "latency_ns": [4_000_000] * 5,
        "inferences": 5,
        "late": 0,
    }
    assert sleeping == [pytest.approx(0.006)] * 4
    assert run.seen == ["a", "b", "a", "b", "a"]


def test_a_paced_run_counts_what_began_as_the_next_was_due(timing, clock, sleeping):
    """The first takes 25 ms: the second, due at 10, begins at 25, and the third, due at 20, at 29."""
    found = timing.pace(taking(clock, 25_000_000, 4_000_000), [None], 0.05, 100, 1000)
    assert found["at_ns"] == [0, 25_000_000, 29_000_000, 33_000_000, 40_000_000]
    assert found["late"] == 1  # the third began in its own turn, if late in it
    assert found["inferences"] == 5


def test_a_paced_run_ends_in_time_though_the_graph_cannot_keep_up(timing, clock, sleeping):
    found = timing.pace(taking(clock, 30_000_000), [None], 0.1, 100, 1000)
    assert found["at_ns"] == [0, 30_000_000, 60_000_000, 90_000_000]
    assert (found["inferences"], found["late"]) == (4, 3)
    assert sleeping == []


def test_a_paced_run_makes_one_inference_at_least(timing, clock, sleeping):
    assert timing.pace(taking(clock, 9_000_000_000), [None], 1.0, 0.1, 1000)["inferences"] == 1


def test_a_paced_run_keeps_bounded_memory(timing, clock, sleeping):
    found = timing.pace(taking(clock, 1000), [None], 1.0, 1000, 100)
    assert found["at_ns"] == [number * 1_000_000 for number in range(0, 1000, 16)]
    assert found["inferences"] == 1000
