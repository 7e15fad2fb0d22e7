"""The program that answers on a board: its lock, its store, its jobs, and what it refuses."""

from __future__ import annotations

import ast
import errno
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgekd.devices.channel import LOADER
from edgekd.shipped import shipped

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not LINUX, reason="processes are looked up in /proc")

PROGRAM = shipped("export", "kit") / "board.py"
MARK = "edgekd-mark"
LOST = {"state": "lost", "reason": "another session ended it, or its folder was removed"}


@pytest.fixture
def board() -> ModuleType:
    """The program as a module of its own for each test, which may replace its clocks."""
    spec = importlib.util.spec_from_file_location("kit_board", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SOURCE = PROGRAM.read_bytes()
    return module


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A board's folder, whose jobs are ended after the test."""
    monkeypatch.setenv("EDGEKD_BUSY", str(tmp_path / "busy"))
    root = tmp_path / "a board"
    yield root
    for path in [*root.glob("jobs/*/kit.json"), *root.glob("jobs/*/supervisor.json")]:
        process = json.loads(path.read_text())
        if process["start"] is not None and _start_of(process["pid"]) == process["start"]:
            os.killpg(process["pid"], signal.SIGKILL)


def _start_of(process: int) -> int | None:
    """Clock ticks from the boot to the start of a process that runs."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])


def request_of(root: Path, op: str, body: bytes, request: dict[str, Any]) -> bytes:
    return json.dumps({"folder": str(root), "op": op, "mark": MARK, **request}).encode() + b"\n" + body


def reply_in(output: bytes) -> tuple[dict[str, Any], bytes]:
    _, found, rest = output.partition(f"\n{MARK} ".encode())
    assert found, output
    size, _, rest = rest.partition(b"\n")
    head = json.loads(rest[: int(size)])
    body = rest[int(size) :]
    assert len(body) == head.pop("size")
    return head, body


def ask(board: ModuleType, root: Path, op: str, body: bytes = b"", **request: Any) -> dict[str, Any]:
    """The answer of the module."""
    sink = io.BytesIO()
    board.main(io.BytesIO(request_of(root, op, body, request)), sink)
    return reply_in(sink.getvalue())[0]


def ask_program(root: Path, op: str, body: bytes = b"", **request: Any) -> tuple[dict[str, Any], bytes]:
    """The answer of the program as the host sends it."""
    program = PROGRAM.read_bytes()
    given = b"%d\n%s%s" % (len(program), program, request_of(root, op, body, request))
    command = [sys.executable, "-I", "-S", "-c", LOADER]
    return reply_in(subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True).stdout)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(board: ModuleType, root: Path, *contents: bytes) -> dict[str, Any]:
    files = [{"sha256": sha256(data), "size": len(data)} for data in contents]
    return ask(board, root, "put", b"".join(contents), files=files)


def start_of_job(
    session: str = "a", number: int = 1, does: bytes | None = None, **changes: Any
) -> dict[str, Any]:
    """A request for a job; without `does` its only file is one that the board lacks."""
    whole = {"id": f"{session}-{number}", "session": session, "owner": f"owner of {session}", "lasts_s": 100}
    files = {"kit/run.py": sha256(b"not there" if does is None else does)}
    limits = {"timeout_s": 60, "lease_s": 60, "environment": {}, "job": {"schema": 1}}
    return {**whole, "files": files, **limits, **changes}


def claim(job: str) -> dict[str, Any]:
    """What a request about a job says to keep the lock."""
    session = job.partition("-")[0]
    return {"session": session, "owner": f"owner of {session}", "lasts_s": 100}


def lock(board: ModuleType, root: Path, session: str, **changes: Any) -> dict[str, Any]:
    return ask(board, root, "start", **start_of_job(session, **changes))


def start(root: Path, **request: Any) -> dict[str, Any]:
    """Start a job by the program, so that nothing of it is a child of the tests."""
    return ask_program(root, "start", **request)[0]


def running_job(board: ModuleType, root: Path, session: str, **changes: Any) -> dict[str, Any]:
    """Start a job that sleeps; the process of its kit."""
    kit = b"import time; time.sleep(60)"
    assert put(board, root, kit) == {}
    assert start(root, **start_of_job(session, does=kit, **changes)) == {"missing": []}
    return read_when_there(root / "jobs" / f"{session}-1" / "kit.json")


def read_when_there(path: Path, within_s: float = 20) -> Any:
    end = time.monotonic() + within_s
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return json.loads(path.read_text())


def wait(board: ModuleType, root: Path, job: str, seconds: float = 20) -> dict[str, Any]:
    files = ["log.json", "output.txt"]
    return ask(board, root, "wait", **claim(job), id=job, seconds=seconds, files=files, most=1000)


def is_alive(process: dict[str, Any]) -> bool:
    return process["start"] is not None and _start_of(process["pid"]) == process["start"]


def test_it_is_python_of_3_8():
    ast.parse(PROGRAM.read_text(), feature_version=(3, 8))


def test_a_lock_has_an_owner_and_an_end(board, root, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(board, "uptime", lambda: now)
    assert lock(board, root, "a") == {"missing": [sha256(b"not there")]}
    now = 1040.0
    assert lock(board, root, "b") == {"held_by": "owner of a", "left_s": 60.0}
    assert lock(board, root, "a", lasts_s=70) == {"missing": [sha256(b"not there")]}
    now = 1109.9
    assert lock(board, root, "b")["held_by"] == "owner of a"
    now = 1110.0
    assert lock(board, root, "b") == {"missing": [sha256(b"not there")]}
    assert lock(board, root, "a")["held_by"] == "owner of b"


def test_a_lock_of_another_boot_is_stale(board, root, monkeypatch):
    lock(board, root, "a")
    monkeypatch.setattr(board, "boot_id", lambda: "another boot")
    assert "held_by" not in lock(board, root, "b")


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_wall_clock_that_jumps_changes_nothing(board, root, monkeypatch, jump_s):
    kit = b"import time; time.sleep(0.3)"
    put(board, root, kit)
    assert start(root, **start_of_job("a", does=kit)) == {"missing": []}
    clock = SimpleNamespace(**{**vars(time), "time": lambda: time.time() + jump_s})
    monkeypatch.setattr(board, "time", clock)
    assert lock(board, root, "b")["held_by"] == "owner of a"
    assert wait(board, root, "a-1")["code"] == 0


def test_files_that_nobody_asked_for_in_a_month_are_forgotten(board, root):
    put(board, root, b"new", b"old")
    long_ago = time.time() - 31 * 86400
    os.utime(root / "store" / sha256(b"old"), (long_ago, long_ago))
    lock(board, root, "a")
    assert [path.read_bytes() for path in (root / "store").iterdir()] == [b"new"]


SLOW = f"""
import sys, time
board = dict(__name__="board")
exec(compile(open({str(PROGRAM)!r}).read(), "board.py", "exec"), board)
write = board["write_json"]
board["write_json"] = lambda *given: (time.sleep(0.5), write(*given))
board["main"](sys.stdin.buffer, sys.stdout.buffer)
"""
"""The program, slow between its look at the lock and taking it."""


def test_of_sessions_that_race_for_the_lock_one_gets_it(root):
    root.mkdir()
    requests = [request_of(root, "start", b"", start_of_job(f"s{number}")) for number in range(10)]
    processes = [
        subprocess.Popen([sys.executable, "-S", "-c", SLOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in requests
    ]
    for process, request in zip(processes, requests, strict=True):
        assert process.stdin is not None
        process.stdin.write(request)
        process.stdin.flush()
    replies = [reply_in(process.communicate(timeout=60)[0])[0] for process in processes]
    winners = [number for number, reply in enumerate(replies) if "missing" in reply]
    assert len(winners) == 1
    assert {reply.get("held_by") for reply in replies} == {None, f"owner of s{winners[0]}"}


def test_a_job_from_its_start_to_its_result(root):
    kit = (
        b"import sys, os\nprint('said', os.environ['X'])\n"
        b"open(sys.argv[2], 'w').write(open(sys.argv[1]).read())"
    )
    files = [{"sha256": sha256(kit), "size": len(kit)}]
    assert ask_program(root, "put", kit, files=files) == ({}, b"")
    job = start_of_job(does=kit, environment={"X": "5"}, job={"schema": 1, "cache": "somewhere"})
    assert ask_program(root, "start", **job) == ({"missing": []}, b"")
    assert ask_program(root, "start", **job) == ({"missing": []}, b"")
    head, body = ask_program(
        root,
        "wait",
        **claim("a-1"),
        id="a-1",
        seconds=20,
        files=["log.json", "none", "output.txt"],
        most=9999,
    )
    log = json.dumps({"schema": 1, "cache": str(root / "engines")}).encode()
    parts = [("log.json", log), ("output.txt", b"said 5\n")]
    assert body == log + b"said 5\n"
    left = [{"name": name, "size": len(data), "sha256": sha256(data)} for name, data in parts]
    assert head == {"state": "done", "code": 0, "ended": None, "files": left}
    assert ask_program(root, "unlock", session="a", any=False) == ({"owner": "owner of a"}, b"")
    assert list((root / "jobs").iterdir()) == []
    assert not (root / "lock.json").exists()


def test_a_job_that_runs_and_is_started_again_goes_on(board, root):
    process = running_job(board, root, "a")
    assert wait(board, root, "a-1", seconds=0) == {"state": "running"}
    running_job(board, root, "a")
    assert is_alive(process)


def test_another_job_of_the_session_ends_the_one_before(board, root):
    process = running_job(board, root, "a")
    lock(board, root, "a", number=2)
    assert not is_alive(process)
    assert wait(board, root, "a-1") == LOST


def test_a_job_whose_time_is_up(board, root):
    process = running_job(board, root, "a", timeout_s=0.3)
    assert wait(board, root, "a-1")["ended"] == "time"
    assert not is_alive(process)


def test_a_job_that_no_host_asks_for(board, root):
    process = running_job(board, root, "a", lease_s=0.3)
    end = time.monotonic() + 20
    while is_alive(process):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert read_when_there(root / "jobs" / "a-1" / "done.json") == {"code": None, "ended": "host"}


def test_when_the_lock_passes_on_the_job_of_the_lost_session_is_ended(board, root, monkeypatch):
    process = running_job(board, root, "a")
    real = board.uptime
    monkeypatch.setattr(board, "uptime", lambda: real() + 101)
    lock(board, root, "b")
    assert not is_alive(process)
    assert list((root / "jobs").iterdir()) == []
    monkeypatch.undo()
    assert wait(board, root, "a-1") == LOST


def test_the_children_of_a_kit_end_with_it(board, root):
    kit = (
        b"import ctypes, os, subprocess\nctypes.CDLL(None).prctl(1, 9)  # it dies with its supervisor\n"
        b"child = subprocess.Popen(['sleep', '60'])\n"
        b"open('part', 'w').write(str(child.pid))\nos.replace('part', 'child')\nchild.wait()"
    )
    put(board, root, kit)
    start(root, **start_of_job(does=kit))
    child = read_when_there(root / "jobs" / "a-1" / "child")
    begin = _start_of(child)
    assert begin is not None
    ask(board, root, "unlock", session="a", any=False)
    end = time.monotonic() + 5
    while _start_of(child) == begin:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("same", [True, False])
def test_a_process_of_a_reused_id_is_left_alone(board, root, same):
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        try:
            found = board.identity(stranger.pid)
            assert found == {"pid": stranger.pid, "start": _start_of(stranger.pid), "boot": board.boot_id()}
            noted = found if same else dict(found, start=found["start"] - 1)
            assert put(board, root) == {}
            (root / "jobs" / "a-1").mkdir()
            (root / "jobs" / "a-1" / "kit.json").write_text(json.dumps(noted))
            ask(board, root, "unlock", session="a", any=False)
            assert (stranger.poll() is None) is not same
        finally:
            stranger.kill()


def test_a_process_that_ended_before_it_was_noted_is_no_process(board, monkeypatch):
    with subprocess.Popen(["true"]) as process:
        time.sleep(0.2)  # a zombie now
        noted = board.identity(process.pid)
        assert (noted["start"], board.is_running(noted)) == (None, False)
    assert not board.is_running(dict(board.identity(os.getpid()), boot="another boot"))
    assert board.is_running(board.identity(os.getpid()))


class FullDisk(io.BytesIO):
    """A file that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, data: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the quota of the disk is used up"),
        (errno.EFBIG, "the disk takes no file of that size"),
    ],
)
def test_a_full_disk(board, root, monkeypatch, number, message):
    def opened(path: str, mode: str = "r", **how: Any) -> Any:
        if not path.endswith(".part"):
            return open(path, mode, **how)
        Path(path).touch()
        return FullDisk(number)

    monkeypatch.setattr(board, "open", opened, raising=False)
    assert put(board, root, b"content") == {"error": message, "kind": "full"}
    assert lock(board, root, "a") == {"error": message, "kind": "full"}
    assert list(root.rglob("*.part")) == []


