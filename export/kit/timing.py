"""The timing loop: warm-up to convergence, then blocks in which the graphs take turns in random order.

Only the runtime's own call lies between two readings of the clock. A graph leaves the turns once it has
enough samples and enough time, so that a fast graph does not make a slow one run for minutes. Each turn
starts with one inference that is not timed: it brings the graph back into the caches that the others used.
"""

import contextlib
import gc
import random
import statistics
import time

WINDOW_SAMPLES = 20
WINDOWS = 5
AGREEMENT = 0.02


def time_block(run, feeds, first, count):
    """Nanoseconds of `count` inferences, the inputs cycled from number `first` on."""
    clock = time.perf_counter_ns
    taken = [0] * count
    turns = [feeds[(first + index) % len(feeds)] for index in range(count)]
    for index, feed in enumerate(turns):
        start = clock()
        run(feed)
        taken[index] = clock() - start
    return taken


def warm_up(run, feeds, least_s, most_s):
    """Run until `least_s` has passed and the medians of the last windows agree, or until `most_s`.

    A window is 20 inferences, or as many as fit into a tenth of `most_s` where the graph is slow.
    Returns the nanoseconds spent and whether the medians agreed.
    """
    start = time.perf_counter_ns()
    medians = []
    done = 0
    while True:
        window = _window(run, feeds, done, most_s * 1e8)
        done += len(window)
        medians.append(statistics.median(window))
        spent = time.perf_counter_ns() - start
        if spent >= least_s * 1e9 and agree(medians[-WINDOWS:]):
            return spent, True
        if spent >= most_s * 1e9:
            return spent, False


def _window(run, feeds, first, most_ns):
    taken = []
    while len(taken) < WINDOW_SAMPLES and sum(taken) < most_ns:
        taken += time_block(run, feeds, first + len(taken), 1)
    return taken


def agree(medians):
    """Whether there are five medians and they lie within 2 % of their middle."""
    if len(medians) < WINDOWS:
        return False
    return max(medians) - min(medians) <= AGREEMENT * statistics.median(medians)


def take_turns(contenders, min_samples, min_time_s, block_samples, seed, max_samples):
    """Time every (run, feeds) of `contenders`, side by side.

    A graph leaves with `max_samples` too, however little time they took: a log must be read by somebody.
    Returns, for each, its samples in nanoseconds and the round in which each sample was taken; blocks of one
    round belong together.
    """
    chance = random.Random(seed)
    samples = [[] for _ in contenders]
    rounds = [[] for _ in contenders]
    spent_ns = [0] * len(contenders)
    waiting = list(range(len(contenders)))
    turn = 0
    with _without_gc():
        while waiting:
            chance.shuffle(waiting)
            for index in waiting:
                run, feeds = contenders[index]
                run(feeds[len(samples[index]) % len(feeds)])
                block = time_block(run, feeds, len(samples[index]), block_samples)
                samples[index] += block
                spent_ns[index] += sum(block)
                rounds[index] += [turn] * block_samples
            short = [i for i in waiting if len(samples[i]) < min_samples or spent_ns[i] < min_time_s * 1e9]
            waiting = [i for i in short if len(samples[i]) < max_samples]
            turn += 1
    return list(zip(samples, rounds))


def sustain(run, feeds, duration_s, max_kept):
    """Run back to back for `duration_s` and time every inference; `max_kept` samples at most are kept."""
    clock, kept, count = time.perf_counter_ns, _Kept(max_kept), 0
    with _without_gc():
        begin = now = clock()
        while now - begin < duration_s * 1e9:
            feed = feeds[count % len(feeds)]
            start = clock()
            run(feed)
            now = clock()
            kept.add(count, start - begin, now - start)
            count += 1
    return {"at_ns": kept.at_ns, "latency_ns": kept.taken_ns, "inferences": count}


def pace(run, feeds, duration_s, rate_hz, max_kept):
    """Run once every 1 / rate_hz seconds for `duration_s`; what starts as the next is due is late.

    A sample is from when the inference was due to its end, waiting for the one before included.

    A graph that cannot keep up makes fewer inferences: what has not begun when time is up is left out.
    """
    clock, period, kept = time.perf_counter_ns, 1e9 / rate_hz, _Kept(max_kept)
    count, late = 0, 0
    with _without_gc():
        begin = clock()
        while count < max(1, int(duration_s * rate_hz)):
            wait_ns = begin + count * period - clock()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            feed, start = feeds[count % len(feeds)], clock()
            if count and start - begin >= duration_s * 1e9:
                break
            run(feed)
            # From when the frame was there: one that waits for its turn is no faster for its user.
            kept.add(count, start - begin, int(clock() - min(start, begin + count * period)))
            late += start - begin >= (count + 1) * period
            count += 1
    return {"at_ns": kept.at_ns, "latency_ns": kept.taken_ns, "inferences": count, "late": late}


class _Kept:
    """Every k-th sample: k doubles, and every other one is let go, each time that there are too many."""

    def __init__(self, most):
        self.at_ns, self.taken_ns = [], []
        self._most, self._step = most, 1

    def add(self, number, at_ns, taken_ns):
        """Keep the sample of inference `number`, or not."""
        if number % self._step:
            return
        self.at_ns.append(at_ns)
        self.taken_ns.append(taken_ns)
        if len(self.at_ns) >= self._most:
            self.at_ns, self.taken_ns = self.at_ns[::2], self.taken_ns[::2]
            self._step *= 2


@contextlib.contextmanager
def _without_gc():
    """No garbage collection inside: a pause of the interpreter is no latency of the graph."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
