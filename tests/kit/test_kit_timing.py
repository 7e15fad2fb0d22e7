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
    turns = timing.take_turns([(fast, ["f"]), (slow, ["s"])], 40, 0.1, 20, seed=3)
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
        timing.take_turns(contenders, 20, 0.0, 1, seed)
        return "".join(seen)[::2]

    assert order(1) == order(1)
    assert order(1) != order(2)
    firsts = [turn[0] for turn in (order(1)[index : index + 3] for index in range(0, 60, 3))]
    assert set(firsts) == set("abc")


def test_no_garbage_is_collected_in_a_block(timing):
    states = []
    timing.take_turns([(lambda feed: states.append(gc.isenabled()), [None])], 5, 0.0, 5, 0)
    assert set(states) == {False}
    assert gc.isenabled()


def test_garbage_collection_comes_back_after_an_error(timing):
    def fail(feed):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        timing.take_turns([(fail, [None])], 5, 0.0, 5, 0)
    assert gc.isenabled()