def test_a_file_larger_than_may_be_leaves_no_part(root):
    most = 50_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    data = b"x" * (most + 1)
    request = request_of(root, "put", data, {"files": [{"sha256": sha256(data), "size": len(data)}]})
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], input=request, stdout=subprocess.PIPE, preexec_fn=limit
    )
    assert reply_in(done.stdout)[0] == {"error": "the disk takes no file of that size", "kind": "full"}
    assert list((root / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"contenT", "a file came altered"), (b"cont", "the connection ended in the middle of a file")],
)
def test_a_file_that_comes_altered_or_cut(board, root, body, message):
    files = [{"sha256": sha256(b"content"), "size": 7}]
    assert ask(board, root, "put", body, files=files) == {"error": message, "kind": "cut"}
    assert list((root / "store").iterdir()) == []


NAMES = st.text(st.sampled_from("ab./\0~ \\-é"), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, op=st.sampled_from(["put", "start", "file", "wait", "result"]))
@example(name="../x", op="put")
@example(name="..", op="start")
@example(name="kit/../../x", op="file")
@example(name="/etc/x", op="file")
@example(name="..", op="wait")
@example(name="../../secret", op="result")
def test_no_request_leaves_the_folder(tmp_path_factory, board, name, op):
    around = tmp_path_factory.mktemp("around")
    root = around / "root"
    (around / "secret").write_text("secret")
    put(board, root, b"kit")
    (root / "jobs" / "a-1").mkdir()
    (root / "jobs" / "a-1" / "started.json").write_text(json.dumps({"boot": board.boot_id()}))
    (root / "jobs" / "a-1" / "done.json").write_text('{"code": 0, "ended": null}')
    board.start_supervisor = lambda folder: None
    there = start_of_job("a", 2, does=b"kit")
    sink = io.BytesIO()
    requests = {
        "put": ("put", {"files": [{"sha256": name, "size": 0}]}),
        "start": ("start", {**there, "id": name}),
        "file": ("start", {**there, "files": {name: sha256(b"kit")}}),
        "wait": ("wait", {**claim("a-1"), "id": name, "seconds": 0, "files": [], "most": 9}),
        "result": ("wait", {**claim("a-1"), "id": "a-1", "seconds": 0, "files": [name], "most": 9}),
    }
    kind, request = requests[op]
    board.main(io.BytesIO(request_of(root, kind, b"", request)), sink)
    head, body = reply_in(sink.getvalue())
    assert sorted(path.name for path in around.iterdir()) == ["root", "secret"]
    ours = {"store", "jobs", "engines", "guard", "lock.json", ".edgekd"}
    assert {path.name for path in root.iterdir()} <= ours
    assert body == b""
    if any(part.startswith(".") or not part or "\0" in part for part in name.split("/")):
        assert head["error"].endswith(" is no name of a file")
        assert head["kind"] == "name"


