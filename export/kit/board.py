"""What the host asks of a board: keep files, hold the lock, run a job, hand its results over.

The host sends this text with each request over ssh or adb, so that nothing needs to be installed for it but
python3 >= 3.8. A request is one line of JSON, with the bytes of files after it; the reply is a line that
starts with the mark that the request gives, then JSON, then bytes. Every request may be sent twice: a
connection that drops in the middle is made anew, and the same request goes on from what is there.

On the board, under ~/.cache/edgekd: store/ (files by sha256), jobs/ (one folder each), engines/, lock.json.
A job runs under a supervisor of its own session, which outlives the connection. The supervisor ends the job
when its time is up, and when no host has asked for it for a while.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

SOURCE = globals().get("SOURCE", b"")
CHUNK = 1 << 20
STORE_DAYS = 30
SHARED = "/data/local/tmp" if os.path.isdir("/data/local/tmp") else "/tmp"
BUSY = os.environ.get("EDGEKD_BUSY") or os.path.join(SHARED, "edgekd-busy")
"""Held by whoever measures over ssh or adb, of whatever user; tests that run side by side have their own."""
MARK = ".edgekd"
"""File that marks a folder as edgekd's."""
SAID_BYTES = 2000
PARTS = ("store", "jobs", "engines")
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the disk takes no file of that size",
}


class BoardError(Exception):
    """A request cannot be met; the message is for people, `kind` for the host."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def main(source, sink):
    """Read one request, do it, write the reply."""
    request = json.loads(source.readline().decode())
    body = b""
    try:
        root = find_root(request.get("folder"))
        reply, body = REQUESTS[request["op"]](root, request, source)
    except BoardError as error:
        reply = {"error": str(error), "kind": error.kind}
    except OSError as error:
        what = FULL.get(error.errno, error.strerror)
        message = "%s: %s" % (error.filename, what) if error.filename else what
        reply = {"error": message, "kind": "full" if error.errno in FULL else "system"}
    head = json.dumps(dict(reply, size=len(body))).encode()
    sink.write(b"\n%s %d\n" % (request["mark"].encode(), len(head)) + head + body)
    sink.flush()


def find_root(folder):
    """The first folder that can be written: the one asked for, or one in the caches of the user."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    usual = [os.path.join(cache, "edgekd"), "/data/local/tmp/edgekd", "/tmp/edgekd-%d" % os.getuid()]
    wanted = [folder] if folder else usual
    problem = None
    for path in (os.path.abspath(os.path.expanduser(path)) for path in wanted):
        try:
            if os.path.islink(path) and not folder:  # in a folder that others can write to
                raise OSError(errno.ELOOP, "is a link", path)
            claim(path)
            for part in PARTS:
                os.makedirs(os.path.join(path, part), mode=0o700, exist_ok=True)
        except OSError as error:
            problem = problem or error
            continue
        if os.stat(path).st_uid == os.getuid() and os.access(path, os.W_OK):
            return path
    raise BoardError("folder", "no folder can be written: %s" % (problem or ", ".join(wanted)))


