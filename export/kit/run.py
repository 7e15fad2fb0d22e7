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
import tempfile
import time

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
    write_whole(arguments[1], json.dumps(log).encode())
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
    timing, facts = importlib.import_module("timing"), importlib.import_module("facts")
    adapter = load_adapter(job)
    x_NX, size = read_inputs(job), job["batch_size"]
    if len(x_NX) < size:
        raise JobError("%s: holds %d inputs, the batch takes %d" % (job["inputs"], len(x_NX), size))
    x_NX = x_NX[: len(x_NX) // size * size]
    loaded = [load(adapter, job, graph, x_NX) for graph in job["graphs"]]
    before = facts.snapshot()
    contenders = [(session.run, prepare(session, x_NX, size)) for session, _ in loaded]
    for contender, (_, log) in zip(contenders, loaded):
        warmup = timing.warm_up(*contender, job["warmup_s"], job["max_warmup_s"])
        log["warmup_ns"], log["warmup_converged"] = warmup
    limits = (job["min_samples"], job["min_time_s"], job["block_samples"], job["seed"])
    for (_, log), turns in zip(loaded, timing.take_turns(contenders, *limits)):
        log["latency_ns"], log["block_of_sample"] = turns
    conditions = facts.conditions(before, facts.snapshot())
    for (session, log), (_, feeds) in zip(loaded, contenders):
        log["scope_ns"] = time_scopes(session, feeds, job["scope_samples"])
    return {"conditions": conditions, "graphs": [log for _, log in loaded]}


def do_sustained(job):
    """One graph back to back for as long as the job says, after its warm-up."""
    limits = (job["duration_s"], job["max_kept"])
    return do_long(job, lambda timing, run, feeds: timing.sustain(run, feeds, *limits))


def do_paced(job):
    """One graph at a fixed rate, as a camera would ask, idle in between."""
    limits = (job["duration_s"], job["rate_hz"])
    return do_long(job, lambda timing, run, feeds: timing.pace(run, feeds, *limits))


def do_long(job, measure):
    """Load and warm one graph up, then do a long measurement of it."""
    timing, facts = importlib.import_module("timing"), importlib.import_module("facts")
    adapter, graph = load_adapter(job), only_graph(job)
    x_NX = read_inputs(job)
    x_NX = x_NX[: len(x_NX) // job["batch_size"] * job["batch_size"]]
    session, log = load(adapter, job, graph, x_NX)
    feeds = prepare(session, x_NX, job["batch_size"])
    warmup = timing.warm_up(session.run, feeds, job["warmup_s"], job["max_warmup_s"])
    log["warmup_ns"], log["warmup_converged"] = warmup
    before = facts.snapshot()
    log.update(measure(timing, session.run, feeds))
    return {"conditions": facts.conditions(before, facts.snapshot()), "graphs": [log]}


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
    log = load(adapter, job, only_graph(job), read_inputs(job, most=job["batch_size"]))[1]
    process_ns = time.perf_counter_ns() - started
    return {"graphs": [log], "import_ns": import_ns, "process_ns": process_ns}


def do_outputs(job):
    """The logits of every input, in batches."""
    adapter = load_adapter(job)
    np = importlib.import_module("numpy")
    graph, x_NX = only_graph(job), read_inputs(job)
    session, log = load(adapter, job, graph, x_NX)
    feeds = prepare(session, x_NX, job["batch_size"])
    logits_NK = np.concatenate([np.array(session.run(feed)[0]) for feed in feeds])
    if len(logits_NK) != len(x_NX):
        raise JobError("%s: %d inputs gave %d outputs" % (graph["path"], len(x_NX), len(logits_NK)))
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
    try:
        return importlib.import_module("runtimes." + name)
    except ImportError as error:
        where = "%s cannot be imported by %s: %s" % (runtime, sys.executable, error)
        install = runtimes.by_name(runtimes.INSTALL, runtime)
        raise MissingError("%s; try: %s" % (where, install)) from error


def read_inputs(job, most=None):
    """The inputs, batch first; the first `most` of them."""
    np = importlib.import_module("numpy")
    if not job.get("inputs"):
        raise JobError("the mode %s needs inputs" % job["mode"])
    x_NX = np.load(job["inputs"], mmap_mode="r", allow_pickle=False)
    if x_NX.ndim < 1 or len(x_NX) == 0:
        raise JobError("%s: holds no inputs" % job["inputs"])
    return np.ascontiguousarray(x_NX[:most])


def only_graph(job):
    """The one graph of a job that takes one."""
    if len(job["graphs"]) != 1:
        raise JobError("the mode %s takes one graph, found %d" % (job["mode"], len(job["graphs"])))
    return job["graphs"][0]


def load(adapter, job, graph, x_NX):
    """Load a graph and run it once, on the first batch: its session and its log."""
    start = time.perf_counter_ns()
    session = adapter.Session(graph["path"], job)
    load_ns = time.perf_counter_ns() - start
    feed = session.prepare(x_NX[: job["batch_size"]])
    start = time.perf_counter_ns()
    session.run(feed)
    log = {"name": graph["name"], "first_ns": time.perf_counter_ns() - start, "load_ns": load_ns}
    if session.build_ns is not None:
        log.update(build_ns=session.build_ns, load_ns=load_ns - session.build_ns)
    return session, log


def prepare(session, x_NX, size):
    """What the session takes for each batch, made before any of them is timed."""
    return [session.prepare(x_NX[first : first + size]) for first in range(0, len(x_NX), size)]


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
    write_whole(path, file.getvalue())
    return hashlib.sha256(file.getvalue()).hexdigest()


def write_whole(path, data):
    """Write beside the path, flush, then move onto it."""
    folder, name = os.path.split(os.path.abspath(path))
    handle, part = tempfile.mkstemp(prefix="." + name, suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