def test_a_result_that_is_too_large(board, root):
    kit = b"open('log.json', 'w').write('x' * 1001); print('y' * 5000 + 'end')"
    put(board, root, kit)
    start(root, **start_of_job(does=kit))
    assert wait(board, root, "a-1") == {"error": "log.json has more than 1000 bytes", "kind": "large"}
    head, body = ask_program(
        root, "wait", **claim("a-1"), id="a-1", seconds=9, files=["output.txt"], most=1000
    )
    assert (head["files"][0]["size"], body) == (2000, b"y" * 1996 + b"end\n")


def test_unlock_is_for_the_own_session_unless_any_is_asked_for(board, root):
    process = running_job(board, root, "a")
    assert ask(board, root, "unlock", session="b", any=False) == {"owner": None}
    assert is_alive(process)
    assert lock(board, root, "b")["held_by"] == "owner of a"
    assert ask(board, root, "unlock", session="b", any=True) == {"owner": "owner of a"}
    assert not is_alive(process)
    assert ask(board, root, "unlock", session="b", any=True) == {"owner": None}


def test_clean_waits_for_whoever_measures_and_removes_what_is_ours(board, root, monkeypatch):
    process = running_job(board, root, "a")
    (root / "mine.txt").write_text("mine")
    assert ask(board, root, "clean")["held_by"] == "owner of a"
    real = board.uptime
    monkeypatch.setattr(board, "uptime", lambda: real() + 101)
    assert ask(board, root, "clean") == {"root": str(root)}
    assert not is_alive(process)
    assert [path.name for path in root.iterdir()] == ["mine.txt"]


