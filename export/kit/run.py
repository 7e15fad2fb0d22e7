"""The kit, `python run.py JOB.json LOG.json`: does one job on a device and writes down what happened.

It needs Python 3.8, numpy and the runtime, nothing of edgekd. The log is written whole or not at all.
Exit codes: 0 done · 1 failed, the log's `error` says why · 2 wrong usage · 3 the runtime is not installed.
"""

import hashlib
import importlib
import json
import os
import signal
import sys
import time

import whole

PARENT = "EDGEKD_KIT_PARENT"
STARTED = "EDGEKD_KIT_STARTED"


class JobError(Exception):
    """The job cannot be done; the message is for people."""


class MissingError(JobError):
    """The runtime or numpy is not installed."""


def main(arguments):
    """Do the job of a file, write its log, return the exit code."""
    if len(arguments) != 2:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    log = {"schema": 1, "mode": "unknown", "runtime": "unknown"}
    code = 0
    try:
        die_with_parent()
        job = read_job(arguments[0])
        log.update(mode=job["mode"], runtime=job["runtime"])
        log.update(MODES[job["mode"]](job))
    except MissingError as error:
        log["error"], code = str(error), 3
    except JobError as error:
        log["error"], code = str(error), 1
    except Exception as error:  # runtimes raise classes of their own, and each must reach the log
        log["error"], code = "%s: %s" % (type(error).__name__, error), 1
    log["facts"] = importlib.import_module("facts").read_facts(log["runtime"])
    whole.write_whole(arguments[1], json.dumps(log).encode())
    return code


def read_job(path):
    """The job; the host has validated it, so that only its form is looked at."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    if not isinstance(job, dict) or job.get("schema") != 1:
        raise JobError("%s: this kit takes jobs with schema = 1" % path)
    if job.get("mode") not in MODES:
        raise JobError("%s: mode is none of %s" % (path, ", ".join(MODES)))
    return job


def do_facts(job):
    """Nothing but the facts, which every log has. Needs neither numpy nor the runtime."""
    return {}


def do_latency(job):
    """Load every graph, warm each up, then let them take turns."""
    timing, environment, memory = map(importlib.import_module, ("timing", "environment", "memory"))
    adapter = load_adapter(job)
    feeds = read_feeds(job)
    held = memory.begin()
    loaded = [load(adapter, job, graph, feeds[0]) for graph in job["graphs"]]
    observer = environment.Observer()
    contenders = [(session.run, prepare(session, feeds)) for session, _ in loaded]
    for contender, (_, log) in zip(contenders, loaded):
        warmup = timing.warm_up(*contender, job["warmup_s"], job["max_warmup_s"])
        log["warmup_ns"], log["warmup_converged"] = warmup
    limits = [job[name] for name in ("min_samples", "min_time_s", "block_samples", "seed", "max_samples")]
    observer.timing_begins()
    taken = timing.take_turns(contenders, *limits)
    observed = observer.end(len(loaded))
    for (_, log), turns in zip(loaded, taken):
        log["latency_ns"], log["block_of_sample"] = turns
    for (session, log), (_, prepared) in zip(loaded, contenders):
        log["scope_ns"] = time_scopes(session, prepared, job["scope_samples"])
    return dict(observed, graphs=[log for _, log in loaded], memory=memory.end(held))


def do_sustained(job):
    """One graph back to back for as long as the job says, after its warm-up."""
    limits = (job["duration_s"], job["max_kept"])
    return do_long(job, lambda timing, run, feeds: timing.sustain(run, feeds, *limits))


def do_paced(job):
    """One graph at a fixed rate, as a camera would ask, idle in between."""
    limits = (job["duration_s"], job["rate_hz"], job["max_kept"])
    return do_long(job, lambda timing, run, feeds: timing.pace(run, feeds, *limits))


def do_long(job, measure):
    """Load and warm one graph up, then do a long measurement of it."""
    timing, environment, memory = map(importlib.import_module, ("timing", "environment", "memory"))
    adapter, graph = load_adapter(job), only_graph(job)
    feeds = read_feeds(job)
    held = memory.begin()
    session, log = load(adapter, job, graph, feeds[0])
    observer = environment.Observer()
    prepared = prepare(session, feeds)
    warmup = timing.warm_up(session.run, prepared, job["warmup_s"], job["max_warmup_s"])
    log["warmup_ns"], log["warmup_converged"] = warmup
    observer.timing_begins()
    log.update(measure(timing, session.run, prepared))
    return dict(observer.end(1), graphs=[log], memory=memory.end(held))


def time_scopes(session, feeds, count):
    """Samples of the scopes inside an inference that the runtime can time itself; {} for most."""
    measure = getattr(session, "time_scopes", None)
    scopes = {}
    for index in range(count if measure else 0):
        for name, taken_ns in measure(feeds[index % len(feeds)]).items():
            scopes.setdefault(name, []).append(taken_ns)
    return scopes


def do_cold(job):
    """Import, load and first inference of one graph, from the start of the program.

    The program starts itself anew, with the time in its environment: that counts the interpreter's own start,
    on any transport, where the kernel's start time of a process has steps of 10 ms.
    """
    started = start_of_program()
    before = time.perf_counter_ns()
    adapter = load_adapter(job)
    import_ns = time.perf_counter_ns() - before
    memory = importlib.import_module("memory")
    held = memory.begin()
    aside_ns = time.perf_counter_ns() - before - import_ns
    log = load(adapter, job, only_graph(job), read_feeds(job, most=1)[0])[1]
    process_ns = time.perf_counter_ns() - started - aside_ns
    return {"graphs": [log], "import_ns": import_ns, "process_ns": process_ns, "memory": memory.end(held)}


def do_outputs(job):
    """The logits of every input, in batches."""
    adapter = load_adapter(job)
    np = importlib.import_module("numpy")
    graph, feeds = only_graph(job), read_feeds(job, partial=True)
    session, log = load(adapter, job, graph, feeds[0])
    logits_NK = np.concatenate([np.array(session.run(feed)[0]) for feed in prepare(session, feeds)])
    count = sum(map(len, feeds))
    if len(logits_NK) != count:
        raise JobError("%s: %d inputs gave %d outputs" % (graph["path"], count, len(logits_NK)))
    return {"graphs": [log], "outputs_sha256": save(job["outputs"], logits_NK)}


MODES = {
    "latency": do_latency,
    "cold": do_cold,
    "outputs": do_outputs,
    "sustained": do_sustained,
    "paced": do_paced,
    "facts": do_facts,
}


def load_adapter(job):
    """The module of the job's runtime; importing it imports the runtime and numpy."""
    runtime, runtimes = job["runtime"], importlib.import_module("runtimes")
    name = runtimes.by_name(runtimes.ADAPTERS, runtime)
    if name is None:
        raise JobError("runtime is none of %s: %s" % (", ".join(runtimes.ADAPTERS), runtime))
    install = runtimes.by_name(runtimes.INSTALL, runtime)
    try:
        adapter = importlib.import_module("runtimes." + name)
    except ImportError as error:
        where = "%s cannot be imported by %s: %s" % (runtime, sys.executable, error)
        raise MissingError("%s; try: %s" % (where, install)) from error
    missing = adapter.missing(runtime) if hasattr(adapter, "missing") else None
    if missing:
        raise MissingError("%s: %s" % (runtime, missing))
    return adapter