def claim(path):
    """Mark a folder as edgekd's, unless it holds what may be somebody's: jobs/ and the like are emptied."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    mark = os.path.join(path, MARK)
    if not os.path.exists(mark):
        for part in PARTS:
            if os.path.lexists(os.path.join(path, part)):
                raise OSError(errno.EEXIST, "is there already and not edgekd's", os.path.join(path, part))
        open(mark, "w").close()


def do_put(root, request, source):
    """Take files into the store, each whole and with its digest or not at all."""
    for file in request["files"]:
        path = kept_path(root, file["sha256"])
        part, digest, left = "%s.%d.part" % (path, os.getpid()), hashlib.sha256(), file["size"]
        try:
            with open(part, "wb") as sink:
                while left:
                    data = source.read(min(CHUNK, left))
                    if not data:
                        raise BoardError("cut", "the connection ended in the middle of a file")
                    digest.update(data)
                    sink.write(data)
                    left -= len(data)
                sink.flush()
                os.fsync(sink.fileno())
            if digest.hexdigest() != file["sha256"]:
                raise BoardError("cut", "a file came altered")
            os.replace(part, path)
        finally:
            if os.path.exists(part):
                os.unlink(part)
    return {}, b""


def do_start(root, request, source):
    """Take the lock, lay out a job's folder and start its supervisor.

    Replies who holds the lock where somebody else does, or which files are not here yet. A job that was
    started before is left alone; others of its session are over, and removed.
    """
    folder = job_folder(root, request["id"])
    with guard(root):
        other = take_lock(root, request)
        if other:
            return held_by(other), b""
        if os.path.exists(os.path.join(folder, "started.json")):
            return {"missing": []}, b""
        end_jobs(root)
        forget_old(root)
        missing = [digest for digest in set(request["files"].values()) if not is_kept(root, digest)]
        if not missing:
            lay_out(root, folder, request)
            touch_lease(folder)
            start_supervisor(folder)
            write_json(os.path.join(folder, "started.json"), {"boot": boot_id()})
    return {"missing": missing}, b""


def do_wait(root, request, source):
    """Wait some seconds for a job: running, lost with the reason, or done with exit code and files."""
    folder = job_folder(root, request["id"])
    reason = why_lost(folder)
    if reason:
        return {"state": "lost", "reason": reason}, b""
    touch_lease(folder)
    with guard(root):
        take_lock(root, request)  # it lasts from the host's last word on
    if runs_on(folder, request["seconds"]):
        return {"state": "running"}, b""
    done = read_json(os.path.join(folder, "done.json"))
    if not done:
        return {
            "state": "lost",
            "reason": why_lost(folder) or "its supervisor died: %s" % last_words(folder),
        }, b""
    files, body = contents(folder, request)
    return dict(done, state="done", files=files), body


def do_unlock(root, request, source):
    """Give the lock back and end what the session left; of any session, if so asked."""
    with guard(root):
        held = read_json(os.path.join(root, "lock.json"))
        if held and held["session"] != request["session"] and not request["any"]:
            return {"owner": None}, b""
        end_jobs(root)
        if held:
            os.unlink(os.path.join(root, "lock.json"))
    return {"owner": held["owner"] if held else None}, b""


def do_clean(root, request, source):
    """Remove all that edgekd keeps here, unless somebody measures."""
    with guard(root):
        held = read_json(os.path.join(root, "lock.json"))
        if held and is_current(held):
            return held_by(held), b""
        end_jobs(root)
        for part in PARTS:
            shutil.rmtree(os.path.join(root, part), ignore_errors=True)
        for name in ("lock.json", "guard", MARK):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(root, name))
    with contextlib.suppress(OSError):  # the folder that a user named may hold more than ours
        os.rmdir(root)
    return {"root": root}, b""


REQUESTS = {"put": do_put, "start": do_start, "wait": do_wait, "unlock": do_unlock, "clean": do_clean}


def take_lock(root, request):
    """Take the lock, or make it last longer; the lock of somebody else who holds it, else None."""
    path = os.path.join(root, "lock.json")
    held = read_json(path)
    if held and held["session"] != request["session"] and is_current(held):
        return held
    lock = {"session": request["session"], "owner": request["owner"], "boot": boot_id()}
    write_json(path, dict(lock, until=uptime() + request["lasts_s"]))
    return None


def held_by(lock):
    """The reply to a request that another session's lock refuses."""
    return {"held_by": lock["owner"], "left_s": lock["until"] - uptime()}