def test_the_folder_is_the_first_that_can_be_written(board, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert board.find_root(None) == str(tmp_path / ".cache" / "edgekd")
    assert (tmp_path / ".cache" / "edgekd").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert board.find_root(None) == str(tmp_path / "caches" / "edgekd")
    (tmp_path / "file").write_text("")
    with pytest.raises(board.BoardError, match=r"^no folder can be written: .*Not a directory"):
        board.find_root(str(tmp_path / "file" / "x"))


def test_a_job_waits_for_whoever_measures_in_another_folder(board, root, tmp_path):
    kit = b"import pathlib; pathlib.Path('log.json').write_text('{}')"
    assert put(board, root, kit) == {}
    busy = os.open(tmp_path / "busy", os.O_RDONLY | os.O_CREAT, 0o644)
    fcntl.flock(busy, fcntl.LOCK_EX)
    assert start(root, **start_of_job(does=kit)) == {"missing": []}
    assert wait(board, root, "a-1", seconds=0.5)["state"] == "running"
    assert not (root / "jobs" / "a-1" / "kit.json").exists()
    os.close(busy)
    done = wait(board, root, "a-1", seconds=20)
    assert (done["state"], done["code"], done["ended"]) == ("done", 0, None)


def test_a_job_that_waited_for_all_of_its_time_says_so(board, root, tmp_path):
    kit = b"pass"
    assert put(board, root, kit) == {}
    busy = os.open(tmp_path / "busy", os.O_RDONLY | os.O_CREAT, 0o644)
    fcntl.flock(busy, fcntl.LOCK_EX)
    try:
        assert start(root, **start_of_job(does=kit, timeout_s=0.3)) == {"missing": []}
        done = wait(board, root, "a-1", seconds=20)
    finally:
        os.close(busy)
    assert (done["state"], done["code"], done["ended"]) == ("done", None, "busy")


def test_waiting_for_a_job_keeps_the_lock(board, root):
    running_job(board, root, "a", lasts_s=0.5)
    assert wait(board, root, "a-1", seconds=0)["state"] == "running"
    time.sleep(0.6)
    assert lock(board, root, "b")["held_by"] == "owner of a"


def test_a_folder_that_holds_somebodys_files_is_not_taken(board, root):
    (root / "jobs" / "mine").mkdir(parents=True)
    head, _ = ask_program(root, "start", **start_of_job())
    assert head["kind"] == "folder"
    assert "jobs: is there already and not edgekd's" in head["error"] or "not edgekd's" in head["error"]
    assert (root / "jobs" / "mine").is_dir()


def test_a_pipe_in_the_place_of_the_machines_lock_blocks_nobody(board, root, tmp_path):
    os.mkfifo(tmp_path / "busy")
    kit = b"import pathlib; pathlib.Path('log.json').write_text('{}')"
    assert put(board, root, kit) == {}
    assert start(root, **start_of_job(does=kit)) == {"missing": []}
    assert wait(board, root, "a-1")["state"] in ("done", "lost")