def read_feeds(job, **limits):
    """The feeds of a job, see feeds.py, which imports numpy."""
    try:
        return importlib.import_module("feeds").read_feeds(job, **limits)
    except importlib.import_module("runtimes").RefusedError as error:
        raise JobError(str(error)) from error


def only_graph(job):
    """The one graph of a job that takes one."""
    if len(job["graphs"]) != 1:
        raise JobError("the mode %s takes one graph, found %d" % (job["mode"], len(job["graphs"])))
    return job["graphs"][0]


def load(adapter, job, graph, feed):
    """Load a graph and run it once, on the first feed: its session and its log."""
    start = time.perf_counter_ns()
    try:
        session = adapter.Session(graph["path"], job)
        load_ns = time.perf_counter_ns() - start
        prepared = session.prepare(feed)
    except importlib.import_module("runtimes").RefusedError as error:
        raise JobError(str(error)) from error
    start = time.perf_counter_ns()
    session.run(prepared)
    log = {"name": graph["name"], "first_ns": time.perf_counter_ns() - start, "load_ns": load_ns}
    log["note"] = getattr(session, "note", None)
    if session.build_ns is not None:
        log.update(build_ns=session.build_ns, load_ns=load_ns - session.build_ns)
    return session, log


def prepare(session, feeds):
    """What the session takes for each feed, made before any of them is timed."""
    return [session.prepare(feed) for feed in feeds]


def start_of_program():
    """The clock when this program was started; without the mark of that moment, sets it and starts anew."""
    process, _, started = os.environ.pop(STARTED, "").partition(":")
    if process == str(os.getpid()):
        return int(started)
    os.environ.pop(PARENT, None)  # the tie to the parent outlives the new start
    os.environ[STARTED] = "%d:%d" % (os.getpid(), time.perf_counter_ns())
    return os.execv(sys.executable, [sys.executable, "-B", os.path.abspath(__file__)] + sys.argv[1:])


def die_with_parent():
    """On Linux, end when the process ends that the environment names: no measurement outlives its host."""
    parent = os.environ.get(PARENT)
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        raise JobError("the process that gave this job is gone")


def save(path, logits_NK):
    """Save as .npy, whole or not at all; returns the file's sha256."""
    import io

    file = io.BytesIO()
    importlib.import_module("numpy").save(file, logits_NK, allow_pickle=False)
    whole.write_whole(path, file.getvalue())
    return hashlib.sha256(file.getvalue()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