def contents(folder, request):
    """Names, sizes and digests of the files of a job that the host asks for, and their bytes."""
    files, body = [], b""
    for name in request["files"]:
        path = os.path.join(folder, safe_name(name))
        if not os.path.isfile(path):
            continue
        if os.path.getsize(path) > request["most"] and name != "output.txt":
            raise BoardError("large", "%s has more than %d bytes" % (name, request["most"]))
        data = end_of(path) if name == "output.txt" else read_bytes(path)
        files.append({"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        body += data
    return files, body


def lay_out(root, folder, request):
    """The job's folder: its files, linked or copied from the store, and job.json."""
    for name, digest in request["files"].items():
        path = os.path.join(folder, *[safe_name(part) for part in name.split("/")])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        link_or_copy(kept_path(root, digest), path)
    job = dict(request["job"], cache=os.path.join(root, "engines"))
    write_json(os.path.join(folder, "job.json"), job)
    limits = {name: request[name] for name in ("timeout_s", "lease_s", "environment")}
    write_json(os.path.join(folder, "limits.json"), dict(limits, python=find_python(request.get("python"))))
    with open(os.path.join(folder, "supervisor.py"), "wb") as file:
        file.write(SOURCE)


def link_or_copy(source, path):
    """The same file by another name: a large graph is not written again for each job."""
    try:
        os.link(source, path)
    except OSError:  # a file system without links
        shutil.copyfile(source, path)


def start_supervisor(folder):
    """Start supervise(folder) as a process that outlives this one and its connection."""
    command = [sys.executable, "-I", "-S", os.path.join(folder, "supervisor.py"), folder]
    with open(os.path.join(folder, "supervisor.txt"), "wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder, start_new_session=True
        )
    write_json(os.path.join(folder, "supervisor.json"), identity(process.pid))


def supervise(folder):
    """Run the kit when nobody else measures here, whatever their folder; then tell how it ended."""
    limits = read_json(os.path.join(folder, "limits.json"))
    busy = open_busy()
    begin, reason = time.monotonic(), None
    while reason is None and not holds(busy):
        time.sleep(0.05)
        reason = why_end(folder, limits, begin + limits["timeout_s"])
    if reason is None:
        ended = run_kit(folder, limits)
    else:
        ended = {"code": None, "ended": "busy" if reason == "time" else reason}
    write_json(os.path.join(folder, "done.json"), ended)


def run_kit(folder, limits):
    """Run the kit in a group of its own; end it when its time is up or no host asks for it any more."""
    environment = dict(os.environ, EDGEKD_KIT_PARENT=str(os.getpid()), **limits["environment"])
    command = [limits["python"], "-B", os.path.join(folder, "kit", "run.py"), "job.json", "log.json"]
    with open(os.path.join(folder, "output.txt"), "wb") as said:
        kit = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    write_json(os.path.join(folder, "kit.json"), identity(kit.pid))
    begin, reason = time.monotonic(), None
    while kit.poll() is None and reason is None:
        pause_since(begin)
        reason = why_end(folder, limits, begin + limits["timeout_s"])
    kill_group(kit.pid)
    code = kit.wait()
    return {"code": None if reason else code, "ended": reason}


def open_busy():
    """The file that whoever measures on this machine holds, of whatever user."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe that somebody put there blocks nobody
    try:
        return os.open(BUSY, flags)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another user was quicker
            made = os.open(BUSY, flags | os.O_CREAT | os.O_EXCL, 0o644)
            os.fchmod(made, 0o644)  # whatever the umask
            os.close(made)
        return os.open(BUSY, flags)


def holds(busy):
    """Whether the file is ours now."""
    try:
        fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def why_end(folder, limits, end):
    """Why a running job is to be ended now; None while it may go on."""
    if time.monotonic() >= end:
        return "time"
    lease = read_json(os.path.join(folder, "lease.json"))
    if not lease or uptime() - lease["at"] > limits["lease_s"]:
        return "host"
    return None


def why_lost(folder):
    """Why nothing more is to be had of a job; None where it runs or is done."""
    started = read_json(os.path.join(folder, "started.json"))
    if not started:
        return "another session ended it, or its folder was removed"
    return None if started["boot"] == boot_id() else "the board was started anew in the middle"


def runs_on(folder, seconds):
    """Wait for the end of a job's supervisor; whether it still runs after so many seconds."""
    process, begin = read_json(os.path.join(folder, "supervisor.json")), time.monotonic()
    while is_running(process):
        if time.monotonic() - begin >= seconds:
            return True
        pause_since(begin)
    return False


def pause_since(begin):
    """Sleep a twentieth of the time that has passed, so that waiting takes nothing from a measurement."""
    time.sleep(min(0.2, max(0.02, (time.monotonic() - begin) / 20)))


def last_words(folder):
    """The last line that a supervisor said."""
    lines = end_of(os.path.join(folder, "supervisor.txt")).decode("utf-8", "replace").split("\n")
    return ([line.strip() for line in lines if line.strip()] or ["it said nothing"])[-1]


def end_jobs(root):
    """End all jobs, by the ids of their own processes, and remove their folders.

    The kit comes first: it dies with its supervisor, and then its group could not be told from a stranger's.
    """
    for job in os.listdir(os.path.join(root, "jobs")):
        folder = os.path.join(root, "jobs", job)
        for name in ("kit.json", "supervisor.json"):
            end_process(read_json(os.path.join(folder, name)))
        shutil.rmtree(folder, ignore_errors=True)


def end_process(process, within_s=5.0):
    """End a process of `identity` with its group, if it still is there, and see it gone."""
    end = time.monotonic() + within_s
    while is_running(process) and time.monotonic() < end:
        kill_group(process["pid"])
        time.sleep(0.01)


def kill_group(pid):
    """End a process and its group, if it still is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def identity(pid):
    """A process id with the start of its process, so that a later process of that id is not taken for it."""
    return {"pid": pid, "start": start_of(pid), "boot": boot_id()}


def is_running(process):
    """Whether a process of `identity` is alive; one that has ended and waits for its parent is not."""
    if not process or process["boot"] != boot_id():
        return False
    if os.path.exists("/proc/self/stat"):
        return process["start"] is not None and start_of(process["pid"]) == process["start"]
    try:
        os.kill(process["pid"], 0)
    except OSError:  # none, or somebody else's
        return False
    return True


def start_of(pid):
    """The clock tick at which a process started; None where it is gone, a zombie, or not told."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])


def find_python(wanted):
    """The Python that runs the kit: the one asked for, or the one that runs this."""
    if not wanted:
        return sys.executable
    found = shutil.which(os.path.expanduser(wanted))
    if found is None:
        raise BoardError("python", "there is no program %s" % wanted)
    return os.path.abspath(found)


def touch_lease(folder):
    """Note that a host asks for the job; one that is ended in this moment needs none."""
    with contextlib.suppress(FileNotFoundError):
        write_json(os.path.join(folder, "lease.json"), {"at": uptime()})


def is_current(lock):
    """Whether a lock still holds: of this boot, and not past its end."""
    return lock["boot"] == boot_id() and uptime() < lock["until"]


def uptime():
    """Seconds since the boot, sleep included; no clock that anybody sets."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id():
    """A name of this boot; `unknown` where the kernel gives none."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


@contextlib.contextmanager
def guard(root):
    """Inside, no other request changes the lock or the jobs."""
    with open(os.path.join(root, "guard"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def forget_old(root):
    """Remove files of the store that no job has asked for in a month."""
    store = os.path.join(root, "store")
    for name in os.listdir(store):
        path = os.path.join(store, name)
        with contextlib.suppress(FileNotFoundError):  # a file that comes at this moment is moved to its name
            if time.time() - os.stat(path).st_mtime > STORE_DAYS * 86400:
                os.unlink(path)


def is_kept(root, digest):
    """Whether the store holds a file, whole; marks it as used."""
    path, found = kept_path(root, digest), hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for data in iter(lambda: file.read(CHUNK), b""):
                found.update(data)
    except FileNotFoundError:
        return False
    if found.hexdigest() != digest:
        os.unlink(path)
        return False
    os.utime(path)
    return True


def kept_path(root, digest):
    """Where the store keeps a file."""
    return os.path.join(root, "store", safe_name(digest))


def job_folder(root, job):
    """Where a job's files are."""
    return os.path.join(root, "jobs", safe_name(job))


def safe_name(name):
    """A name that stays in its folder."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise BoardError("name", "%r is no name of a file" % name)
    return name


def read_bytes(path):
    """The content of a file, b"" where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def end_of(path):
    """The last bytes of a file, b"" where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - SAID_BYTES))
            return file.read(SAID_BYTES)
    except FileNotFoundError:
        return b""


def read_json(path):
    """The object of a file, or None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def write_json(path, value):
    """Write beside the path, then move onto it."""
    part = "%s.%d.part" % (path, os.getpid())
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


if __name__ == "__main__":
    if len(sys.argv) == 2 and os.path.isdir(sys.argv[1]):
        supervise(sys.argv[1])
    else:
        main(sys.stdin.buffer, sys.stdout.buffer)
